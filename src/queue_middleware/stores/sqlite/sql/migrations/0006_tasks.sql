-- What only those jobs have that may wait for somebody outside. The flag says that there is a row, 2 that it is a task to its owner;
-- all others are never asked.
ALTER TABLE job ADD COLUMN task INTEGER NOT NULL DEFAULT 0;

CREATE TABLE task (
    job_id      INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    spec        BLOB    NOT NULL,  -- MessagePack; it never changes
    salt        BLOB    NOT NULL,  -- the secret ids are derived from it, and from a key that is not in this file
    callback    BLOB    NOT NULL,  -- SHA-256 of the callback id
    signal      BLOB,              -- SHA-256 of the signal token
    client      TEXT,              -- who may list it; only of those that were made as tasks
    awaits      TEXT    NOT NULL CHECK (awaits IN ('nothing', 'poll', 'word')),  -- what its specification says
    answered    INTEGER,           -- HTTP status of the call that it waits behind
    answered_at INTEGER,
    waits_until INTEGER,
    poll        BLOB,              -- MessagePack: how it is polled, where the answer said so and not the task
    poll_at     INTEGER,
    polls       INTEGER NOT NULL DEFAULT 0,
    troubles    INTEGER NOT NULL DEFAULT 0,  -- polls that came to nothing, since the last that did not
    token       INTEGER,           -- of the poll that is under way
    lease_until INTEGER,
    credentials BLOB,              -- MessagePack: headers for the polls
    event       TEXT,              -- the last word from outside that was not the end
    resolved_by TEXT CHECK (resolved_by IN ('callback', 'signal', 'poll'))
) STRICT;

CREATE UNIQUE INDEX task_callback ON task (callback);
CREATE UNIQUE INDEX task_signal   ON task (signal)         WHERE signal IS NOT NULL;
CREATE INDEX task_client          ON task (client, job_id) WHERE client IS NOT NULL;
CREATE INDEX task_waits           ON task (waits_until)    WHERE waits_until IS NOT NULL;
CREATE INDEX task_poll            ON task (poll_at)        WHERE poll_at IS NOT NULL;

-- A last word that came while the attempt was still running.
CREATE TABLE early (
    job_id     INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    channel    TEXT    NOT NULL,
    status     INTEGER NOT NULL,
    head       BLOB    NOT NULL,
    body       BLOB    NOT NULL,
    error_type TEXT,
    error      TEXT
) STRICT;

-- What a task is called by its owner. An answer that ended it in place of the word it was to wait for is a refusal.
CREATE VIEW task_record AS
SELECT job.id, tail, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, job.client AS client,
    spec, priority, max_attempts, due_at, webhook, resolved_by, event,
    CASE state
        WHEN 'queued' THEN 'pending'
        WHEN 'delayed' THEN iif(attempt = 0, 'delayed', 'pending')
        WHEN 'running' THEN 'processing'
        WHEN 'waiting' THEN iif(awaits = 'poll' OR (awaits = 'nothing' AND poll_at IS NOT NULL), 'polling', 'waiting')
        WHEN 'cancelled' THEN 'cancelled'
        WHEN 'completed' THEN
            iif(resolved_by IS NULL AND status >= iif(awaits = 'nothing', 500, 400), 'failed', 'completed')
        ELSE iif(error_type = 'wait_timeout', 'timeout', 'failed')
    END AS word
FROM task JOIN job ON job.id = task.job_id
WHERE task.client IS NOT NULL;
