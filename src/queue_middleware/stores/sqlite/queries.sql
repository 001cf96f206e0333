-- Named blocks. `{rows}` in front of a tuple repeats it for the rows of a batch, so that many rows are one statement: for each
-- statement, and each row that one returns, the interpreter's lock is given up and taken back, and the event loop wants it too.
-- Batches are filled up with rows of NULL; WHERE skips them.

-- name: last_id
SELECT max(id) FROM job;

-- name: insert_jobs
INSERT INTO job (id, tail, state, priority, client, attempt, max_attempts, retries, webhook, start_by, owner, token, lease_until, started_at)
SELECT * FROM (VALUES {rows}(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)) WHERE column1 IS NOT NULL;

-- name: put_payloads
-- New requests, and answers that take the place of theirs.
INSERT OR REPLACE INTO payload (job_id, head, body, parts)
SELECT * FROM (VALUES {rows}(?, ?, ?, ?)) WHERE column1 IS NOT NULL;

-- name: insert_request_parts
INSERT INTO request_part (job_id, number, data)
SELECT * FROM (VALUES {rows}(?, ?, ?)) WHERE column1 IS NOT NULL;

-- name: insert_short_lived
INSERT INTO short_lived (job_id)
SELECT * FROM (VALUES {rows}(?)) WHERE column1 IS NOT NULL;

-- name: queued_by_priority
SELECT priority, count(*) FROM job WHERE state = 'queued' GROUP BY priority;

-- name: count_delayed
SELECT count(*) FROM job WHERE state = 'delayed';

-- name: waiting_of_client
SELECT count(*) FROM job WHERE state IN ('queued', 'delayed') AND client = ?;

-- name: promote
UPDATE job SET state = 'queued', due_at = NULL WHERE state = 'delayed' AND due_at <= ?;

-- name: claim
-- A job whose start deadline has passed is left for `expire`.
UPDATE job SET state = 'running', attempt = attempt + 1, owner = :owner, token = random() & 9223372036854775807,
    lease_until = :lease_until, started_at = :now, progress = NULL, stage = NULL
WHERE id IN (SELECT id FROM job WHERE state = 'queued' AND (start_by IS NULL OR start_by > :now) ORDER BY priority, id LIMIT :limit)
RETURNING id, tail, token, attempt, max_attempts, retries, webhook, priority, client, task;

-- name: requests
SELECT job_id, head, body, parts FROM payload WHERE job_id IN (SELECT value FROM json_each(?));

-- name: request_parts
SELECT data FROM request_part WHERE job_id = ? ORDER BY number;

-- name: append
INSERT OR REPLACE INTO response_part (job_id, number, data)
SELECT :key, :number, :data WHERE EXISTS (SELECT 1 FROM job WHERE id = :key AND state = 'running' AND token = :token);

-- name: finish
-- Columns: id, token, state, finished_at, status, error_type, error. Not a WITH: Python counts the rows of plain UPDATEs only.
UPDATE job SET state = column3, finished_at = column4, status = column5, error_type = column6, error = column7,
    owner = NULL, lease_until = NULL, cancelling = 0
FROM (VALUES {rows}(?, ?, ?, ?, ?, ?, ?)) AS outcome
WHERE job.id = column1 AND job.token = column2 AND job.state = 'running';

-- name: finished_by
-- The token stays with the job that was ended with it.
SELECT EXISTS (SELECT 1 FROM job WHERE id = ? AND token = ? AND finished_at IS NOT NULL);

-- name: forget_token
-- Not its holder ended this job.
UPDATE job SET token = NULL WHERE id = ?;

-- name: insert_deliveries
INSERT INTO delivery (job_id, url, due_at)
SELECT * FROM (VALUES {rows}(?, ?, ?)) WHERE column1 IS NOT NULL;

-- name: drop_request
-- What was sent may hold credentials; nobody needs it once the job has ended. An answer has already taken its place.
DELETE FROM payload WHERE job_id = ?;

-- name: drop_request_parts
DELETE FROM request_part WHERE job_id = ?;

-- name: drop_response_parts
DELETE FROM response_part WHERE job_id = ?;

-- name: running_claim
SELECT cancelling, webhook, task FROM job WHERE id = ? AND state = 'running' AND token = ?;

-- name: delay
UPDATE job SET state = 'delayed', due_at = ?, owner = NULL, token = NULL, lease_until = NULL, progress = NULL, stage = NULL
WHERE id = ?;

-- name: requeue
-- An attempt that was handed back is not charged; one that was lost is.
UPDATE job SET state = 'queued', attempt = attempt - ?, owner = NULL, token = NULL, lease_until = NULL, progress = NULL, stage = NULL
WHERE id = ?;

-- name: report
-- Columns: id, token, progress, stage.
UPDATE job SET progress = column3, stage = column4
FROM (VALUES {rows}(?, ?, ?, ?)) WHERE job.id = column1 AND job.token = column2 AND job.state = 'running';

-- name: log
-- Columns: id, token, number of the last line behind those that are there, lines. No word about the state: who ended a job may
-- bring its last lines, and they may come behind the end in its transaction.
INSERT INTO log (job_id, number, lines)
SELECT column1, column3 + coalesce((SELECT max(number) FROM log WHERE job_id = column1), 0), column4
FROM (VALUES {rows}(?, ?, ?, ?)) JOIN job ON job.id = column1 AND job.token = column2;

-- name: logs
SELECT number, lines FROM log WHERE job_id = ? AND number > ? ORDER BY number;

-- name: find
SELECT id, state FROM job WHERE id BETWEEN :first AND :first | 32767 AND tail = :tail;

-- name: want_cancelled
UPDATE job SET cancelling = 1 WHERE id = ?;

-- name: end_waiting
UPDATE job SET state = ?, finished_at = ?, error_type = ?, error = ?, due_at = NULL
WHERE id = ? AND state IN ('queued', 'delayed', 'waiting') RETURNING webhook;

-- name: held
SELECT id, token, cancelling FROM job WHERE state = 'running' AND owner = ?;

-- name: renew_jobs
UPDATE job SET lease_until = :lease_until WHERE state = 'running' AND owner = :owner AND token IN (SELECT value FROM json_each(:tokens));

-- name: renew_deliveries
UPDATE delivery SET lease_until = :lease_until
WHERE state = 'sending' AND owner = :owner AND token IN (SELECT value FROM json_each(:tokens));

-- name: owners
SELECT owner FROM job WHERE state = 'running' UNION SELECT owner FROM delivery WHERE state = 'sending';

-- name: leases_ran_out
SELECT EXISTS (SELECT 1 FROM job WHERE state = 'running' AND lease_until <= :now)
    OR EXISTS (SELECT 1 FROM delivery WHERE state = 'sending' AND lease_until <= :now);

-- name: lost_jobs
SELECT id, tail, attempt, max_attempts, retries, cancelling, token, webhook, task FROM job
WHERE state = 'running' AND (lease_until <= :now OR owner IN (SELECT value FROM json_each(:dead)));

-- name: lost_deliveries
UPDATE delivery SET state = 'pending', due_at = :now, owner = NULL, token = NULL, lease_until = NULL
WHERE state = 'sending' AND (lease_until <= :now OR owner IN (SELECT value FROM json_each(:dead)));

-- name: overdue
SELECT id, tail FROM job WHERE state IN ('queued', 'delayed') AND start_by IS NOT NULL AND start_by <= ? LIMIT 500;

-- name: job
SELECT id, state, attempt, priority, progress, stage, started_at, finished_at, status, error_type, error, client, task
FROM job WHERE id BETWEEN :first AND :first | 32767 AND tail = :tail;

-- name: in_front
SELECT (SELECT count(*) FROM job WHERE state = 'queued' AND priority < :priority)
    + (SELECT count(*) FROM job WHERE state = 'queued' AND priority = :priority AND id < :id);

-- name: response
SELECT head, body, parts FROM payload WHERE job_id = ?;

-- name: response_part
SELECT data FROM response_part WHERE job_id = ? AND number = ?;

-- name: release_deliveries
UPDATE delivery SET state = 'pending', due_at = ?, owner = NULL, token = NULL, lease_until = NULL
WHERE state = 'sending' AND owner = ?;

-- name: claim_deliveries
UPDATE delivery SET state = 'sending', attempt = attempt + 1, owner = :owner, token = random() & 9223372036854775807, lease_until = :lease_until
WHERE id IN (SELECT id FROM delivery WHERE state = 'pending' AND due_at <= :now ORDER BY due_at LIMIT :limit)
RETURNING id, token, url, attempt, job_id, due_at;

-- name: delivery_jobs
SELECT id, tail FROM job WHERE id IN (SELECT value FROM json_each(?));

-- name: settle
UPDATE delivery SET state = :state, due_at = :due_at, owner = NULL, token = NULL, lease_until = NULL
WHERE id = :id AND state = 'sending' AND token = :token;

-- name: insert_attempt
INSERT INTO delivery_attempt (delivery_id, number, at, duration, status, error, answer) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: next_work
SELECT min(due_at) FROM job WHERE state = 'delayed';

-- name: next_delivery
SELECT min(due_at) FROM delivery WHERE state = 'pending';

-- name: count_jobs
SELECT state, count(*) FROM job GROUP BY state;

-- name: count_all_deliveries
SELECT state, count(*) FROM delivery GROUP BY state;

-- name: prune
-- The id holds the time of submission, so the oldest come first without an index; a webhook still on its way keeps its result.
DELETE FROM job WHERE id IN (
    SELECT id FROM job WHERE id < :first_kept AND finished_at <= :before
        AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND state IN ('pending', 'sending'))
    LIMIT :limit);

-- name: short_lived
-- Failures have no answer, but they need not be looked at again.
SELECT short_lived.job_id FROM short_lived JOIN job ON job.id = short_lived.job_id LEFT JOIN payload USING (job_id)
WHERE finished_at <= CASE WHEN parts > 0 OR length(body) >= :large THEN :before_if_large ELSE :before END
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND delivery.state IN ('pending', 'sending'))
LIMIT :limit;

-- name: drop_answers
DELETE FROM payload WHERE job_id IN (SELECT value FROM json_each(?));

-- name: drop_answer_parts
DELETE FROM response_part WHERE job_id IN (SELECT value FROM json_each(?));

-- name: drop_short_lived
DELETE FROM short_lived WHERE job_id IN (SELECT value FROM json_each(?));
