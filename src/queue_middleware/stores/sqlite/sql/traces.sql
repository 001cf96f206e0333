-- name: put_trace
-- Parameters: the key and the token of the claim, the context. The state is not checked: a transaction may end the attempt first.
INSERT INTO trace (job_id, context)
SELECT id, ?3 FROM job WHERE id = ?1 AND token = ?2
ON CONFLICT (job_id) DO UPDATE SET context = excluded.context;

-- name: trace
SELECT context FROM trace WHERE job_id = ?;
