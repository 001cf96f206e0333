-- Numbers that all processes of a queue share

-- name: add_numbers
INSERT INTO metric (name, labels, bucket, value)
SELECT * FROM (VALUES {rows}(?, ?, ?, ?)) WHERE column3 >= 0
ON CONFLICT DO UPDATE SET value = value + excluded.value;

-- name: counted_routes
SELECT labels FROM metric WHERE name = ?;

-- name: add_tallies
-- The parameter before the rows is the minute. Columns: name, route, bucket, value.
INSERT INTO tally (minute, name, route, bucket, value)
SELECT ?, * FROM (VALUES {rows}(?, ?, ?, ?)) WHERE column3 >= 0
ON CONFLICT DO UPDATE SET value = value + excluded.value;

-- name: delete_old_tallies
DELETE FROM tally WHERE minute < :before AND minute < (SELECT min(minute) FROM tally) + :most;

-- name: delete_future_tallies
-- They were stored while the clock was ahead.
DELETE FROM tally WHERE minute > ? + 1;

-- name: route_of_request
SELECT template FROM job JOIN route ON route.id = job.route WHERE job.id >= :first AND job.id < :first + 32768 AND id_random = :tail;

-- name: numbers
SELECT name, labels, bucket, value FROM metric;

-- name: created_at
SELECT created_at FROM birth;

-- name: tallies
SELECT name, route, bucket, sum(value) FROM tally
WHERE minute >= :since AND name IN (SELECT value FROM json_each(:names)) GROUP BY name, route, bucket;

-- name: unended_jobs
-- Columns: state, route, jobs, oldest job. Counts at most `most` jobs of each state; `job_queued` and `job_by_state` have all columns.
SELECT 'queued', route, count(*), min(id)
FROM (SELECT id, route FROM job INDEXED BY job_queued WHERE state = 'queued' LIMIT :most) GROUP BY route
UNION ALL SELECT 'delayed', route, count(*), min(id) FROM (
    SELECT id, route FROM job INDEXED BY job_by_state
    WHERE state = 'delayed' AND state <> 'running' AND state <> 'completed' AND state <> 'queued' LIMIT :most) GROUP BY route
UNION ALL SELECT 'awaiting', route, count(*), min(id) FROM (
    SELECT id, route FROM job INDEXED BY job_by_state
    WHERE state = 'awaiting' AND state <> 'running' AND state <> 'completed' AND state <> 'queued' LIMIT :most) GROUP BY route
UNION ALL SELECT 'running', route, count(*), min(id) FROM job INDEXED BY job_running WHERE state = 'running' GROUP BY route;

-- name: backlog_totals
-- Tasks that have not ended are counted, too, whether or not they are awaiting.
SELECT iif(state = 'scheduled', 'delayed', state), sum(jobs) FROM backlog WHERE state IN ('queued', 'delayed', 'scheduled') AND level = 4
GROUP BY 1;

-- name: routes_by_id
SELECT id, template FROM route;

-- name: undelivered
-- Webhooks that are not delivered, at most `most` of each state.
SELECT 'pending', (SELECT count(*) FROM (SELECT 1 FROM delivery INDEXED BY delivery_due WHERE state = 'pending' LIMIT :most))
UNION ALL SELECT 'sending', (SELECT count(*) FROM delivery INDEXED BY delivery_sending WHERE state = 'sending')
UNION ALL SELECT 'dead', (SELECT count(*) FROM (SELECT 1 FROM delivery INDEXED BY delivery_dead WHERE state = 'dead' LIMIT :most));
