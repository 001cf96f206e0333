-- How many wait, counted while they come and go, so that nobody has to count the queue: not who asks for his place in it, not a
-- process that finds that another one has written. Four levels of buckets, of 2^10, 2^20, 2^28 and 2^36 ids: in milliseconds
-- less than one, 32, 8 thousand and 2 million. Triggers, so that no statement can forget it; a job that starts at once touches none.
CREATE TABLE waiting (
    state    TEXT    NOT NULL,  -- 'queued' or 'delayed'
    level    INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    bucket   INTEGER NOT NULL,  -- id >> the bits of the level
    jobs     INTEGER NOT NULL CHECK (jobs >= 0),
    PRIMARY KEY (state, level, priority, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE waiting_client (
    client TEXT    PRIMARY KEY,
    jobs   INTEGER NOT NULL CHECK (jobs >= 0)
) STRICT, WITHOUT ROWID;

INSERT INTO waiting SELECT state, 1, priority, id >> 10, count(*) FROM job WHERE state IN ('queued', 'delayed') GROUP BY 1, 3, 4;
INSERT INTO waiting SELECT state, 2, priority, id >> 20, count(*) FROM job WHERE state IN ('queued', 'delayed') GROUP BY 1, 3, 4;
INSERT INTO waiting SELECT state, 3, priority, id >> 28, count(*) FROM job WHERE state IN ('queued', 'delayed') GROUP BY 1, 3, 4;
INSERT INTO waiting SELECT state, 4, priority, id >> 36, count(*) FROM job WHERE state IN ('queued', 'delayed') GROUP BY 1, 3, 4;
INSERT INTO waiting_client SELECT client, count(*) FROM job WHERE state IN ('queued', 'delayed') GROUP BY 1;

CREATE TRIGGER job_begins_to_wait AFTER INSERT ON job WHEN new.state IN ('queued', 'delayed') BEGIN
    INSERT INTO waiting VALUES
        (new.state, 1, new.priority, new.id >> 10, 1), (new.state, 2, new.priority, new.id >> 20, 1),
        (new.state, 3, new.priority, new.id >> 28, 1), (new.state, 4, new.priority, new.id >> 36, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO waiting_client VALUES (new.client, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_waits_again AFTER UPDATE OF state ON job WHEN new.state IN ('queued', 'delayed') BEGIN
    INSERT INTO waiting VALUES
        (new.state, 1, new.priority, new.id >> 10, 1), (new.state, 2, new.priority, new.id >> 20, 1),
        (new.state, 3, new.priority, new.id >> 28, 1), (new.state, 4, new.priority, new.id >> 36, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO waiting_client VALUES (new.client, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_waits_no_longer AFTER UPDATE OF state ON job WHEN old.state IN ('queued', 'delayed') BEGIN
    UPDATE waiting SET jobs = jobs - 1 WHERE state = old.state AND level = 1 AND priority = old.priority AND bucket = old.id >> 10;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = old.state AND level = 2 AND priority = old.priority AND bucket = old.id >> 20;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = old.state AND level = 3 AND priority = old.priority AND bucket = old.id >> 28;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = old.state AND level = 4 AND priority = old.priority AND bucket = old.id >> 36;
    UPDATE waiting_client SET jobs = jobs - 1 WHERE client = old.client;
END;

CREATE TRIGGER job_is_deleted_waiting AFTER DELETE ON job WHEN old.state IN ('queued', 'delayed') BEGIN
    UPDATE waiting SET jobs = jobs - 1 WHERE state = old.state AND level = 1 AND priority = old.priority AND bucket = old.id >> 10;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = old.state AND level = 2 AND priority = old.priority AND bucket = old.id >> 20;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = old.state AND level = 3 AND priority = old.priority AND bucket = old.id >> 28;
    UPDATE waiting SET jobs = jobs - 1 WHERE state = old.state AND level = 4 AND priority = old.priority AND bucket = old.id >> 36;
    UPDATE waiting_client SET jobs = jobs - 1 WHERE client = old.client;
END;

-- Empty buckets would be added up for ever.
CREATE TRIGGER waiting_is_empty AFTER UPDATE OF jobs ON waiting WHEN new.jobs = 0 BEGIN
    DELETE FROM waiting WHERE state = new.state AND level = new.level AND priority = new.priority AND bucket = new.bucket;
END;

CREATE TRIGGER waiting_client_is_empty AFTER UPDATE OF jobs ON waiting_client WHEN new.jobs = 0 BEGIN
    DELETE FROM waiting_client WHERE client = new.client;
END;

-- Where a waiting job stands: the queued ones in front of it. Whole buckets, from the widest to the narrowest, then the few jobs in
-- front of it in its own narrowest bucket.
CREATE VIEW place AS
SELECT me.id AS id,
    (SELECT ifnull(sum(jobs), 0) FROM waiting WHERE state = 'queued' AND level = 4 AND priority < me.priority)
    + (SELECT ifnull(sum(jobs), 0) FROM waiting
        WHERE state = 'queued' AND level = 4 AND priority = me.priority AND bucket < me.id >> 36)
    + (SELECT ifnull(sum(jobs), 0) FROM waiting
        WHERE state = 'queued' AND level = 3 AND priority = me.priority AND bucket >= (me.id >> 36) << 8 AND bucket < me.id >> 28)
    + (SELECT ifnull(sum(jobs), 0) FROM waiting
        WHERE state = 'queued' AND level = 2 AND priority = me.priority AND bucket >= (me.id >> 28) << 8 AND bucket < me.id >> 20)
    + (SELECT ifnull(sum(jobs), 0) FROM waiting
        WHERE state = 'queued' AND level = 1 AND priority = me.priority AND bucket >= (me.id >> 20) << 10 AND bucket < me.id >> 10)
    + (SELECT count(*) FROM job
        WHERE state = 'queued' AND priority = me.priority AND id >= (me.id >> 10) << 10 AND id < me.id) AS position
FROM job AS me
WHERE me.state IN ('queued', 'delayed');

-- Counted in waiting_client now; keeping up a list of texts cost more than all the counting.
DROP INDEX job_waiting;

-- With all that is asked of it: who looks for the next job passes by those whose start deadline has passed, and there may be many.
DROP INDEX job_queued;
CREATE INDEX job_queued ON job (priority, id, start_by, state) WHERE state = 'queued';
