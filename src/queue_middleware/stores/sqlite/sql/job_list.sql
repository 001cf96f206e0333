-- Routes of jobs, and lists of jobs for the operator

-- name: route_id
SELECT id FROM route WHERE method = ? AND template = ?;

-- name: insert_route
INSERT INTO route (method, template) SELECT :method, :template WHERE (SELECT count(*) FROM route) < :most;

-- name: route_template
SELECT template FROM route WHERE id = ?;

-- name: route_templates
SELECT DISTINCT template FROM route WHERE id > 0;

-- name: queued_priorities
SELECT DISTINCT priority FROM backlog WHERE state = 'queued' AND level = 4 AND jobs > 0;

-- name: listed_jobs
SELECT job.id, id_random, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, client, task,
    route.method, route.template
FROM job JOIN route ON route.id = job.route
WHERE job.id IN (SELECT value FROM json_each(?)) ORDER BY job.id DESC;

-- ## The keys of one source of a list, newest first, and the end of the slice that one page examines
--
-- A source is a set of jobs that can be read in the order of their keys without reading others.

-- name: list_any
SELECT id FROM job WHERE id < :before AND id >= :least
    AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
    AND (:route IS NULL OR route IN (SELECT id FROM route WHERE template = :route))
    AND (:client IS NULL OR client = :client) AND (:error_type IS NULL OR error_type = :error_type)
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY id DESC LIMIT :limit;

-- name: slice_any
SELECT min(id), count(*) FROM (SELECT id FROM job WHERE id < :before AND id >= :least ORDER BY id DESC LIMIT :slice);

-- name: list_queued
SELECT id FROM job WHERE state = 'queued' AND priority = :priority AND id < :before AND id >= :least
    AND (:route IS NULL OR route IN (SELECT id FROM route WHERE template = :route))
    AND (:client IS NULL OR client = :client)
ORDER BY id DESC LIMIT :limit;

-- name: slice_queued
SELECT min(id), count(*) FROM (
    SELECT id FROM job WHERE state = 'queued' AND priority = :priority AND id < :before AND id >= :least
    ORDER BY id DESC LIMIT :slice);

-- name: list_running
-- The index has no order of keys, but it holds few jobs.
SELECT id FROM job INDEXED BY job_running WHERE state = 'running' AND id < :before AND id >= :least
    AND (:route IS NULL OR route IN (SELECT id FROM route WHERE template = :route))
    AND (:client IS NULL OR client = :client)
ORDER BY id DESC LIMIT :limit;

-- name: slice_running
SELECT min(id), count(*) FROM (
    SELECT id FROM job INDEXED BY job_running WHERE state = 'running' AND id < :before AND id >= :least
    ORDER BY id DESC LIMIT :slice);

-- name: list_by_state
SELECT id FROM job INDEXED BY job_by_state
WHERE state = :state AND state <> 'running' AND state <> 'completed' AND state <> 'queued' AND id < :before AND id >= :least
    AND (:route IS NULL OR route IN (SELECT id FROM route WHERE template = :route))
    AND (:client IS NULL OR client = :client) AND (:error_type IS NULL OR error_type = :error_type)
ORDER BY id DESC LIMIT :limit;

-- name: slice_by_state
SELECT min(id), count(*) FROM (
    SELECT id FROM job INDEXED BY job_by_state
    WHERE state = :state AND state <> 'running' AND state <> 'completed' AND state <> 'queued' AND id < :before AND id >= :least
    ORDER BY id DESC LIMIT :slice);

-- name: list_server_errors
SELECT id FROM job INDEXED BY job_server_error
WHERE state = 'completed' AND status >= 500 AND id < :before AND id >= :least
    AND (:route IS NULL OR route IN (SELECT id FROM route WHERE template = :route))
    AND (:client IS NULL OR client = :client)
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY id DESC LIMIT :limit;

-- name: slice_server_errors
SELECT min(id), count(*) FROM (
    SELECT id FROM job INDEXED BY job_server_error
    WHERE state = 'completed' AND status >= 500 AND id < :before AND id >= :least
    ORDER BY id DESC LIMIT :slice);
