-- The constraints, triggers and views implement rules that are stated as tables and functions in `jobs`, `webhooks` and `tasks`. The
-- conformance suite compares the two.

-- ## Jobs

-- What a job calls: the method and the template of the path, e.g. POST and /items/{id}. At most `stores.common.route_ids.MAX_ROWS` rows.
CREATE TABLE route (
    id       INTEGER PRIMARY KEY,
    method   TEXT NOT NULL,
    template TEXT NOT NULL,
    UNIQUE (method, template)
) STRICT;

INSERT INTO route VALUES (0, '', 'other');

-- The row is small, because each change of state writes it to the write-ahead log again. Bodies are in other tables.
-- No constraint uses IN with more than two values: SQLite would search a temporary index for each row, and these searches took half of
-- the time of a statement that inserts or ends a job.
CREATE TABLE job (
    id             INTEGER PRIMARY KEY,  -- milliseconds << 15 | sequence; grows with time, so inserts append
    id_random      BLOB    NOT NULL CHECK (length(id_random) = 10),  -- together with the milliseconds of `id`: the public UUIDv7
    state          TEXT    NOT NULL
        CHECK (state = 'running' OR state = 'completed' OR state = 'queued' OR state = 'delayed' OR state = 'awaiting' OR state = 'failed'
            OR state = 'cancelled'),
    priority       INTEGER NOT NULL,
    client         TEXT    NOT NULL,
    attempt        INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts   INTEGER NOT NULL CHECK (max_attempts >= 1),
    retries        TEXT,                 -- JSON: extra attempts by cause; NULL if the submission named none
    webhook        TEXT,
    start_by       INTEGER,
    due_at         INTEGER,
    owner          TEXT,
    token          INTEGER,              -- of the last claim; kept after the end, so that the claim can repeat its write
    lease_until    INTEGER,              -- boot clock, which cannot be set
    cancelling     INTEGER NOT NULL DEFAULT 0 CHECK (cancelling IN (0, 1)),
    progress       REAL CHECK (progress BETWEEN 0 AND 1),
    stage          TEXT,
    started_at     INTEGER,
    finished_at    INTEGER,
    status         INTEGER,
    error_type     TEXT,
    error          TEXT,
    task           INTEGER NOT NULL DEFAULT 0,  -- 0: no row in `task`; 1: has one; 2: was submitted as a task
    fails_on_crash INTEGER NOT NULL DEFAULT 0 CHECK (fails_on_crash IN (0, 1)),  -- `on_crash` of the process that accepted it
    route          INTEGER NOT NULL DEFAULT 0,  -- `route.id`; not a foreign key, because no route is ever deleted
    CHECK ((state = 'running') = (owner IS NOT NULL AND lease_until IS NOT NULL)),
    CHECK (state <> 'running' OR token IS NOT NULL),
    CHECK ((state = 'delayed') = (due_at IS NOT NULL)),
    CHECK ((state = 'completed' OR state = 'failed' OR state = 'cancelled') = (finished_at IS NOT NULL)),
    CHECK ((state = 'completed') = (status IS NOT NULL)),
    CHECK ((state IN ('failed', 'cancelled')) = (error_type IS NOT NULL))
) STRICT;

-- The indexes are partial, so that a job that starts at once is in none of the first three. `job_queued` has all columns that a claim
-- needs to skip jobs whose start deadline has passed.
CREATE INDEX job_queued   ON job (priority, id, start_by, state) WHERE state = 'queued';
CREATE INDEX job_delayed  ON job (due_at)                        WHERE state = 'delayed';
CREATE INDEX job_start_by ON job (start_by)                      WHERE state IN ('queued', 'delayed') AND start_by IS NOT NULL;
CREATE INDEX job_running  ON job (owner)                         WHERE state = 'running';
-- For lists of jobs in one state. A job that starts at once and completes enters none of these states. The other states are excluded
-- with <>: if these were named with = and OR, SQLite would read delayed jobs from this index instead of `job_delayed`.
CREATE INDEX job_by_state ON job (state, id)                     WHERE state <> 'running' AND state <> 'completed' AND state <> 'queued';

-- One row for each job: its request until the job has ended, then its response.
CREATE TABLE payload (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    head   BLOB    NOT NULL,  -- MessagePack: a request without its body, or the headers of a response
    body   BLOB    NOT NULL,  -- the first 256 KiB of a request; the part of a response after its chunks
    chunks INTEGER NOT NULL CHECK (chunks >= 0)
) STRICT;

CREATE TABLE request_chunk (
    job_id INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    data   BLOB    NOT NULL,
    PRIMARY KEY (job_id, number)
) STRICT;

-- Chunks of a response are stored while it is produced. The request is still needed then, so they have their own table.
CREATE TABLE response_chunk (
    job_id INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    data   BLOB    NOT NULL,
    PRIMARY KEY (job_id, number)
) STRICT;

-- Jobs whose submission asked not to store the response (`X-Fal-Store-IO: 0`). They are few, so this is a table and not a column.
CREATE TABLE unstored_response (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE
) STRICT;

-- The idempotency keys of jobs that were submitted with one. A key is deleted with its job.
CREATE TABLE idempotency_key (
    scope       TEXT    NOT NULL,  -- the submitter identity; empty without authentication
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,  -- hash of the request; the same key with another request is an error of the client
    job_id      INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

-- Without it, each deletion of a job would scan all keys.
CREATE UNIQUE INDEX idempotency_key_job ON idempotency_key (job_id);

-- A row is a batch of lines, because lines are written, read and deleted in batches.
CREATE TABLE log (
    job_id INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL CHECK (number >= 1),  -- of the last line; lines of a job are numbered from 1 over all attempts
    lines  BLOB    NOT NULL,  -- MessagePack
    PRIMARY KEY (job_id, number)
) STRICT;

-- Jobs whose process was lost, and which may be the cause. A suspect runs only while no other suspect is queued or running.
CREATE TABLE suspect (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    reason TEXT NOT NULL  -- of the last loss
) STRICT;

-- How often in a row a job was released after a short attempt.
CREATE TABLE release_count (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    times  INTEGER NOT NULL CHECK (times >= 1)
) STRICT;

-- ## Backlog: how many jobs wait to start
--
-- Triggers keep the counts, so that no statement can forget them and no query counts the queue.
-- Four levels of buckets cover 2^10, 2^20, 2^28 and 2^36 ids: in milliseconds less than 1, 32, 8 thousand and 2 million. A job that
-- starts at once changes none of them. A job with a start time ('scheduled': delayed and without an attempt) is counted separately,
-- because it is not a part of the queue. Tasks that have not ended are one row: 'task', level 4.
CREATE TABLE backlog (
    state    TEXT    NOT NULL,  -- 'queued', 'delayed', 'scheduled' or 'task'
    level    INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    bucket   INTEGER NOT NULL,  -- id >> the bits of the level
    jobs     INTEGER NOT NULL CHECK (jobs >= 0),
    PRIMARY KEY (state, level, priority, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE backlog_client (
    client TEXT    PRIMARY KEY,
    jobs   INTEGER NOT NULL CHECK (jobs >= 0)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER job_is_submitted AFTER INSERT ON job WHEN new.state IN ('queued', 'delayed') BEGIN
    INSERT INTO backlog VALUES
        (iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), 1, new.priority, new.id >> 10, 1),
        (iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), 2, new.priority, new.id >> 20, 1),
        (iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), 3, new.priority, new.id >> 28, 1),
        (iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), 4, new.priority, new.id >> 36, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO backlog_client SELECT new.client, 1 WHERE new.state = 'queued' OR new.attempt > 0
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_enters_backlog AFTER UPDATE OF state ON job WHEN new.state IN ('queued', 'delayed') BEGIN
    INSERT INTO backlog
        SELECT iif(new.state = 'delayed' AND new.attempt = 0, 'scheduled', new.state), level, new.priority, new.id >> bits, 1
        FROM (SELECT 1 AS level, 10 AS bits UNION ALL SELECT 2, 20 UNION ALL SELECT 3, 28 UNION ALL SELECT 4, 36) WHERE true
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO backlog_client SELECT new.client, 1 WHERE new.state = 'queued' OR new.attempt > 0
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_leaves_backlog AFTER UPDATE OF state ON job WHEN old.state IN ('queued', 'delayed') BEGIN
    UPDATE backlog SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 1 AND priority = old.priority AND bucket = old.id >> 10;
    UPDATE backlog SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 2 AND priority = old.priority AND bucket = old.id >> 20;
    UPDATE backlog SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 3 AND priority = old.priority AND bucket = old.id >> 28;
    UPDATE backlog SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 4 AND priority = old.priority AND bucket = old.id >> 36;
    UPDATE backlog_client SET jobs = jobs - 1 WHERE client = old.client AND (old.state = 'queued' OR old.attempt > 0);
END;

CREATE TRIGGER job_is_deleted_from_backlog AFTER DELETE ON job WHEN old.state IN ('queued', 'delayed') BEGIN
    UPDATE backlog SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 1 AND priority = old.priority AND bucket = old.id >> 10;
    UPDATE backlog SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 2 AND priority = old.priority AND bucket = old.id >> 20;
    UPDATE backlog SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 3 AND priority = old.priority AND bucket = old.id >> 28;
    UPDATE backlog SET jobs = jobs - 1 WHERE state = iif(old.state = 'delayed' AND old.attempt = 0, 'scheduled', old.state)
        AND level = 4 AND priority = old.priority AND bucket = old.id >> 36;
    UPDATE backlog_client SET jobs = jobs - 1 WHERE client = old.client AND (old.state = 'queued' OR old.attempt > 0);
END;

-- Otherwise empty buckets would remain and be summed forever.
CREATE TRIGGER backlog_is_empty AFTER UPDATE OF jobs ON backlog WHEN new.jobs = 0 BEGIN
    DELETE FROM backlog WHERE state = new.state AND level = new.level AND priority = new.priority AND bucket = new.bucket;
END;

CREATE TRIGGER backlog_client_is_empty AFTER UPDATE OF jobs ON backlog_client WHEN new.jobs = 0 BEGIN
    DELETE FROM backlog_client WHERE client = new.client;
END;

-- The position of a job in the queue is the number of queued jobs before it. Whole buckets are summed from the widest to the narrowest,
-- then the few jobs before it in its own narrowest bucket are counted.
CREATE VIEW queue_position AS
SELECT me.id AS id,
    (SELECT ifnull(sum(jobs), 0) FROM backlog WHERE state = 'queued' AND level = 4 AND priority < me.priority)
    + (SELECT ifnull(sum(jobs), 0) FROM backlog
        WHERE state = 'queued' AND level = 4 AND priority = me.priority AND bucket < me.id >> 36)
    + (SELECT ifnull(sum(jobs), 0) FROM backlog
        WHERE state = 'queued' AND level = 3 AND priority = me.priority AND bucket >= (me.id >> 36) << 8 AND bucket < me.id >> 28)
    + (SELECT ifnull(sum(jobs), 0) FROM backlog
        WHERE state = 'queued' AND level = 2 AND priority = me.priority AND bucket >= (me.id >> 28) << 8 AND bucket < me.id >> 20)
    + (SELECT ifnull(sum(jobs), 0) FROM backlog
        WHERE state = 'queued' AND level = 1 AND priority = me.priority AND bucket >= (me.id >> 20) << 10 AND bucket < me.id >> 10)
    + (SELECT count(*) FROM job
        WHERE state = 'queued' AND priority = me.priority AND id >= (me.id >> 10) << 10 AND id < me.id) AS position
FROM job AS me
WHERE me.state IN ('queued', 'delayed');

-- How many of the stored jobs ended with each outcome.
CREATE TABLE outcome (
    name TEXT    PRIMARY KEY,  -- '2xx' to '5xx', 'other', 'failed', 'cancelled'
    jobs INTEGER NOT NULL CHECK (jobs >= 0)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER job_ends AFTER UPDATE OF finished_at ON job WHEN old.finished_at IS NULL AND new.finished_at IS NOT NULL BEGIN
    INSERT INTO outcome VALUES (
        CASE WHEN new.state <> 'completed' THEN new.state
            WHEN new.status BETWEEN 200 AND 599 THEN (new.status / 100) || 'xx' ELSE 'other' END, 1)
    ON CONFLICT (name) DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_is_deleted_from_outcome AFTER DELETE ON job WHEN old.finished_at IS NOT NULL BEGIN
    UPDATE outcome SET jobs = jobs - 1 WHERE name = CASE WHEN old.state <> 'completed' THEN old.state
        WHEN old.status BETWEEN 200 AND 599 THEN (old.status / 100) || 'xx' ELSE 'other' END;
END;

-- ## Webhooks

-- One row for each host that receives webhooks. A claim reads which hosts have due webhooks; this must not take longer when one host
-- has a hundred thousand webhooks that cannot be delivered.
CREATE TABLE receiver (
    host          TEXT    PRIMARY KEY,           -- lower case, with the port where it is not the default
    health        TEXT    NOT NULL DEFAULT 'new'
        CHECK (health = 'healthy' OR health = 'new' OR health = 'slow' OR health = 'failing' OR health = 'open'),
    failures      INTEGER NOT NULL DEFAULT 0,    -- in a row
    failing_since INTEGER,
    open_until    INTEGER,                       -- nothing is sent before, except one probe after it
    next_at       INTEGER,                       -- when something may be due, never too late; NULL: nothing is pending
    used_at       INTEGER NOT NULL DEFAULT 0,
    suspects      TEXT    NOT NULL DEFAULT '',   -- marks of the flows that failed since the host last accepted a webhook, separated by spaces
    CHECK ((health IN ('failing', 'open')) = (failures > 0 AND failing_since IS NOT NULL)),
    CHECK (open_until IS NULL OR health = 'open')
) STRICT, WITHOUT ROWID;

-- Two indexes, so that healthy hosts are found even if many others have been due for longer.
CREATE INDEX receiver_healthy ON receiver (next_at) WHERE health = 'healthy' AND next_at IS NOT NULL;
CREATE INDEX receiver_others  ON receiver (next_at) WHERE health <> 'healthy' AND next_at IS NOT NULL;

-- A flow is the webhooks of one submitter to one host. It has its own health, and flows of one host take turns, so a submitter whose
-- endpoint at a shared host (a relay, a tunnel) fails does not delay the webhooks of others. `receiver` has the health of the host as a
-- whole, which decides whether connections are made at all.
CREATE TABLE flow (
    flow          TEXT    PRIMARY KEY,           -- the host, a space, the client of the job
    host          TEXT    NOT NULL,
    health        TEXT    NOT NULL DEFAULT 'new'
        CHECK (health = 'healthy' OR health = 'new' OR health = 'slow' OR health = 'failing' OR health = 'open'),
    failures      INTEGER NOT NULL DEFAULT 0,    -- in a row
    failing_since INTEGER,
    open_until    INTEGER,                       -- nothing is sent before, except one probe after it
    next_at       INTEGER,                       -- when it is next served, not before something is due; NULL: nothing is pending
    used_at       INTEGER NOT NULL DEFAULT 0,
    CHECK ((health IN ('failing', 'open')) = (failures > 0 AND failing_since IS NOT NULL)),
    CHECK (open_until IS NULL OR health = 'open')
) STRICT, WITHOUT ROWID;

CREATE INDEX flow_turn   ON flow (host, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX flow_unused ON flow (used_at)       WHERE next_at IS NULL;

-- Jobs whose webhook is sent for events before the end, too. They are few, so this is a table and not a column.
CREATE TABLE webhook_events (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    events TEXT    NOT NULL  -- comma-separated
) STRICT;

CREATE TABLE delivery (
    id          INTEGER PRIMARY KEY,
    job_id      INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL DEFAULT 0,      -- 0 for the end of the request, from 1 for earlier events
    kind        TEXT    NOT NULL DEFAULT 'completed' CHECK (kind = 'completed' OR kind = 'started' OR kind = 'progress'),
    data        TEXT,                            -- JSON; NULL for the end, whose data is in `job` and `payload`
    url         TEXT    NOT NULL,
    host        TEXT    NOT NULL,
    flow        TEXT    NOT NULL DEFAULT '',
    state       TEXT    NOT NULL DEFAULT 'pending'
        CHECK (state = 'pending' OR state = 'sending' OR state = 'delivered' OR state = 'blocked' OR state = 'superseded' OR state = 'dead'),
    attempt     INTEGER NOT NULL DEFAULT 0,
    attempts_before_redelivery INTEGER NOT NULL DEFAULT 0,
    since       INTEGER NOT NULL,                -- when it was first due, or was last redelivered
    due_at      INTEGER NOT NULL,
    owner       TEXT,
    token       INTEGER,
    lease_until INTEGER,                         -- boot clock
    CHECK ((kind = 'completed') = (number = 0)),
    CHECK ((state = 'sending') = (owner IS NOT NULL AND token IS NOT NULL AND lease_until IS NOT NULL))
) STRICT;

-- UNIQUE, so that a request that ended twice because of a defect is delivered once.
CREATE UNIQUE INDEX delivery_job ON delivery (job_id, number);
CREATE INDEX delivery_due        ON delivery (flow, due_at, id) WHERE state = 'pending';
CREATE INDEX delivery_sending    ON delivery (owner)            WHERE state = 'sending';
CREATE INDEX delivery_dead       ON delivery (id)               WHERE state = 'dead';

CREATE TABLE delivery_attempt (
    delivery_id INTEGER NOT NULL REFERENCES delivery (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    duration    REAL    NOT NULL,
    status      INTEGER,
    error       TEXT,
    response    BLOB    NOT NULL,
    PRIMARY KEY (delivery_id, number)
) STRICT;

-- Triggers keep `next_at`, because many statements make a webhook due and a second statement for each would cost more: Python releases
-- and takes its global lock for every statement.
CREATE TRIGGER delivery_is_inserted AFTER INSERT ON delivery BEGIN
    INSERT INTO flow (flow, host, next_at) VALUES (new.flow, new.host, new.due_at)
    ON CONFLICT (flow) DO UPDATE SET next_at = max(excluded.next_at, ifnull(open_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(open_until, 0));
    INSERT INTO receiver (host, next_at) VALUES (new.host, new.due_at)
    ON CONFLICT (host) DO UPDATE SET next_at = max(excluded.next_at, ifnull(open_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(open_until, 0));
END;

CREATE TRIGGER delivery_becomes_due AFTER UPDATE OF state, due_at ON delivery WHEN new.state = 'pending' BEGIN
    INSERT INTO flow (flow, host, next_at) VALUES (new.flow, new.host, new.due_at)
    ON CONFLICT (flow) DO UPDATE SET next_at = max(excluded.next_at, ifnull(open_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(open_until, 0));
    INSERT INTO receiver (host, next_at) VALUES (new.host, new.due_at)
    ON CONFLICT (host) DO UPDATE SET next_at = max(excluded.next_at, ifnull(open_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(open_until, 0));
END;

-- The webhooks of one request are sent in order: a later one is blocked until the earlier ones have ended. An earlier one that has
-- failed is not retried, because the later one has newer data.
CREATE TRIGGER delivery_is_blocked AFTER INSERT ON delivery
WHEN EXISTS (SELECT 1 FROM delivery WHERE job_id = new.job_id AND id < new.id AND state IN ('blocked', 'pending', 'sending')) BEGIN
    UPDATE delivery SET state = 'blocked' WHERE id = new.id;
    UPDATE delivery SET due_at = new.due_at
    WHERE job_id = new.job_id AND id < new.id AND state IN ('blocked', 'pending') AND due_at > new.due_at;
    UPDATE delivery SET state = 'superseded'
    WHERE job_id = new.job_id AND id < new.id AND state = 'pending' AND attempt > attempts_before_redelivery;
END;

CREATE TRIGGER delivery_is_unblocked AFTER UPDATE OF state ON delivery
WHEN new.number > 0 AND new.state IN ('delivered', 'superseded', 'dead') BEGIN
    UPDATE delivery SET state = 'pending' WHERE id = (
        SELECT min(id) FROM delivery WHERE job_id = new.job_id AND state = 'blocked'
            AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = new.job_id AND state IN ('pending', 'sending')));
END;

-- ## Tasks

-- The columns of jobs that an external service may complete. `job.task` shows whether a job has a row.
CREATE TABLE task (
    job_id        INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    spec          BLOB    NOT NULL,  -- MessagePack; never changes
    salt          BLOB    NOT NULL,  -- the callback id and the signal token are derived from it and from a key that is not in this database
    callback      BLOB    NOT NULL,  -- SHA-256 of the callback id
    signal        BLOB,              -- SHA-256 of the signal token
    client        TEXT,              -- the client that may list it; NULL unless it was submitted as a task
    awaits        TEXT    NOT NULL CHECK (awaits IN ('nothing', 'poll', 'callback')),  -- by its specification; a signal is a callback
    response_status INTEGER,         -- HTTP status of the call after which the job awaits
    responded_at  INTEGER,
    awaits_until  INTEGER,
    poll          BLOB,              -- MessagePack: how it is polled, if this came from the response and not from the task
    poll_host     TEXT,              -- origin of the first URL that is polled
    poll_at       INTEGER,
    polls         INTEGER NOT NULL DEFAULT 0,
    poll_failures INTEGER NOT NULL DEFAULT 0,  -- in a row
    owner         TEXT,              -- of the running poll, like the next two columns
    token         INTEGER,
    lease_until   INTEGER,           -- boot clock
    credentials   BLOB,              -- MessagePack: headers of the call that the polls repeat
    secrets       BLOB,              -- MessagePack: headers of the task for the polls; `spec` has only their names
    event         TEXT,              -- the last intermediate event of the external service
    resolved_by   TEXT CHECK (resolved_by IN ('callback', 'signal', 'poll'))
) STRICT;

CREATE UNIQUE INDEX task_callback ON task (callback);
CREATE UNIQUE INDEX task_signal   ON task (signal)         WHERE signal IS NOT NULL;
CREATE INDEX task_client          ON task (client, job_id) WHERE client IS NOT NULL;
CREATE INDEX task_awaits          ON task (awaits_until)   WHERE awaits_until IS NOT NULL;
CREATE INDEX task_poll            ON task (poll_at)        WHERE poll_at IS NOT NULL AND token IS NULL;
CREATE INDEX task_polling         ON task (owner)          WHERE token IS NOT NULL;

-- A final result that arrived while an attempt was running.
CREATE TABLE early_result (
    job_id     INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    source     TEXT    NOT NULL,
    status     INTEGER NOT NULL,
    head       BLOB    NOT NULL,
    body       BLOB    NOT NULL,
    error_type TEXT,
    error      TEXT
) STRICT;

-- AsyncQueue's status of a task. A task that ended with the response of its call has failed if that response is an error: a status from
-- 500, or from 400 if the task was to await an external service.
CREATE VIEW task_record AS
SELECT job.id, id_random, state, attempt, progress, stage, started_at, finished_at, status, error_type, error, job.client AS client,
    spec, priority, max_attempts, due_at, webhook, resolved_by, event,
    CASE state
        WHEN 'queued' THEN 'pending'
        WHEN 'delayed' THEN iif(attempt = 0, 'delayed', 'pending')
        WHEN 'running' THEN 'processing'
        WHEN 'awaiting' THEN iif(awaits = 'poll' OR (awaits = 'nothing' AND poll_at IS NOT NULL), 'polling', 'waiting')
        WHEN 'cancelled' THEN 'cancelled'
        WHEN 'completed' THEN
            iif(resolved_by IS NULL AND status >= iif(awaits = 'nothing', 500, 400), 'failed', 'completed')
        ELSE iif(error_type = 'wait_timeout', 'timeout', 'failed')
    END AS task_status
FROM task JOIN job ON job.id = task.job_id
WHERE task.client IS NOT NULL;

CREATE TABLE unfinished_tasks (
    client TEXT    PRIMARY KEY,
    jobs   INTEGER NOT NULL CHECK (jobs >= 0)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER unfinished_tasks_is_empty AFTER UPDATE OF jobs ON unfinished_tasks WHEN new.jobs = 0 BEGIN
    DELETE FROM unfinished_tasks WHERE client = new.client;
END;

CREATE TRIGGER task_is_submitted AFTER UPDATE OF task ON job WHEN old.task = 0 AND new.task <> 0 AND new.finished_at IS NULL BEGIN
    INSERT INTO backlog VALUES ('task', 4, 0, 0, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO unfinished_tasks VALUES (new.client, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

-- The secrets are deleted whatever ends the task, because they are no longer needed.
CREATE TRIGGER task_ends AFTER UPDATE OF state ON job WHEN old.task <> 0 AND old.finished_at IS NULL AND new.finished_at IS NOT NULL BEGIN
    UPDATE backlog SET jobs = jobs - 1 WHERE state = 'task' AND level = 4 AND priority = 0 AND bucket = 0;
    UPDATE unfinished_tasks SET jobs = jobs - 1 WHERE client = old.client;
    UPDATE task SET secrets = NULL, credentials = NULL WHERE job_id = old.id AND (secrets IS NOT NULL OR credentials IS NOT NULL);
END;

CREATE TRIGGER task_is_deleted AFTER DELETE ON job WHEN old.task <> 0 AND old.finished_at IS NULL BEGIN
    UPDATE backlog SET jobs = jobs - 1 WHERE state = 'task' AND level = 4 AND priority = 0 AND bucket = 0;
    UPDATE unfinished_tasks SET jobs = jobs - 1 WHERE client = old.client;
END;

-- ## The database as a whole

-- A process without leases to renew writes here, to know that other processes could renew theirs. One row.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL  -- boot clock
) STRICT;
INSERT INTO heartbeat VALUES (1, 0);

-- The application of the requests. A process of another application does not open the database. At most one row.
CREATE TABLE application (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL
) STRICT;
