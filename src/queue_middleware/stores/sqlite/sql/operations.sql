-- What operators see of one request, kept requests, and what operators do to requests

-- name: job_detail
-- The payload is the request until the job awaits or has ended. `length` does not read the blob.
SELECT job.id, id_random, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, client, task,
    (SELECT position FROM queue_position WHERE queue_position.id = job.id),
    route.method, route.template, priority, max_attempts, due_at, start_by, webhook, cancelling, owner,
    (SELECT length(body) FROM payload WHERE job_id = job.id AND state IN ('queued', 'delayed', 'running')
        UNION ALL SELECT length(body) FROM kept_request WHERE job_id = job.id)
        + (SELECT ifnull(sum(length(data)), 0) FROM request_chunk WHERE job_id = job.id),
    CASE WHEN finished_at IS NOT NULL THEN (SELECT length(body) + chunks * :chunk FROM payload WHERE job_id = job.id) END,
    (SELECT ifnull(max(number), 0) FROM log WHERE job_id = job.id),
    (SELECT kept_until FROM kept_request WHERE job_id = job.id AND kept_until > :now),
    (SELECT original FROM copy WHERE job_id = job.id), (SELECT original_random FROM copy WHERE job_id = job.id)
FROM job JOIN route ON route.id = job.route
WHERE job.id BETWEEN :first AND :first | 32767 AND id_random = :tail;

-- name: submitted_job
SELECT job.id, state, priority, client, max_attempts, retries, webhook, (SELECT events FROM webhook_events WHERE job_id = job.id),
    EXISTS (SELECT 1 FROM unstored_response WHERE job_id = job.id), route.template,
    (SELECT secrets FROM task WHERE task.job_id = job.id)
FROM job JOIN route ON route.id = job.route
WHERE job.id BETWEEN :first AND :first | 32767 AND id_random = :tail;

-- ## Attempts

-- name: insert_attempt
INSERT INTO attempt (job_id, position, number, started_at, ended_at, ending, status, detail, owner)
SELECT :key, 1 + ifnull(max(position), 0), :number, :started_at, :ended_at, :ending, :status, :detail, :owner
FROM attempt WHERE job_id = :key;

-- name: delete_oldest_attempts
DELETE FROM attempt WHERE job_id = :key AND position <= (SELECT max(position) FROM attempt WHERE job_id = :key) - :most;

-- name: attempts
SELECT number, started_at, ended_at, ending, status, detail, owner FROM attempt WHERE job_id = ? ORDER BY position;

-- ## Timelines

-- name: task_wait
SELECT responded_at, response_status FROM task WHERE job_id = ? AND responded_at IS NOT NULL;

-- name: attempts_of_deliveries
-- The newest of all deliveries of a job.
SELECT at, delivery_id, kind, host, delivery_attempt.number, status, error, duration
FROM delivery CROSS JOIN delivery_attempt ON delivery_id = delivery.id
WHERE job_id = :key ORDER BY at DESC, delivery_id DESC, delivery_attempt.number DESC LIMIT :limit;

-- name: acts_on_request
SELECT at, operator, action, count FROM audit WHERE target = ? ORDER BY id;

-- ## Kept requests
--
-- Requests of jobs that asked not to store their response are never kept.

-- name: requests_of_claims
-- The list contains pairs of key and token.
SELECT job.id, head, secrets
FROM json_each(?) AS chosen
    CROSS JOIN job ON job.id = json_extract(chosen.value, '$[0]') AND job.token = json_extract(chosen.value, '$[1]') AND state = 'running'
    CROSS JOIN payload ON payload.job_id = job.id LEFT JOIN task ON task.job_id = job.id
WHERE NOT EXISTS (SELECT 1 FROM unstored_response WHERE job_id = job.id);

-- name: requests_not_started
SELECT job.id, head, secrets
FROM json_each(?) AS chosen
    CROSS JOIN job ON job.id = chosen.value AND state IN ('queued', 'delayed')
    CROSS JOIN payload ON payload.job_id = job.id LEFT JOIN task ON task.job_id = job.id
WHERE NOT EXISTS (SELECT 1 FROM unstored_response WHERE job_id = job.id);

-- name: keep_requests
-- Columns: job_id, head, secrets (empty: none). The body is not copied through Python.
INSERT INTO kept_request (job_id, head, body, chunks, secrets, kept_until)
SELECT column1, column2, body, chunks, nullif(column3, x''), ? FROM (VALUES {rows}(?, ?, ?)) JOIN payload ON payload.job_id = column1;

-- name: keep_requests_of_waits
UPDATE kept_request SET kept_until = ? WHERE kept_until IS NULL AND job_id IN (SELECT value FROM json_each(?));

-- name: delete_requests_of_waits
DELETE FROM kept_request WHERE kept_until IS NULL AND job_id IN (SELECT value FROM json_each(?));

-- name: kept_request
SELECT head, body, chunks, secrets, kept_until FROM kept_request
WHERE job_id = :key AND (kept_until IS NULL OR kept_until > :now);

-- name: expired_requests
-- With the weight of each for retention. `length` does not read the blob.
SELECT job_id, :row + length(body) + chunks * :chunk FROM kept_request WHERE kept_until <= :now ORDER BY kept_until LIMIT :limit;

-- name: still_expired_requests
SELECT job_id FROM kept_request WHERE job_id IN (SELECT value FROM json_each(:keys)) AND kept_until <= :now;

-- name: delete_chunks_of_requests
DELETE FROM request_chunk WHERE job_id IN (SELECT value FROM json_each(?));

-- name: delete_kept_requests
DELETE FROM kept_request WHERE job_id IN (SELECT value FROM json_each(?));

-- ## Acts of operators

-- name: insert_copies
INSERT INTO copy (job_id, original, original_random) SELECT * FROM (VALUES {rows}(?, ?, ?)) WHERE column1 >= 0;

-- name: copies_of_job
-- The key of a deleted job may have been given to another one; its random part is its own.
SELECT job.id, id_random FROM copy CROSS JOIN job ON job.id = job_id
WHERE original = :key AND original_random = :tail ORDER BY job.id LIMIT :limit;

-- name: cancellable_jobs
-- The last column is the number of chunks that are deleted, or kept, with the request. The body in `payload` is a part of one.
SELECT job.id, state, (SELECT count(*) FROM request_chunk WHERE job_id = job.id) + (SELECT count(*) FROM response_chunk WHERE job_id = job.id)
    + ifnull((SELECT length(body) FROM payload WHERE job_id = job.id), 0) * 1.0 / :chunk
FROM json_each(:keys) AS chosen CROSS JOIN job ON job.id = chosen.value AND state IN ('queued', 'delayed', 'running', 'awaiting');

-- name: request_cancellations
UPDATE job SET cancelling = 1 WHERE id IN (SELECT value FROM json_each(?));

-- name: make_jobs_due
UPDATE job SET due_at = min(due_at, :now) WHERE id IN (SELECT value FROM json_each(:keys)) AND state = 'delayed' RETURNING id;
