-- What operators see of one request, kept requests, and what operators do to requests

-- name: job_detail
-- The payload is the request until the job awaits or has ended. `length` does not read the blob.
SELECT job.id, id_random, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, client, task,
    (SELECT position FROM queue_position WHERE queue_position.id = job.id),
    route.method, route.template, priority, max_attempts, due_at, start_by, webhook, cancelling, owner,
    CASE WHEN state IN ('queued', 'delayed', 'running') THEN
        (SELECT length(body) FROM payload WHERE job_id = job.id)
        + (SELECT ifnull(sum(length(data)), 0) FROM request_chunk WHERE job_id = job.id) END,
    CASE WHEN finished_at IS NOT NULL THEN (SELECT length(body) + chunks * :chunk FROM payload WHERE job_id = job.id) END,
    (SELECT ifnull(max(number), 0) FROM log WHERE job_id = job.id)
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
