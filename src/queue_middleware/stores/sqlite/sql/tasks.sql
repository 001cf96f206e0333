-- name: insert_task
INSERT OR IGNORE INTO task (job_id, spec, salt, callback, signal, client, awaits, secrets) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: tasks_of_client
SELECT jobs FROM unfinished_tasks WHERE client = ?;

-- name: mark_task
UPDATE job SET task = ? WHERE id = ?;

-- name: put_off
UPDATE job SET state = 'delayed', due_at = ? WHERE id = ?;

-- name: tasks
SELECT job_id, spec, salt, callback, signal, client FROM task WHERE job_id IN (SELECT value FROM json_each(?));

-- name: task_by_callback
SELECT job_id, tail, state, spec, salt, callback, signal, task.client, resolved_by
FROM task JOIN job ON job.id = task.job_id WHERE callback = ?;

-- name: task_by_signal
SELECT job_id, tail, state, spec, salt, callback, signal, task.client, resolved_by
FROM task JOIN job ON job.id = task.job_id WHERE signal = ?;

-- name: put_early
INSERT INTO early (job_id, channel, status, head, body, error_type, error) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: early
SELECT channel, status, head, body, error_type, error FROM early WHERE job_id = ?;

-- name: early_channel
SELECT channel FROM early WHERE job_id = ?;

-- name: drop_early
DELETE FROM early WHERE job_id = ?;

-- name: concluded_by
SELECT state FROM job WHERE id = ? AND token = ? AND (finished_at IS NOT NULL OR state = 'waiting');

-- name: begin_wait
-- The token stays, so that who ended the attempt can ask again.
UPDATE job SET state = 'waiting', owner = NULL, lease_until = NULL WHERE id = ?;

-- name: wait
UPDATE task SET answered = ?, answered_at = ?, waits_until = ?, poll_at = ?, poll = ?, credentials = ? WHERE job_id = ?;

-- name: wait_no_longer
UPDATE task SET waits_until = NULL, poll_at = NULL, owner = NULL, token = NULL, lease_until = NULL, credentials = NULL WHERE job_id = ?;

-- name: resolved_by
UPDATE task SET resolved_by = ? WHERE job_id = ?;

-- name: outcome_so_far
SELECT state, resolved_by FROM job JOIN task ON task.job_id = job.id WHERE job.id = ?;

-- name: state
SELECT state FROM job WHERE id = ?;

-- name: end_outside
UPDATE job SET state = ?, finished_at = ?, status = ?, error_type = ?, error = ?, due_at = NULL
WHERE id = ? AND state IN ('queued', 'delayed', 'waiting') RETURNING webhook;

-- name: note
UPDATE task SET event = ? WHERE job_id = ? AND EXISTS (SELECT 1 FROM job WHERE id = job_id AND finished_at IS NULL);

-- name: waited_too_long
-- One with a poll to come, or under way, is left to the poller for a minute.
SELECT task.job_id, tail, (SELECT count(*) FROM response_part WHERE job_id = job.id) FROM task JOIN job ON job.id = task.job_id
WHERE waits_until <= :now AND (poll_at IS NULL OR waits_until <= :now - 60000) ORDER BY waits_until LIMIT 500;

-- name: due_polls
SELECT job_id, spec, poll FROM task WHERE poll_at <= ? AND token IS NULL ORDER BY poll_at LIMIT ?;

-- name: put_off_polls
UPDATE task SET poll_at = ? WHERE job_id IN (SELECT value FROM json_each(?));

-- name: next_poll_after
SELECT min(poll_at) FROM task WHERE poll_at > ? AND token IS NULL;

-- name: claim_poll
-- As long as it has a token it is not due again.
UPDATE task SET polls = polls + 1, owner = :owner, token = random() & 9223372036854775807, lease_until = :lease_until
WHERE job_id = :key RETURNING token, polls, troubles, answered, waits_until, credentials, secrets,
    (SELECT tail FROM job WHERE id = job_id);

-- name: settle_poll
UPDATE task SET poll_at = :poll_at, event = ifnull(:event, event), troubles = :troubles,
    owner = NULL, token = NULL, lease_until = NULL
WHERE job_id = :key AND token = :token;

-- name: next_poll
SELECT min(poll_at) FROM task WHERE poll_at IS NOT NULL AND token IS NULL;

-- name: record
SELECT * FROM task_record WHERE id BETWEEN :first AND :first | 32767 AND tail = :tail;

-- name: page
-- What stands in front of the page is passed over in the index alone.
SELECT task_record.* FROM (
    SELECT job_id FROM task WHERE client = :client ORDER BY job_id DESC LIMIT :limit OFFSET :offset) AS mine
    CROSS JOIN task_record ON task_record.id = mine.job_id
ORDER BY id DESC;

-- name: count_page
SELECT count(*) FROM task WHERE client = :client;

-- name: page_of_status
-- A status is not stored, it follows from several columns: CROSS, or the planner goes through the tasks of all clients.
SELECT task_record.* FROM (SELECT job_id FROM task WHERE client = :client ORDER BY job_id DESC) AS mine
    CROSS JOIN task_record ON task_record.id = mine.job_id
WHERE word = :word ORDER BY mine.job_id DESC LIMIT :limit OFFSET :offset;

-- name: count_page_of_status
SELECT count(*) FROM (SELECT job_id FROM task WHERE client = :client) AS mine
    CROSS JOIN task_record ON task_record.id = mine.job_id WHERE word = :word;

-- name: last_word
-- Also of one that failed: then it is what the provider said.
SELECT head, body, parts FROM payload WHERE job_id = ?;

-- name: waits_ahead
SELECT job_id FROM task WHERE waits_until > :latest AND (answered_at > :latest OR poll_at > waits_until + 60000) LIMIT :limit;

-- name: waits_from_now
UPDATE task SET waits_until = waits_until - answered_at + :now, poll_at = poll_at - answered_at + :now, answered_at = :now
WHERE job_id IN (SELECT value FROM json_each(:keys)) AND waits_until IS NOT NULL AND answered_at > :latest;

-- name: polls_now
UPDATE task SET poll_at = :now WHERE job_id IN (SELECT value FROM json_each(:keys)) AND poll_at > waits_until + 60000;
