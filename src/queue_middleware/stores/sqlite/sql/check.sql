-- What holds in every committed state of a database. Each block finds the rows for which it does not hold; `checks` has the sentences.

-- name: check_webhook_is_missing
SELECT id FROM job WHERE finished_at IS NOT NULL AND webhook IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND number = 0);

-- name: check_webhook_is_early
SELECT job_id FROM delivery JOIN job ON job.id = job_id WHERE number = 0 AND finished_at IS NULL;

-- name: check_content_is_lost
SELECT id FROM job WHERE finished_at IS NULL AND id NOT IN (SELECT job_id FROM payload);

-- name: check_content_is_left
SELECT job_id FROM request_chunk JOIN job ON job.id = job_id WHERE finished_at IS NOT NULL
    AND job_id NOT IN (SELECT job_id FROM kept_request)
UNION ALL SELECT job_id FROM kept_request JOIN job ON job.id = job_id
    WHERE kept_until IS NULL AND state <> 'awaiting' OR kept_until IS NOT NULL AND finished_at IS NULL
UNION ALL SELECT job_id FROM kept_request JOIN unstored_response USING (job_id)
UNION ALL SELECT job_id FROM early_result JOIN job ON job.id = job_id WHERE finished_at IS NOT NULL
UNION ALL SELECT job_id FROM task JOIN job ON job.id = job_id
    WHERE finished_at IS NOT NULL AND (awaits_until IS NOT NULL OR poll_at IS NOT NULL
        OR task.token IS NOT NULL OR credentials IS NOT NULL OR secrets IS NOT NULL);

-- name: check_poll_has_no_host
SELECT job_id FROM task WHERE poll_at IS NOT NULL AND poll_host IS NULL;

-- name: check_webhook_is_overlooked
SELECT delivery.flow, min(due_at) AS first FROM delivery
    LEFT JOIN flow ON flow.flow = delivery.flow LEFT JOIN receiver ON receiver.host = flow.host
WHERE delivery.state = 'pending' GROUP BY delivery.flow
HAVING NOT ifnull(flow.next_at <= max(first, ifnull(flow.open_until, 0), flow.used_at)
    AND receiver.next_at <= max(flow.next_at, ifnull(receiver.open_until, 0)), 0);

-- name: check_backlog
WITH counted (state, level, priority, bucket, jobs) AS (
    SELECT iif(state = 'delayed' AND attempt = 0, 'scheduled', state), level, priority, id >> bits, count(*)
    FROM job, (SELECT 1 AS level, 10 AS bits UNION ALL VALUES (2, 20), (3, 28), (4, 36))
    WHERE state IN ('queued', 'delayed') GROUP BY 1, 2, 3, 4
    UNION ALL SELECT 'task', 4, 0, 0, count(*) FROM job WHERE task <> 0 AND finished_at IS NULL HAVING count(*) > 0
), kept AS (SELECT state, level, priority, bucket, jobs FROM backlog)
SELECT * FROM (SELECT * FROM kept EXCEPT SELECT * FROM counted)
UNION ALL SELECT * FROM (SELECT * FROM counted EXCEPT SELECT * FROM kept);

-- name: check_backlog_client
WITH counted (client, jobs) AS (
    SELECT client, count(*) FROM job WHERE state = 'queued' OR (state = 'delayed' AND attempt > 0) GROUP BY 1
), kept AS (SELECT client, jobs FROM backlog_client)
SELECT * FROM (SELECT * FROM kept EXCEPT SELECT * FROM counted)
UNION ALL SELECT * FROM (SELECT * FROM counted EXCEPT SELECT * FROM kept);

-- name: check_unfinished_tasks
WITH counted (client, jobs) AS (
    SELECT client, count(*) FROM job WHERE task <> 0 AND finished_at IS NULL GROUP BY 1
), kept AS (SELECT client, jobs FROM unfinished_tasks)
SELECT * FROM (SELECT * FROM kept EXCEPT SELECT * FROM counted)
UNION ALL SELECT * FROM (SELECT * FROM counted EXCEPT SELECT * FROM kept);

-- name: count_requests
SELECT state, count(*) FROM job GROUP BY state;

-- name: oldest_requests
-- The key of the oldest one, and of the oldest one that has not ended.
SELECT (SELECT min(id) FROM job), (SELECT min(id) FROM job WHERE finished_at IS NULL);

-- name: newest_request
SELECT max(id) FROM job;
