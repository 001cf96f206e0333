-- What waits for a time of its own (a task with delayUntil: delayed, and never begun) is counted apart from the queue: nothing works
-- it off, and whatever fills the queue is answered 503 to everybody. And tasks are counted for as long as they have not ended,
-- wherever they are: in the queue, until their time, running, or with an external service. One row of `waiting`: 'task', level 4.
DROP TRIGGER job_begins_to_wait;
DROP TRIGGER job_waits_again;
DROP TRIGGER job_waits_no_longer;
DROP TRIGGER job_is_deleted_waiting;

CREATE TRIGGER job_begins_to_wait AFTER INSERT ON job WHEN new.state IN ('queued', 'delayed') BEGIN
    INSERT INTO waiting VALUES
        (iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), 1, new.priority, new.id >> 10, 1),
        (iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), 2, new.priority, new.id >> 20, 1),
        (iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), 3, new.priority, new.id >> 28, 1),
        (iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), 4, new.priority, new.id >> 36, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO waiting_client SELECT new.client, 1 WHERE new.state = 'queued' OR new.attempt > 0
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_waits_again AFTER UPDATE OF state ON job WHEN new.state IN ('queued', 'delayed') BEGIN
    INSERT INTO waiting
        SELECT iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), level, new.priority, new.id >> bits, 1
        FROM (SELECT 1 AS level, 10 AS bits UNION ALL SELECT 2, 20 UNION ALL SELECT 3, 28 UNION ALL SELECT 4, 36) WHERE true
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO waiting_client SELECT new.client, 1 WHERE new.state = 'queued' OR new.attempt > 0
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_waits_no_longer AFTER UPDATE OF state ON job WHEN old.state IN ('queued', 'delayed') BEGIN
    UPDATE waiting SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 1 AND priority = old.priority AND bucket = old.id >> 10;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 2 AND priority = old.priority AND bucket = old.id >> 20;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 3 AND priority = old.priority AND bucket = old.id >> 28;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 4 AND priority = old.priority AND bucket = old.id >> 36;
    UPDATE waiting_client SET jobs = jobs - 1 WHERE client = old.client AND (old.state = 'queued' OR old.attempt > 0);
END;

CREATE TRIGGER job_is_deleted_waiting AFTER DELETE ON job WHEN old.state IN ('queued', 'delayed') BEGIN
    UPDATE waiting SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 1 AND priority = old.priority AND bucket = old.id >> 10;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 2 AND priority = old.priority AND bucket = old.id >> 20;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 3 AND priority = old.priority AND bucket = old.id >> 28;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 4 AND priority = old.priority AND bucket = old.id >> 36;
    UPDATE waiting_client SET jobs = jobs - 1 WHERE client = old.client AND (old.state = 'queued' OR old.attempt > 0);
END;

-- Secrets for a task's polls. Its specification, which is shown, has only the names of these headers.
ALTER TABLE task ADD COLUMN secrets BLOB;

CREATE TABLE unfinished_tasks (
    client TEXT    PRIMARY KEY,
    jobs   INTEGER NOT NULL CHECK (jobs >= 0)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER unfinished_tasks_is_empty AFTER UPDATE OF jobs ON unfinished_tasks WHEN new.jobs = 0 BEGIN
    DELETE FROM unfinished_tasks WHERE client = new.client;
END;

CREATE TRIGGER task_begins AFTER UPDATE OF task ON job WHEN old.task = 0 AND new.task <> 0 AND new.finished_at IS NULL BEGIN
    INSERT INTO waiting VALUES ('task', 4, 0, 0, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO unfinished_tasks VALUES (new.client, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

-- However it ends: nobody needs its secrets then.
CREATE TRIGGER task_ends AFTER UPDATE OF state ON job WHEN old.task <> 0 AND old.finished_at IS NULL AND new.finished_at IS NOT NULL BEGIN
    UPDATE waiting SET jobs = jobs - 1 WHERE state = 'task' AND level = 4 AND priority = 0 AND bucket = 0;
    UPDATE unfinished_tasks SET jobs = jobs - 1 WHERE client = old.client;
    UPDATE task SET secrets = NULL, credentials = NULL WHERE job_id = old.id AND (secrets IS NOT NULL OR credentials IS NOT NULL);
END;

CREATE TRIGGER task_is_deleted AFTER DELETE ON job WHEN old.task <> 0 AND old.finished_at IS NULL BEGIN
    UPDATE waiting SET jobs = jobs - 1 WHERE state = 'task' AND level = 4 AND priority = 0 AND bucket = 0;
    UPDATE unfinished_tasks SET jobs = jobs - 1 WHERE client = old.client;
END;

DELETE FROM waiting WHERE state = 'delayed';
DELETE FROM waiting_client;
INSERT INTO waiting SELECT iif(attempt = 0, 'scheduled', state), level, priority, id >> bits, count(*)
    FROM job, (SELECT 1 AS level, 10 AS bits UNION ALL SELECT 2, 20 UNION ALL SELECT 3, 28 UNION ALL SELECT 4, 36)
    WHERE state = 'delayed' GROUP BY 1, 2, 3, 4;
INSERT INTO waiting_client SELECT client, count(*) FROM job
    WHERE state = 'queued' OR (state = 'delayed' AND attempt > 0) GROUP BY 1;
INSERT INTO waiting SELECT 'task', 4, 0, 0, count(*) FROM job WHERE task <> 0 AND finished_at IS NULL HAVING count(*) > 0;
INSERT INTO unfinished_tasks SELECT client, count(*) FROM job WHERE task <> 0 AND finished_at IS NULL GROUP BY 1;
