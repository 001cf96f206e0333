-- name: insert_task
INSERT OR IGNORE INTO task (job_id, spec, salt, callback, signal, client, awaits, secrets) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: count_tasks_of_client
-- Tasks that have not ended.
SELECT jobs FROM unfinished_tasks WHERE client = ?;

-- name: mark_task
UPDATE job SET task = ? WHERE id = ?;

-- name: schedule_job
UPDATE job SET state = 'delayed', due_at = ? WHERE id = ?;

-- name: tasks
SELECT job_id, spec, salt, callback, signal, client FROM task WHERE job_id IN (SELECT value FROM json_each(?));

-- name: task_by_callback
SELECT job_id, id_random, state, spec, salt, callback, signal, task.client, resolved_by
FROM task JOIN job ON job.id = task.job_id WHERE callback = ?;

-- name: task_by_signal
SELECT job_id, id_random, state, spec, salt, callback, signal, task.client, resolved_by
FROM task JOIN job ON job.id = task.job_id WHERE signal = ?;

-- name: insert_early_result
INSERT INTO early_result (job_id, source, status, head, body, error_type, error) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: early_result
SELECT source, status, head, body, error_type, error FROM early_result WHERE job_id = ?;

-- name: early_result_source
SELECT source FROM early_result WHERE job_id = ?;

-- name: delete_early_result
DELETE FROM early_result WHERE job_id = ?;

-- name: state_completed_by
SELECT state, status, error_type FROM job
WHERE id = ? AND token = ? AND (finished_at IS NOT NULL OR state = 'awaiting');

-- name: set_awaiting
-- The token is kept, so that the claim can repeat the write.
UPDATE job SET state = 'awaiting', owner = NULL, lease_until = NULL WHERE id = ?;

-- name: begin_wait
UPDATE task SET response_status = ?, responded_at = ?, awaits_until = ?, poll_at = ?, poll = ?, poll_host = ?, credentials = ?
WHERE job_id = ?;

-- name: end_wait
UPDATE task SET awaits_until = NULL, poll_at = NULL, owner = NULL, token = NULL, lease_until = NULL, credentials = NULL WHERE job_id = ?;

-- name: set_resolved_by
UPDATE task SET resolved_by = ? WHERE job_id = ?;

-- name: state_and_source
SELECT state, resolved_by FROM job JOIN task ON task.job_id = job.id WHERE job.id = ?;

-- name: resolve_job
UPDATE job SET state = ?, finished_at = ?, status = ?, error_type = ?, error = ?, due_at = NULL
WHERE id = ? AND state IN ('queued', 'delayed', 'awaiting') RETURNING webhook;

-- name: record_status
UPDATE task SET event = ? WHERE job_id = ? AND EXISTS (SELECT 1 FROM job WHERE id = job_id AND finished_at IS NULL);

-- name: timed_out_tasks
-- A task whose poll is due or running gets another minute.
SELECT task.job_id, id_random, (SELECT count(*) FROM response_chunk WHERE job_id = job.id)
    + (SELECT count(*) FROM request_chunk WHERE job_id = job.id) FROM task JOIN job ON job.id = task.job_id
WHERE awaits_until <= :now AND (poll_at IS NULL OR awaits_until <= :now - 60000) ORDER BY awaits_until LIMIT 500;

-- name: due_polls
SELECT job_id, poll_host FROM task WHERE poll_at <= ? AND token IS NULL ORDER BY poll_at LIMIT ?;

-- name: postpone_polls
UPDATE task SET poll_at = ? WHERE job_id IN (SELECT value FROM json_each(?));

-- name: next_poll_after
SELECT min(poll_at) FROM task WHERE poll_at > ? AND token IS NULL;

-- name: claim_polls
-- A task with a token is being polled.
UPDATE task SET polls = polls + 1, owner = :owner, token = random() & 9223372036854775807, lease_until = :lease_until
WHERE job_id IN (SELECT value FROM json_each(:keys)) AND token IS NULL
RETURNING job_id, token, polls, poll_failures, response_status, awaits_until, poll, poll_host, credentials, secrets,
    (SELECT id_random FROM job WHERE id = job_id), spec, salt, callback, signal, client;

-- name: settle_poll
UPDATE task SET poll_at = :poll_at, event = ifnull(:event, event), poll_failures = :failures,
    owner = NULL, token = NULL, lease_until = NULL
WHERE job_id = :key AND token = :token;

-- name: next_poll
SELECT min(poll_at) FROM task WHERE poll_at IS NOT NULL AND token IS NULL;

-- name: task_record
-- For a failed task the response is the message of the external service. Before the end the payload is the request, which is not read.
SELECT task_record.*, head, body, chunks FROM task_record LEFT JOIN payload ON job_id = id AND finished_at IS NOT NULL
WHERE id BETWEEN :first AND :first | 32767 AND id_random = :tail;

-- name: task_page
-- Tasks before the page are skipped in the index, without reading them.
SELECT task_record.* FROM (
    SELECT job_id FROM task WHERE client = :client ORDER BY job_id DESC LIMIT :limit OFFSET :offset) AS listed
    CROSS JOIN task_record ON task_record.id = listed.job_id
ORDER BY id DESC;

-- name: count_tasks
SELECT count(*) FROM task WHERE client = :client;

-- name: task_page_of_status
-- The status is computed from several columns. CROSS JOIN prevents a scan of the tasks of all clients.
SELECT task_record.* FROM (SELECT job_id FROM task WHERE client = :client ORDER BY job_id DESC) AS listed
    CROSS JOIN task_record ON task_record.id = listed.job_id
WHERE task_status = :status ORDER BY listed.job_id DESC LIMIT :limit OFFSET :offset;

-- name: count_tasks_of_status
SELECT count(*) FROM (SELECT job_id FROM task WHERE client = :client) AS listed
    CROSS JOIN task_record ON task_record.id = listed.job_id WHERE task_status = :status;

-- name: far_waits
SELECT job_id FROM task WHERE awaits_until > :latest AND (responded_at > :latest OR poll_at > awaits_until + 60000) LIMIT :limit;

-- name: reset_far_waits
UPDATE task SET awaits_until = awaits_until - responded_at + :now, poll_at = poll_at - responded_at + :now, responded_at = :now
WHERE job_id IN (SELECT value FROM json_each(:keys)) AND awaits_until IS NOT NULL AND responded_at > :latest;

-- name: reset_far_polls
UPDATE task SET poll_at = :now WHERE job_id IN (SELECT value FROM json_each(:keys)) AND poll_at > awaits_until + 60000;
