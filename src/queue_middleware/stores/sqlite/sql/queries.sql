-- Named blocks. `{rows}` before a tuple repeats the tuple for each row of a batch, so that a batch is one statement: Python releases and
-- takes its global lock for each statement and for each returned row, and the event loop needs this lock as well.
-- Batches are padded with rows of -1, which WHERE skips. Parameters before `{rows}` have one value for all rows.

-- name: last_key
SELECT max(id) FROM job;

-- name: last_key_to_follow
-- The largest key that the next key must exceed; the parameter is the first key that is too far in the future.
SELECT max(
    ifnull((SELECT max(id) FROM job WHERE id < ?), 0),
    ifnull((SELECT max(id) FROM job WHERE state = 'queued'), 0),
    ifnull((SELECT max(id) FROM job WHERE state = 'delayed'), 0));

-- name: insert_jobs
INSERT INTO job (id, id_random, state, priority, client, attempt, max_attempts, retries, webhook, start_by, owner, token, lease_until, started_at,
    fails_on_crash, route)
SELECT * FROM (VALUES {rows}(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)) WHERE column1 >= 0;

-- name: insert_started_jobs
-- Plain jobs that start at once. Parameters: priority, owner, lease_until, started_at, fails_on_crash.
-- Columns: id, id_random, client, max_attempts, webhook (empty: no webhook), token, route.
INSERT INTO job (id, id_random, state, priority, client, attempt, max_attempts, webhook, owner, token, lease_until, started_at,
    fails_on_crash, route)
SELECT column1, column2, 'running', ?, column3, 1, column4, nullif(column5, ''), ?, column6, ?, ?, ?, column7
FROM (VALUES {rows}(?, ?, ?, ?, ?, ?, ?)) WHERE column1 >= 0;

-- name: put_payloads
-- Inserts new requests, and replaces requests by their responses. OR REPLACE would take twice as long: it deletes the row first, and
-- checks the foreign key again.
INSERT INTO payload (job_id, head, body, chunks)
SELECT * FROM (VALUES {rows}(?, ?, ?, ?)) WHERE column1 >= 0
ON CONFLICT DO UPDATE SET head = excluded.head, body = excluded.body, chunks = excluded.chunks;

-- name: insert_request_chunks
INSERT INTO request_chunk (job_id, number, data)
SELECT * FROM (VALUES {rows}(?, ?, ?)) WHERE column1 >= 0;

-- name: insert_unstored_responses
INSERT INTO unstored_response (job_id)
SELECT * FROM (VALUES {rows}(?)) WHERE column1 >= 0;

-- name: idempotency_keys
-- The list contains pairs of scope and key.
SELECT known.scope, known.key, fingerprint, job_id, state, status
FROM json_each(?) AS chosen
    CROSS JOIN idempotency_key AS known
        ON known.scope = json_extract(chosen.value, '$[0]') AND known.key = json_extract(chosen.value, '$[1]')
    CROSS JOIN job ON job.id = job_id;

-- name: put_idempotency_keys
-- Columns: job_id, scope, key, fingerprint. The key of a failed job may be given to a new one.
INSERT INTO idempotency_key (job_id, scope, key, fingerprint)
SELECT * FROM (VALUES {rows}(?, ?, ?, ?)) WHERE column1 >= 0
ON CONFLICT (scope, key) DO UPDATE SET job_id = excluded.job_id, fingerprint = excluded.fingerprint;

-- name: insert_webhook_events
INSERT INTO webhook_events (job_id, events)
SELECT * FROM (VALUES {rows}(?, ?)) WHERE column1 >= 0;

-- name: count_backlog
-- Jobs by state and priority; the state 'suspect' counts all suspects, and the state 'pause' the paused routes.
SELECT state, priority, sum(jobs) FROM backlog
WHERE state IN ('queued', 'delayed', 'scheduled', 'task') AND level = 4 GROUP BY state, priority
UNION ALL SELECT 'suspect', 0, count(*) FROM suspect
UNION ALL SELECT 'pause', 0, count(*) FROM pause;

-- name: count_backlog_of_client
SELECT jobs FROM backlog_client WHERE client = ?;

-- name: promote_delayed
-- Limited, because other writers wait for the end of the transaction. Suspects are promoted by `promote_suspect`.
UPDATE job SET state = 'queued', due_at = NULL
WHERE id IN (SELECT id FROM job WHERE state = 'delayed' AND due_at <= ? AND id NOT IN (SELECT job_id FROM suspect)
    ORDER BY due_at LIMIT 500);

-- name: promote_suspect
-- The next suspect, if no suspect is queued or running.
UPDATE job SET state = 'queued', due_at = NULL
WHERE id = (SELECT id FROM suspect CROSS JOIN job ON id = job_id WHERE state = 'delayed' AND due_at <= ? ORDER BY due_at, id LIMIT 1)
    AND NOT EXISTS (SELECT 1 FROM suspect CROSS JOIN job ON id = job_id WHERE state IN ('queued', 'running'));

-- name: delete_ended_suspects
-- Jobs that have ended or await an external service are no longer suspects.
DELETE FROM suspect WHERE job_id IN (
    SELECT job_id FROM suspect CROSS JOIN job ON id = job_id WHERE state NOT IN ('queued', 'delayed', 'running'));

-- name: insert_suspect
INSERT INTO suspect (job_id, reason) VALUES (?, ?) ON CONFLICT DO UPDATE SET reason = excluded.reason;

-- name: delete_suspect
DELETE FROM suspect WHERE job_id = ?;

-- name: postpone_suspects
UPDATE job SET due_at = :until
WHERE state = 'delayed' AND due_at < :until AND id IN (SELECT job_id FROM suspect);

-- name: count_release
INSERT INTO release_count (job_id, times) VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1 RETURNING times;

-- name: delete_release_count
DELETE FROM release_count WHERE job_id = ?;

-- name: append_log_line
INSERT INTO log (job_id, number, lines) SELECT :key, 1 + ifnull(max(number), 0), :lines FROM log WHERE job_id = :key;

-- name: claim_jobs
-- A job whose start deadline has passed is left to `expire`.
UPDATE job SET state = 'running', attempt = attempt + 1, owner = :owner, token = random() & 9223372036854775807,
    lease_until = :lease_until, started_at = :now, progress = NULL, stage = NULL
WHERE id IN (SELECT id FROM job WHERE state = 'queued' AND (start_by IS NULL OR start_by > :now) ORDER BY priority, id LIMIT :limit)
RETURNING id, id_random, token, attempt, max_attempts, retries, webhook, (SELECT events FROM webhook_events WHERE job_id = id), priority, client, task, route;

-- name: payloads
-- Not part of the claim: RETURNING would copy every body once more, which makes claims of several long requests slower by a quarter.
SELECT job_id, head, body, chunks FROM payload WHERE job_id IN (SELECT value FROM json_each(?));

-- name: request_chunks
SELECT data FROM request_chunk WHERE job_id = ? ORDER BY number;

-- name: append_response_chunk
INSERT OR REPLACE INTO response_chunk (job_id, number, data)
SELECT :key, :number, :data WHERE EXISTS (SELECT 1 FROM job WHERE id = :key AND state = 'running' AND token = :token);

-- name: insert_response_chunks
INSERT OR REPLACE INTO response_chunk (job_id, number, data)
SELECT * FROM (VALUES {rows}(?, ?, ?)) WHERE column1 >= 0;

-- name: finish_jobs
-- Columns: id, token, state, finished_at, status, error_type, error. Without WITH, because Python's sqlite3 counts only rows of plain UPDATEs.
UPDATE job SET state = column3, finished_at = column4, status = column5, error_type = column6, error = column7,
    owner = NULL, lease_until = NULL, cancelling = 0
FROM (VALUES {rows}(?, ?, ?, ?, ?, ?, ?)) AS outcome
WHERE job.id = column1 AND job.token = column2 AND job.state = 'running';

-- name: complete_jobs
-- The same for jobs that all end with a response. Parameter: finished_at. Columns: id, token, status.
UPDATE job SET state = 'completed', finished_at = ?, status = column3, owner = NULL, lease_until = NULL, cancelling = 0
FROM (VALUES {rows}(?, ?, ?)) AS outcome
WHERE job.id = column1 AND job.token = column2 AND job.state = 'running';

-- name: is_finished_by
-- A job keeps the token of the claim that ended it.
SELECT EXISTS (SELECT 1 FROM job WHERE id = ? AND token = ? AND finished_at IS NOT NULL);

-- name: clear_token
-- For a job that was not ended by its own claim.
UPDATE job SET token = NULL WHERE id = ?;

-- name: insert_deliveries
INSERT INTO delivery (job_id, url, host, flow, since, due_at)
SELECT column1, column2, column3, column3 || ' ' || (SELECT client FROM job WHERE id = column1), column4, column4
FROM (VALUES {rows}(?, ?, ?, ?)) WHERE column1 >= 0;

-- name: delete_request
-- For a job that ends without a response, which would replace the request: a request may contain credentials and is no longer needed.
DELETE FROM payload WHERE job_id = ?;

-- name: delete_request_chunks
-- Those of a kept request stay.
DELETE FROM request_chunk
WHERE job_id = ? AND NOT EXISTS (SELECT 1 FROM kept_request WHERE kept_request.job_id = request_chunk.job_id);

-- name: delete_response_chunks
DELETE FROM response_chunk WHERE job_id = ?;

-- name: running_claim
SELECT cancelling, webhook, task FROM job WHERE id = ? AND state = 'running' AND token = ?;

-- name: running_job
SELECT id, id_random, attempt, max_attempts, retries, cancelling, token, webhook, task, fails_on_crash, started_at, owner, route FROM job
WHERE id = ? AND state = 'running' AND token = ?;

-- name: running_jobs_of_owner
-- The last column is the number of chunks that are deleted with the job.
SELECT id, id_random, attempt, max_attempts, retries, cancelling, token, webhook, task, fails_on_crash, started_at, owner, route,
    (SELECT count(*) FROM response_chunk WHERE job_id = job.id) + (SELECT count(*) FROM request_chunk WHERE job_id = job.id) FROM job
WHERE state = 'running' AND owner = ? LIMIT 500;

-- name: delay_job
UPDATE job SET state = 'delayed', due_at = ?, owner = NULL, token = NULL, lease_until = NULL, progress = NULL, stage = NULL
WHERE id = ?;

-- name: requeue_job
-- The first parameter is 1 if the attempt is not charged, otherwise 0.
UPDATE job SET state = 'queued', attempt = attempt - ?, owner = NULL, token = NULL, lease_until = NULL, progress = NULL, stage = NULL
WHERE id = ?;

-- name: update_progress
-- Columns: id, token, progress, stage.
UPDATE job SET progress = column3, stage = column4
FROM (VALUES {rows}(?, ?, ?, ?)) WHERE job.id = column1 AND job.token = column2 AND job.state = 'running';

-- name: insert_log_lines
-- Columns: id, token, number of new lines, lines. The state is not checked, because the claim that ended a job may add its last lines
-- later, even in the same transaction.
INSERT INTO log (job_id, number, lines)
SELECT column1, column3 + coalesce((SELECT max(number) FROM log WHERE job_id = column1), 0), column4
FROM (VALUES {rows}(?, ?, ?, ?)) JOIN job ON job.id = column1 AND job.token = column2;

-- name: log_lines
SELECT number, lines FROM log WHERE job_id = ? AND number > ? ORDER BY number;

-- name: find_job
SELECT id, state FROM job WHERE id BETWEEN :first AND :first | 32767 AND id_random = :tail;

-- name: request_cancellation
UPDATE job SET cancelling = 1 WHERE id = ?;

-- name: end_not_running
UPDATE job SET state = ?, finished_at = ?, error_type = ?, error = ?, due_at = NULL
WHERE id IN (SELECT value FROM json_each(?)) AND state IN ('queued', 'delayed', 'awaiting') RETURNING id, webhook;

-- name: running_claims
SELECT id, token, cancelling FROM job WHERE state = 'running' AND owner = ?;

-- name: renew_jobs
UPDATE job SET lease_until = :lease_until WHERE state = 'running' AND owner = :owner AND token IN (SELECT value FROM json_each(:tokens));

-- name: renew_deliveries
UPDATE delivery SET lease_until = :lease_until
WHERE state = 'sending' AND owner = :owner AND token IN (SELECT value FROM json_each(:tokens));

-- name: renew_polls
UPDATE task SET lease_until = :lease_until WHERE token IN (SELECT value FROM json_each(:tokens)) AND owner = :owner;

-- name: update_heartbeat
-- For a process without leases to renew: only a write shows that the database is available, for instance that the disk is not full.
UPDATE heartbeat SET at = ?;

-- name: owners
SELECT owner FROM job WHERE state = 'running' UNION SELECT owner FROM delivery WHERE state = 'sending'
UNION SELECT owner FROM task WHERE token IS NOT NULL;

-- name: has_expired_leases
-- A process that must not judge leases passes -1, which is before the end of every lease.
SELECT EXISTS (SELECT 1 FROM job WHERE state = 'running' AND lease_until <= :ended_by)
    OR EXISTS (SELECT 1 FROM delivery WHERE state = 'sending' AND lease_until <= :ended_by)
    OR EXISTS (SELECT 1 FROM task WHERE token IS NOT NULL AND lease_until <= :ended_by);

-- name: lost_jobs
-- The last column is the number of chunks that are deleted with the job.
SELECT id, id_random, attempt, max_attempts, retries, cancelling, token, webhook, task, fails_on_crash, started_at, owner, route,
    (SELECT count(*) FROM response_chunk WHERE job_id = job.id) + (SELECT count(*) FROM request_chunk WHERE job_id = job.id) FROM job
WHERE state = 'running' AND (lease_until <= :ended_by OR owner IN (SELECT value FROM json_each(:dead))) LIMIT 500;

-- name: release_lost_deliveries
-- The delivery may be what ended its process: it is repeated after 1, 2, 4 … seconds, at most an hour, and `max_attempts` times.
UPDATE delivery SET state = iif(attempt - attempts_before_redelivery >= :max_attempts, 'dead', 'pending'),
    due_at = :now + min(1000 << max(0, min(attempt - attempts_before_redelivery - 1, 12)), 3600000), owner = NULL, token = NULL, lease_until = NULL
WHERE state = 'sending' AND (lease_until <= :ended_by OR owner IN (SELECT value FROM json_each(:dead)))
RETURNING id, attempt, state, kind, host, job_id, (SELECT id_random FROM job WHERE job.id = job_id);

-- name: release_lost_polls
UPDATE task SET owner = NULL, token = NULL, lease_until = NULL
WHERE token IS NOT NULL AND (lease_until <= :ended_by OR owner IN (SELECT value FROM json_each(:dead)));

-- name: release_polls
UPDATE task SET owner = NULL, token = NULL, lease_until = NULL WHERE token IS NOT NULL AND owner = :owner;

-- name: release_jobs
-- Jobs to be cancelled keep their claims. They are ended by the process that rescues them.
UPDATE job SET state = 'queued', attempt = attempt - 1, owner = NULL, token = NULL, lease_until = NULL, progress = NULL, stage = NULL
WHERE state = 'running' AND owner = :owner AND cancelling = 0;

-- name: overdue_jobs
-- The last column is the number of chunks that are deleted, or kept, with the request. The body in `payload` is a part of one.
SELECT id, id_random, (SELECT count(*) FROM request_chunk WHERE job_id = job.id)
    + ifnull((SELECT length(body) FROM payload WHERE job_id = job.id), 0) * 1.0 / :chunk FROM job
WHERE state IN ('queued', 'delayed') AND start_by IS NOT NULL AND start_by <= :now LIMIT 500;

-- name: job
SELECT id, id_random, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, client, task,
    (SELECT position FROM queue_position WHERE queue_position.id = job.id)
FROM (VALUES {rows}(?, ?)) AS chosen CROSS JOIN job ON job.id BETWEEN column1 AND column1 | 32767 AND id_random = column2;

-- name: snapshots
-- Positions are optional, because they cost more than all other columns together.
SELECT job.id, id_random, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, client, task,
    CASE WHEN :positions THEN (SELECT position FROM queue_position WHERE queue_position.id = job.id) END,
    (SELECT max(number) FROM log WHERE job_id = job.id)
FROM json_each(:keys) AS chosen CROSS JOIN job ON job.id = chosen.value;

-- name: changed
-- A deleted job has no state, so it has changed as well.
SELECT chosen.value FROM json_each(:keys) AS chosen LEFT JOIN job ON job.id = chosen.value
WHERE job.state IS NOT :state OR job.attempt IS NOT :attempt;

-- name: result
-- Before the end the payload is the request, which is not read.
SELECT job.id, id_random, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, job.client, job.task,
    head, body, chunks, resolved_by, spec
FROM (VALUES {rows}(?, ?)) AS chosen CROSS JOIN job ON job.id BETWEEN column1 AND column1 | 32767 AND id_random = column2
    LEFT JOIN payload ON payload.job_id = job.id AND finished_at IS NOT NULL LEFT JOIN task ON task.job_id = job.id;

-- name: response_chunk
SELECT data FROM response_chunk WHERE job_id = ? AND number = ?;

-- name: ready_flows
-- Healthy flows of healthy hosts at which nothing is due, and the largest id of a delivery. A flow that was not used for a while is left
-- to `schedule_flows`, which records that it is in use.
SELECT flow.flow, (SELECT ifnull(max(id), 0) FROM delivery)
FROM json_each(:flows) AS chosen CROSS JOIN flow ON flow.flow = chosen.value CROSS JOIN receiver ON receiver.host = flow.host
WHERE flow.health = 'healthy' AND receiver.health = 'healthy' AND flow.used_at > :used_after AND receiver.used_at > :used_after
    AND (flow.next_at IS NULL OR flow.next_at > :now) AND (receiver.next_at IS NULL OR receiver.next_at > :now);

-- name: insert_claimed_deliveries
-- Deliveries whose first attempt starts at once. Parameters: owner, lease_until, since, due_at.
INSERT INTO delivery (id, job_id, token, url, host, flow, state, attempt, owner, lease_until, since, due_at)
SELECT column1, column2, column3, column4, column5, column6, 'sending', 1, ?, ?, ?, ?
FROM (VALUES {rows}(?, ?, ?, ?, ?, ?)) WHERE column1 >= 0;

-- name: release_deliveries
-- The attempt is not charged, because the queue itself has ended it. Without `due` the delivery keeps its place among the others.
UPDATE delivery SET state = 'pending', attempt = attempt - 1, due_at = ifnull(:due, due_at), owner = NULL, token = NULL, lease_until = NULL
WHERE state = 'sending' AND owner = :owner AND (:tokens IS NULL OR token IN (SELECT value FROM json_each(:tokens)));

-- name: release_flow_probes
-- Runs before the release of the deliveries: another process may send the probe instead.
UPDATE flow SET open_until = :due WHERE health = 'open' AND flow IN (
    SELECT flow FROM delivery WHERE state = 'sending' AND owner = :owner AND token IN (SELECT value FROM json_each(:tokens)));

-- name: release_host_probes
UPDATE receiver SET open_until = :due WHERE health = 'open' AND host IN (
    SELECT host FROM delivery WHERE state = 'sending' AND owner = :owner AND token IN (SELECT value FROM json_each(:tokens)));

-- name: due_hosts
-- Healthy hosts and others are limited separately, so that healthy ones are found even if many others have been due for longer.
SELECT * FROM (SELECT host, health, next_at FROM receiver WHERE health = 'healthy' AND next_at <= :now ORDER BY next_at LIMIT :limit)
UNION ALL
SELECT * FROM (SELECT host, health, next_at FROM receiver WHERE health <> 'healthy' AND next_at <= :now ORDER BY next_at LIMIT :limit);

-- name: due_flows
-- The due flows of each host, and up to `most` due deliveries of each flow, counted.
SELECT flow.flow, flow.host, flow.health, flow.next_at, (SELECT count(*) FROM (
    SELECT 1 FROM delivery WHERE flow = flow.flow AND state = 'pending' AND due_at <= :now LIMIT :most))
FROM json_each(:hosts) AS chosen CROSS JOIN flow ON flow.flow IN (
    SELECT flow FROM flow AS its WHERE its.host = chosen.value AND its.next_at <= :now ORDER BY its.next_at LIMIT :each);

-- name: claim_deliveries
-- CROSS JOIN fixes the order of the loops: from the flows to their rows.
UPDATE delivery SET state = 'sending', attempt = attempt + 1, owner = :owner, token = random() & 9223372036854775807,
    lease_until = :lease_until
WHERE id IN (SELECT due.id FROM json_each(:flows) AS chosen CROSS JOIN delivery AS due ON due.id IN (
    SELECT id FROM delivery WHERE flow = chosen.value AND state = 'pending' AND due_at <= :now ORDER BY due_at, id LIMIT :count))
RETURNING due_at, id, token, url, host, attempt, attempts_before_redelivery, kind, number, data, flow, since, job_id,
    (SELECT id_random FROM job WHERE job.id = job_id);

-- name: reserve_flow_probes
-- Runs before the claim, which takes deliveries only of the returned flows.
UPDATE flow SET open_until = :until
WHERE health = 'open' AND ifnull(open_until, 0) <= :now AND flow IN (SELECT value FROM json_each(:flows)) RETURNING flow;

-- name: reserve_host_probes
UPDATE receiver SET open_until = :until
WHERE health = 'open' AND ifnull(open_until, 0) <= :now AND host IN (SELECT value FROM json_each(:hosts)) RETURNING host;

-- name: schedule_flows
-- A flow that was served is due again at `earliest`, behind the other flows of its host, even if its next delivery has long been due.
UPDATE flow SET used_at = :now, next_at = (
    SELECT max(min(due_at), ifnull(open_until, 0), :earliest) FROM delivery WHERE flow = flow.flow AND state = 'pending')
WHERE flow IN (SELECT value FROM json_each(:flows));

-- name: schedule_hosts
UPDATE receiver SET used_at = :now, next_at = (
    SELECT max(min(flow.next_at), ifnull(receiver.open_until, 0)) FROM flow WHERE flow.host = receiver.host AND flow.next_at IS NOT NULL)
WHERE host IN (SELECT value FROM json_each(:hosts));

-- name: settle_deliveries
-- Columns: id, token, state, due_at. A failed delivery is superseded instead of retried if a later one of the same request exists.
UPDATE delivery SET state = CASE
        WHEN column3 = 'pending' AND number > 0
            AND EXISTS (SELECT 1 FROM delivery AS later WHERE later.job_id = delivery.job_id AND later.state = 'blocked')
        THEN 'superseded' ELSE column3 END,
    due_at = column4, owner = NULL, token = NULL, lease_until = NULL
FROM (VALUES {rows}(?, ?, ?, ?)) AS outcome
WHERE delivery.id = column1 AND delivery.token = column2 AND delivery.state = 'sending';

-- name: superseded_deliveries
SELECT id FROM delivery WHERE id IN (SELECT value FROM json_each(?)) AND state = 'superseded';

-- name: insert_delivery_attempts
INSERT INTO delivery_attempt (delivery_id, number, at, duration, status, error, response)
SELECT * FROM (VALUES {rows}(?, ?, ?, ?, ?, ?, ?)) WHERE column1 >= 0;

-- name: health_of_flows
-- The health of flows and of their hosts.
SELECT flow.flow, flow.health, flow.failures, flow.failing_since, flow.open_until,
    receiver.host, receiver.health, receiver.failures, receiver.failing_since, receiver.open_until, receiver.suspects
FROM json_each(?) AS chosen CROSS JOIN flow ON flow.flow = chosen.value CROSS JOIN receiver ON receiver.host = flow.host;

-- name: update_flow_health
-- Only if nothing has changed since the health was read.
UPDATE flow SET health = :health, failures = :failures, failing_since = :failing_since, open_until = :open_until
WHERE flow = :flow AND health = :seen_health AND failures = :seen_failures AND failing_since IS :seen_failing_since
    AND open_until IS :seen_open_until;

-- name: update_host_health
UPDATE receiver SET health = :health, failures = :failures, failing_since = :failing_since, open_until = :open_until, suspects = :suspects
WHERE host = :host AND health = :seen_health AND failures = :seen_failures AND failing_since IS :seen_failing_since
    AND open_until IS :seen_open_until AND suspects = :seen_suspects;

-- name: probe_flows_of_hosts
-- A host whose circuit was open has responded, so the cause of the open circuits of its flows may be gone as well.
UPDATE flow SET open_until = :now, next_at = CASE WHEN next_at IS NOT NULL THEN (
    SELECT max(min(due_at), :now) FROM delivery WHERE flow = flow.flow AND state = 'pending') END
WHERE open_until > :now AND flow IN (SELECT flow FROM flow AS its WHERE its.host IN (SELECT value FROM json_each(:hosts)) AND its.next_at IS NOT NULL);

-- name: give_up_deliveries
-- Deliveries of a failing host or flow that have been due for their whole schedule. An attempt that was not sent is recorded for each.
UPDATE delivery SET state = 'dead', attempt = attempt + 1, due_at = :now WHERE id IN (
    SELECT due.id FROM flow AS its CROSS JOIN delivery AS due ON due.flow = its.flow
    WHERE its.host = :host AND its.next_at IS NOT NULL AND (:flow IS NULL OR its.flow = :flow)
        AND due.state = 'pending' AND due.due_at <= :now AND due.since <= :before LIMIT :limit)
RETURNING id, url, attempt, flow, job_id, (SELECT id_random FROM job WHERE job.id = job_id);

-- name: insert_started_delivery
-- `data` contains the client of the request, which the webhook names like the one about the end.
INSERT INTO delivery (job_id, number, kind, data, url, host, flow, since, due_at)
SELECT :key, 1 + (SELECT count(*) FROM delivery WHERE job_id = :key), 'started',
    json_set(:data, '$.client', (SELECT client FROM job WHERE id = :key)), :url, :host,
    :host || ' ' || (SELECT client FROM job WHERE id = :key), :now, :now
WHERE NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = :key AND kind = 'started');

-- name: update_progress_delivery
-- A progress webhook that was not sent yet gets the newest data.
UPDATE delivery SET data = json_set(:data, '$.client', (SELECT client FROM job WHERE id = :key)) WHERE job_id = :key AND kind = 'progress' AND state IN ('blocked', 'pending') AND attempt = 0;

-- name: insert_progress_delivery
INSERT INTO delivery (job_id, number, kind, data, url, host, flow, since, due_at)
SELECT :key, 1 + count(*), 'progress', json_set(:data, '$.client', (SELECT client FROM job WHERE id = :key)), :url, :host,
    :host || ' ' || (SELECT client FROM job WHERE id = :key),
    max(:now, ifnull(max(since) FILTER (WHERE kind = 'progress') + :pause, 0)),
    max(:now, ifnull(max(since) FILTER (WHERE kind = 'progress') + :pause, 0))
FROM delivery WHERE job_id = :key;

-- name: redeliver
-- The schedule starts anew.
UPDATE delivery SET state = 'pending', attempts_before_redelivery = attempt, since = :now, due_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND state IN ('pending', 'delivered', 'superseded', 'dead')
RETURNING host, flow;

-- name: probe_flows
UPDATE flow SET open_until = :now WHERE open_until > :now AND flow IN (SELECT value FROM json_each(:flows));

-- name: probe_hosts
UPDATE receiver SET open_until = :now WHERE open_until > :now AND host IN (SELECT value FROM json_each(:hosts));

-- name: next_delayed_job
-- Suspects have no due time while another suspect is queued or running: its end makes the next one due. The second column is 1 if a
-- route is paused.
SELECT min(due_at), EXISTS (SELECT 1 FROM pause) FROM job WHERE state = 'delayed' AND (id NOT IN (SELECT job_id FROM suspect)
    OR NOT EXISTS (SELECT 1 FROM suspect CROSS JOIN job AS other ON other.id = job_id WHERE other.state IN ('queued', 'running')));

-- name: next_delivery
SELECT min(at) FROM (
    SELECT min(next_at) AS at FROM receiver WHERE health = 'healthy' AND next_at > :after
    UNION ALL SELECT min(next_at) FROM receiver WHERE health <> 'healthy' AND next_at > :after);

-- name: results
SELECT head, body, chunks, job.id, id_random, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, client, task
FROM job LEFT JOIN payload ON payload.job_id = job.id WHERE job.id IN (SELECT value FROM json_each(?));

-- name: count_jobs
-- Ended jobs are counted by `count_outcomes` without visiting them: there may be a million.
SELECT state, sum(jobs) FROM backlog WHERE state IN ('queued', 'delayed') AND level = 4 GROUP BY state
UNION ALL SELECT 'running', count(*) FROM job WHERE state = 'running'
UNION ALL SELECT 'awaiting', count(*) FROM task WHERE awaits_until IS NOT NULL;

-- name: count_outcomes
SELECT name, jobs FROM outcome WHERE jobs > 0;

-- name: count_deliveries
SELECT state, count(*) FROM delivery GROUP BY state;

-- name: count_receivers
-- A host is counted once for each health that its flows have, and for its own health if it is failing or open.
SELECT health, count(DISTINCT host) FROM (
    SELECT host, health FROM flow UNION SELECT host, health FROM receiver WHERE health IN ('failing', 'open')) GROUP BY health;

-- name: receivers
-- Flows with their effective health: that of the host if its circuit is open, otherwise their own.
SELECT flow.host, iif(receiver.health = 'open', 'open', flow.health) AS health,
    max(flow.failures, iif(receiver.health = 'open', receiver.failures, 0)),
    ifnull(flow.failing_since, iif(receiver.health = 'open', receiver.failing_since, NULL)),
    nullif(max(ifnull(flow.open_until, 0), ifnull(receiver.open_until, 0)), 0),
    (SELECT count(*) FROM (SELECT 1 FROM delivery WHERE flow = flow.flow AND state = 'pending' LIMIT :most)),
    substr(flow.flow, length(flow.host) + 2)
FROM flow JOIN receiver ON receiver.host = flow.host
WHERE iif(receiver.health = 'open', 'open', flow.health) IN (SELECT value FROM json_each(:healths))
ORDER BY flow.flow LIMIT :limit;

-- name: unused_receivers
SELECT host FROM receiver WHERE next_at IS NULL AND (used_at <= :before OR used_at > :latest) LIMIT :limit;

-- name: delete_receivers
DELETE FROM receiver WHERE next_at IS NULL AND host IN (SELECT value FROM json_each(?));

-- name: unused_flows
SELECT flow FROM flow WHERE next_at IS NULL AND (used_at <= :before OR used_at > :latest) LIMIT :limit;

-- name: delete_flows
DELETE FROM flow WHERE next_at IS NULL AND flow IN (SELECT value FROM json_each(?));

-- name: delivery
SELECT delivery.id, job_id, id_random, kind, host, url, delivery.state, delivery.attempt, since, delivery.due_at
FROM delivery JOIN job ON job.id = job_id WHERE delivery.id = :id;

-- name: deliveries_of_request
SELECT delivery.id, job_id, id_random, kind, host, url, delivery.state, delivery.attempt, since, delivery.due_at
FROM delivery JOIN job ON job.id = job_id WHERE job_id = :key ORDER BY delivery.id;

-- name: dead_deliveries
SELECT delivery.id, job_id, id_random, kind, host, url, delivery.state, delivery.attempt, since, delivery.due_at
FROM delivery JOIN job ON job.id = job_id
WHERE delivery.state = 'dead' AND delivery.id > :after AND since >= :since AND since < :until AND (:host IS NULL OR host = :host)
ORDER BY delivery.id LIMIT :limit;

-- name: all_deliveries
SELECT delivery.id, job_id, id_random, kind, host, url, delivery.state, delivery.attempt, since, delivery.due_at
FROM delivery JOIN job ON job.id = job_id
WHERE delivery.id > :after AND since >= :since AND since < :until AND (:host IS NULL OR host = :host)
ORDER BY delivery.id LIMIT :limit;

-- name: delivery_attempts
SELECT at, duration, status, error, response FROM delivery_attempt WHERE delivery_id = ? ORDER BY number;

-- name: prunable_jobs
-- The id contains the time of submission, so the oldest jobs are found without an index. A job with an unfinished delivery is kept.
SELECT id FROM job WHERE id > :after AND id < :first_kept AND finished_at <= :before
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND state IN ('blocked', 'pending', 'sending'))
ORDER BY id LIMIT :limit;

-- name: prunable_jobs_ahead
-- Jobs whose id is in the future, because the clock was wrong when they were submitted.
SELECT id FROM job WHERE id >= :ahead AND finished_at <= :before
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND state IN ('blocked', 'pending', 'sending'))
ORDER BY id LIMIT :limit;

-- name: jobs_ended_ahead
-- Jobs that ended in the future, because the clock was wrong. They were submitted by the same clock, or before the retention.
SELECT id FROM job WHERE id >= :ahead AND finished_at > :latest
UNION ALL SELECT id FROM job WHERE id < :first_kept AND finished_at > :latest LIMIT :limit;

-- name: reset_finished_at
UPDATE job SET finished_at = :now WHERE id IN (SELECT value FROM json_each(:keys)) AND finished_at > :latest;

-- name: job_weight
-- The weight of a job for retention. `length` does not read the blob.
SELECT :row + ifnull((SELECT :row + length(body) FROM payload WHERE job_id = :key), 0)
    + :chunk * (SELECT count(*) FROM response_chunk WHERE job_id = :key)
    + :chunk * (SELECT count(*) FROM request_chunk WHERE job_id = :key)
    + (SELECT ifnull(sum(:row + length(lines)), 0) FROM log WHERE job_id = :key)
    + :row * (SELECT count(*) FROM attempt WHERE job_id = :key)
    + ifnull((SELECT :row + length(body) FROM kept_request WHERE job_id = :key), 0)
    + :row * (SELECT count(*) FROM delivery LEFT JOIN delivery_attempt ON delivery_id = delivery.id WHERE job_id = :key);

-- name: still_prunable
SELECT id FROM job WHERE id IN (SELECT value FROM json_each(?)) AND finished_at IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND state IN ('blocked', 'pending', 'sending'))
ORDER BY id;

-- name: delete_some_event_deliveries
DELETE FROM delivery WHERE id IN (SELECT id FROM delivery WHERE job_id = :key AND number > 0 ORDER BY number LIMIT :limit);

-- name: delete_deliveries
DELETE FROM delivery WHERE job_id = ?;

-- name: delete_some_response_chunks
DELETE FROM response_chunk WHERE rowid IN (SELECT rowid FROM response_chunk WHERE job_id = :key ORDER BY number LIMIT :limit);

-- name: delete_some_request_chunks
DELETE FROM request_chunk WHERE rowid IN (SELECT rowid FROM request_chunk WHERE job_id = :key ORDER BY number LIMIT :limit);

-- name: delete_some_log_lines
DELETE FROM log WHERE rowid IN (SELECT rowid FROM log WHERE job_id = :key ORDER BY number LIMIT :limit);

-- Blocks named `far_` select what is due later than `far`, and blocks named `reset_far_` make it due now.

-- name: far_hosts
SELECT host FROM receiver WHERE health = 'healthy' AND next_at > :far
UNION SELECT host FROM receiver WHERE health <> 'healthy' AND next_at > :far
UNION SELECT host FROM flow WHERE next_at > :far LIMIT :limit;

-- name: flows_of_hosts
SELECT flow FROM flow WHERE host IN (SELECT value FROM json_each(:hosts)) AND next_at IS NOT NULL;

-- name: reset_far_deliveries
UPDATE delivery SET due_at = :now
WHERE flow IN (SELECT flow FROM flow WHERE host IN (SELECT value FROM json_each(:hosts))) AND state = 'pending' AND due_at > :far;

-- name: reset_far_flows
UPDATE flow SET open_until = :now WHERE host IN (SELECT value FROM json_each(:hosts)) AND open_until > :far;

-- name: reset_far_hosts
UPDATE receiver SET open_until = :now WHERE host IN (SELECT value FROM json_each(:hosts)) AND open_until > :far;

-- name: far_delayed_jobs
-- Only jobs that have had an attempt: before the first attempt the time was set by the submitter.
SELECT id FROM job WHERE state = 'delayed' AND attempt > 0 AND due_at > :far LIMIT :limit;

-- name: reset_far_delayed_jobs
UPDATE job SET due_at = :now WHERE id IN (SELECT value FROM json_each(:keys)) AND state = 'delayed' AND due_at > :far;

-- name: delete_jobs
DELETE FROM job WHERE id IN (SELECT value FROM json_each(?));

-- name: prunable_responses
-- Failed jobs are included although they have no response, so that their rows are deleted. CROSS JOIN prevents a scan of all jobs.
SELECT unstored_response.job_id FROM unstored_response CROSS JOIN job ON job.id = unstored_response.job_id LEFT JOIN payload USING (job_id)
WHERE finished_at <= CASE WHEN chunks > 0 OR length(body) >= :large THEN :before_if_large ELSE :before END
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND delivery.state IN ('blocked', 'pending', 'sending'))
LIMIT :limit;

-- name: delete_payloads
DELETE FROM payload WHERE job_id IN (SELECT value FROM json_each(?));

-- name: delete_unstored_responses
DELETE FROM unstored_response WHERE job_id IN (SELECT value FROM json_each(?));
