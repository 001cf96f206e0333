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

-- name: insert_news_wanted
INSERT INTO news_wanted (job_id, events)
SELECT * FROM (VALUES {rows}(?, ?)) WHERE column1 IS NOT NULL;

-- name: waiting
SELECT state, priority, sum(jobs) FROM waiting
WHERE state IN ('queued', 'delayed', 'scheduled', 'task') AND level = 4 GROUP BY state, priority;

-- name: waiting_of_client
SELECT jobs FROM waiting_client WHERE client = ?;

-- name: promote
-- Not all at once: everybody waits for the end of the transaction.
UPDATE job SET state = 'queued', due_at = NULL
WHERE id IN (SELECT id FROM job WHERE state = 'delayed' AND due_at <= ? ORDER BY due_at LIMIT 500);

-- name: claim
-- A job whose start deadline has passed is left for `expire`.
UPDATE job SET state = 'running', attempt = attempt + 1, owner = :owner, token = random() & 9223372036854775807,
    lease_until = :lease_until, started_at = :now, progress = NULL, stage = NULL
WHERE id IN (SELECT id FROM job WHERE state = 'queued' AND (start_by IS NULL OR start_by > :now) ORDER BY priority, id LIMIT :limit)
RETURNING id, tail, token, attempt, max_attempts, retries, webhook, (SELECT events FROM news_wanted WHERE job_id = id), priority, client, task;

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
INSERT INTO delivery (job_id, url, host, since, due_at)
SELECT column1, column2, column3, column4, column4 FROM (VALUES {rows}(?, ?, ?, ?)) WHERE column1 IS NOT NULL;

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
WHERE id IN (SELECT value FROM json_each(?)) AND state IN ('queued', 'delayed', 'waiting') RETURNING id, webhook;

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
SELECT id, tail, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, client, task,
    (SELECT position FROM place WHERE place.id = job.id)
FROM job WHERE id BETWEEN :first AND :first | 32767 AND tail = :tail;

-- name: glance
-- Positions cost more than all the rest; who has asked a moment ago does without.
SELECT job.id, tail, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, client, task,
    CASE WHEN :positions THEN (SELECT position FROM place WHERE place.id = job.id) END,
    (SELECT max(number) FROM log WHERE job_id = job.id)
FROM json_each(:keys) AS seen CROSS JOIN job ON job.id = seen.value;

-- name: response
SELECT head, body, parts FROM payload WHERE job_id = ?;

-- name: response_part
SELECT data FROM response_part WHERE job_id = ? AND number = ?;

-- name: release_deliveries
-- The attempt is not charged: it was ended by us.
UPDATE delivery SET state = 'pending', attempt = attempt - 1, due_at = :now, owner = NULL, token = NULL, lease_until = NULL
WHERE state = 'sending' AND owner = :owner AND (:tokens IS NULL OR token IN (SELECT value FROM json_each(:tokens)));

-- name: due_good
SELECT host, standing, next_at, (SELECT count(*) FROM (
    SELECT 1 FROM delivery WHERE host = receiver.host AND state = 'pending' AND due_at <= :now LIMIT :most))
FROM receiver WHERE standing = 'good' AND next_at <= :now ORDER BY next_at LIMIT :limit;

-- name: due_others
SELECT host, standing, next_at, (SELECT count(*) FROM (
    SELECT 1 FROM delivery WHERE host = receiver.host AND state = 'pending' AND due_at <= :now LIMIT :most))
FROM receiver WHERE standing <> 'good' AND next_at <= :now ORDER BY next_at LIMIT :limit;

-- name: claim_deliveries
-- CROSS JOIN: from the hosts to their rows, never the other way round.
UPDATE delivery SET state = 'sending', attempt = attempt + 1, owner = :owner, token = random() & 9223372036854775807,
    lease_until = :lease_until
WHERE id IN (SELECT due.id FROM json_each(:hosts) AS chosen CROSS JOIN delivery AS due ON due.id IN (
    SELECT id FROM delivery WHERE host = chosen.value AND state = 'pending' AND due_at <= :now ORDER BY due_at, id LIMIT :count))
RETURNING due_at, id, token, url, host, attempt, spent, kind, number, data, job_id, (SELECT tail FROM job WHERE job.id = job_id);

-- name: hold_for_probe
UPDATE receiver SET held_until = :until WHERE standing = 'open' AND host IN (SELECT value FROM json_each(:hosts));

-- name: look_again
UPDATE receiver SET used_at = :now, next_at = (
    SELECT max(min(due_at), ifnull(held_until, 0)) FROM delivery WHERE host = receiver.host AND state = 'pending')
WHERE host IN (SELECT value FROM json_each(:hosts));

-- name: settle
-- Columns: id, token, state, due_at. What has failed is not tried again where there is newer news of the same request.
UPDATE delivery SET state = CASE
        WHEN column3 = 'pending' AND number > 0
            AND EXISTS (SELECT 1 FROM delivery AS later WHERE later.job_id = delivery.job_id AND later.state = 'waiting')
        THEN 'superseded' ELSE column3 END,
    due_at = column4, owner = NULL, token = NULL, lease_until = NULL
FROM (VALUES {rows}(?, ?, ?, ?)) AS outcome
WHERE delivery.id = column1 AND delivery.token = column2 AND delivery.state = 'sending';

-- name: superseded
SELECT id FROM delivery WHERE id IN (SELECT value FROM json_each(?)) AND state = 'superseded';

-- name: insert_attempts
INSERT INTO delivery_attempt (delivery_id, number, at, duration, status, error, answer)
SELECT * FROM (VALUES {rows}(?, ?, ?, ?, ?, ?, ?)) WHERE column1 IS NOT NULL;

-- name: receivers_of
SELECT host, standing, failures, failing_since, held_until FROM receiver WHERE host IN (SELECT value FROM json_each(?));

-- name: judge_receiver
UPDATE receiver SET standing = :standing, failures = :failures, failing_since = :failing_since, held_until = :held_until WHERE host = :host;

-- name: give_up
-- What has been due for longer than its whole schedule would have taken, at a host that has just failed again.
UPDATE delivery SET state = 'dead', attempt = attempt + 1, due_at = :now WHERE id IN (
    SELECT id FROM delivery WHERE host = :host AND state = 'pending' AND due_at <= :now AND since <= :before ORDER BY due_at, id LIMIT :limit)
RETURNING id, url, attempt, job_id, (SELECT tail FROM job WHERE job.id = job_id);

-- name: announce_start
-- With the client that the request belongs to: it is named to the receiver, as at the end.
INSERT INTO delivery (job_id, number, kind, data, url, host, since, due_at)
SELECT :key, 1 + (SELECT count(*) FROM delivery WHERE job_id = :key), 'started',
    json_set(:data, '$.client', (SELECT client FROM job WHERE id = :key)), :url, :host, :now, :now
WHERE NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = :key AND kind = 'started');

-- name: change_progress
-- What was not sent yet says the latest.
UPDATE delivery SET data = json_set(:data, '$.client', (SELECT client FROM job WHERE id = :key)) WHERE job_id = :key AND kind = 'progress' AND state IN ('waiting', 'pending') AND attempt = 0;

-- name: announce_progress
INSERT INTO delivery (job_id, number, kind, data, url, host, since, due_at)
SELECT :key, 1 + count(*), 'progress', json_set(:data, '$.client', (SELECT client FROM job WHERE id = :key)), :url, :host,
    max(:now, ifnull(max(since) FILTER (WHERE kind = 'progress') + :pause, 0)),
    max(:now, ifnull(max(since) FILTER (WHERE kind = 'progress') + :pause, 0))
FROM delivery WHERE job_id = :key;

-- name: redeliver
-- A new round of the whole schedule.
UPDATE delivery SET state = 'pending', spent = attempt, since = :now, due_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND state IN ('pending', 'delivered', 'superseded', 'dead')
RETURNING host;

-- name: probe_now
UPDATE receiver SET held_until = :now WHERE held_until > :now AND host IN (SELECT value FROM json_each(:hosts));

-- name: next_work
SELECT min(due_at) FROM job WHERE state = 'delayed';

-- name: next_delivery
SELECT min(at) FROM (
    SELECT min(next_at) AS at FROM receiver WHERE standing = 'good' AND next_at > :after
    UNION ALL SELECT min(next_at) FROM receiver WHERE standing <> 'good' AND next_at > :after);

-- name: results
SELECT head, body, parts, job.id, tail, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, client, task
FROM job LEFT JOIN payload ON payload.job_id = job.id WHERE job.id IN (SELECT value FROM json_each(?));

-- name: count_jobs
SELECT state, count(*) FROM job GROUP BY state;

-- name: count_all_deliveries
SELECT state, count(*) FROM delivery GROUP BY state;

-- name: count_receivers
SELECT standing, count(*) FROM receiver GROUP BY standing;

-- name: receivers
SELECT host, standing, failures, failing_since, held_until, (SELECT count(*) FROM (
    SELECT 1 FROM delivery WHERE host = receiver.host AND state = 'pending' LIMIT :most))
FROM receiver WHERE standing IN (SELECT value FROM json_each(:standings)) ORDER BY host LIMIT :limit;

-- name: unused_receivers
SELECT host FROM receiver WHERE next_at IS NULL AND used_at <= :before LIMIT :limit;

-- name: forget_receivers
DELETE FROM receiver WHERE next_at IS NULL AND host IN (SELECT value FROM json_each(?));

-- name: delivery
SELECT delivery.id, job_id, tail, kind, host, url, delivery.state, delivery.attempt, since, delivery.due_at
FROM delivery JOIN job ON job.id = job_id WHERE delivery.id = :id;

-- name: deliveries_of_request
SELECT delivery.id, job_id, tail, kind, host, url, delivery.state, delivery.attempt, since, delivery.due_at
FROM delivery JOIN job ON job.id = job_id WHERE job_id = :key ORDER BY delivery.id;

-- name: dead_deliveries
SELECT delivery.id, job_id, tail, kind, host, url, delivery.state, delivery.attempt, since, delivery.due_at
FROM delivery JOIN job ON job.id = job_id
WHERE delivery.state = 'dead' AND delivery.id > :after AND since >= :since AND since < :until AND (:host IS NULL OR host = :host)
ORDER BY delivery.id LIMIT :limit;

-- name: all_deliveries
SELECT delivery.id, job_id, tail, kind, host, url, delivery.state, delivery.attempt, since, delivery.due_at
FROM delivery JOIN job ON job.id = job_id
WHERE delivery.id > :after AND since >= :since AND since < :until AND (:host IS NULL OR host = :host)
ORDER BY delivery.id LIMIT :limit;

-- name: attempts
SELECT at, duration, status, error, answer FROM delivery_attempt WHERE delivery_id = ? ORDER BY number;

-- name: outlived
-- The id holds the time of submission, so the oldest come first without an index; a webhook still on its way keeps its result.
SELECT id FROM job WHERE id > :behind AND id < :first_kept AND finished_at <= :before
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND state IN ('waiting', 'pending', 'sending'))
ORDER BY id LIMIT :limit;

-- name: prune
DELETE FROM job WHERE id IN (SELECT value FROM json_each(?));

-- name: short_lived
-- Failures have no answer, but they need not be looked at again. CROSS, or the planner goes through all jobs there are.
SELECT short_lived.job_id FROM short_lived CROSS JOIN job ON job.id = short_lived.job_id LEFT JOIN payload USING (job_id)
WHERE finished_at <= CASE WHEN parts > 0 OR length(body) >= :large THEN :before_if_large ELSE :before END
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND delivery.state IN ('waiting', 'pending', 'sending'))
LIMIT :limit;

-- name: drop_answers
DELETE FROM payload WHERE job_id IN (SELECT value FROM json_each(?));

-- name: drop_answer_parts
DELETE FROM response_part WHERE job_id IN (SELECT value FROM json_each(?));

-- name: drop_short_lived
DELETE FROM short_lived WHERE job_id IN (SELECT value FROM json_each(?));
