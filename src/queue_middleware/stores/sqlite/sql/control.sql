-- Pauses, processes, and what operators have done
--
-- `:paused` is a list of routes whose jobs do not start; '*' in it stands for all routes.

-- name: pauses
SELECT route, operator, reason, paused_at, paused_until FROM pause ORDER BY route;

-- name: put_pause
INSERT INTO pause (route, operator, reason, paused_at, paused_until) VALUES (:route, :operator, :reason, :paused_at, :paused_until)
ON CONFLICT (route) DO UPDATE SET operator = excluded.operator, reason = excluded.reason, paused_at = excluded.paused_at,
    paused_until = excluded.paused_until;

-- name: delete_pause
DELETE FROM pause WHERE route = ?;

-- name: delay_paused_suspects
-- A suspect that is queued keeps the other suspects from starting, so one that does not start must not be queued.
UPDATE job SET state = 'delayed', due_at = :now
WHERE state = 'queued' AND id IN (SELECT job_id FROM suspect)
    AND route IN (SELECT id FROM route WHERE template IN (SELECT value FROM json_each(:paused)));

-- name: claim_unpaused_jobs
-- `claim_jobs` while a route is paused. `job_queued` has the route, so that the jobs of paused routes are skipped without reading them.
UPDATE job SET state = 'running', attempt = attempt + 1, owner = :owner, token = random() & 9223372036854775807,
    lease_until = :lease_until, started_at = :now, progress = NULL, stage = NULL
WHERE id IN (SELECT id FROM job WHERE state = 'queued' AND (start_by IS NULL OR start_by > :now)
    AND route NOT IN (SELECT id FROM route WHERE template IN (SELECT value FROM json_each(:paused))
        OR '*' IN (SELECT value FROM json_each(:paused)))
    ORDER BY priority, id LIMIT :limit)
RETURNING id, id_random, token, attempt, max_attempts, retries, webhook, (SELECT events FROM webhook_events WHERE job_id = id), priority, client, task, route;

-- name: promote_unpaused_suspect
UPDATE job SET state = 'queued', due_at = NULL
WHERE id = (SELECT id FROM suspect CROSS JOIN job ON id = job_id WHERE state = 'delayed' AND due_at <= :now
        AND route NOT IN (SELECT id FROM route WHERE template IN (SELECT value FROM json_each(:paused))
            OR '*' IN (SELECT value FROM json_each(:paused)))
        ORDER BY due_at, id LIMIT 1)
    AND NOT EXISTS (SELECT 1 FROM suspect CROSS JOIN job ON id = job_id WHERE state IN ('queued', 'running'));

-- name: next_unpaused_delayed_job
SELECT min(due_at) FROM job WHERE state = 'delayed' AND (id NOT IN (SELECT job_id FROM suspect)
    OR (route NOT IN (SELECT id FROM route WHERE template IN (SELECT value FROM json_each(:paused))
            OR '*' IN (SELECT value FROM json_each(:paused)))
        AND NOT EXISTS (SELECT 1 FROM suspect CROSS JOIN job AS other ON other.id = job_id WHERE other.state IN ('queued', 'running'))));

-- name: put_process
INSERT INTO process (owner, host, pid, version, concurrency, started_at, seen_at, running, stuck, streams)
VALUES (:owner, :host, :pid, :version, :concurrency, :started_at, :seen_at, :running, :stuck, :streams)
ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at, running = excluded.running, stuck = excluded.stuck,
    streams = excluded.streams;

-- name: processes
SELECT owner, host, pid, version, concurrency, started_at, seen_at, running, stuck, streams FROM process ORDER BY started_at, owner;

-- name: delete_processes
DELETE FROM process WHERE owner IN (SELECT value FROM json_each(?));

-- name: insert_audit_record
INSERT INTO audit (at, operator, action, target, count) VALUES (?, ?, ?, ?, ?);

-- name: delete_old_audit_records
DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?;

-- name: audit_records
SELECT id, at, operator, action, target, count FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?;
