-- The hot row stays small: one state change must not drag a body through the write-ahead log.
CREATE TABLE job (
    id          INTEGER PRIMARY KEY,  -- milliseconds << 15 | sequence: grows with time, so inserts append
    tail        BLOB    NOT NULL CHECK (length(tail) = 10),  -- with the id's milliseconds: the public UUIDv7
    state       TEXT    NOT NULL CHECK (state IN ('queued', 'delayed', 'running', 'waiting', 'completed', 'failed', 'cancelled')),
    priority    INTEGER NOT NULL,
    client      TEXT    NOT NULL,
    attempt     INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts INTEGER NOT NULL CHECK (max_attempts >= 1),
    retries     TEXT,                 -- JSON: extra attempts by cause, where the submitter said so
    webhook     TEXT,
    start_by    INTEGER,
    due_at      INTEGER,
    owner       TEXT,
    token       INTEGER,              -- of the last claim; it stays, so that who ended the job can ask again
    lease_until INTEGER,
    cancelling  INTEGER NOT NULL DEFAULT 0 CHECK (cancelling IN (0, 1)),
    progress    REAL CHECK (progress BETWEEN 0 AND 1),
    stage       TEXT,
    started_at  INTEGER,
    finished_at INTEGER,
    status      INTEGER,
    error_type  TEXT,
    error       TEXT,
    CHECK ((state = 'running') = (owner IS NOT NULL AND lease_until IS NOT NULL)),
    CHECK (state <> 'running' OR token IS NOT NULL),
    CHECK ((state = 'delayed') = (due_at IS NOT NULL)),
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((state = 'completed') = (status IS NOT NULL)),
    CHECK ((state IN ('failed', 'cancelled')) = (error_type IS NOT NULL))
) STRICT;

-- Partial, so that a job which starts at once never enters the first four.
CREATE INDEX job_queued   ON job (priority, id)  WHERE state = 'queued';
CREATE INDEX job_delayed  ON job (due_at)        WHERE state = 'delayed';
CREATE INDEX job_waiting  ON job (client)        WHERE state IN ('queued', 'delayed');
CREATE INDEX job_start_by ON job (start_by)      WHERE state IN ('queued', 'delayed') AND start_by IS NOT NULL;
CREATE INDEX job_running  ON job (owner)         WHERE state = 'running';

-- One row a job: its request while anybody may need it, then its answer in the same place.
CREATE TABLE payload (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    head   BLOB    NOT NULL,  -- MessagePack: everything of the request but its body; of the answer, its headers
    body   BLOB    NOT NULL,  -- the first 256 KiB of a request; what follows the parts of an answer
    parts  INTEGER NOT NULL CHECK (parts >= 0)
) STRICT;

CREATE TABLE request_part (
    job_id INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    data   BLOB    NOT NULL,
    PRIMARY KEY (job_id, number)
) STRICT;

-- Parts of an answer arrive while it is being produced, while its request is still needed.
CREATE TABLE response_part (
    job_id INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    data   BLOB    NOT NULL,
    PRIMARY KEY (job_id, number)
) STRICT;

CREATE TABLE delivery (
    id          INTEGER PRIMARY KEY,
    job_id      INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    url         TEXT    NOT NULL,
    state       TEXT    NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sending', 'delivered', 'dead')),
    attempt     INTEGER NOT NULL DEFAULT 0,
    due_at      INTEGER NOT NULL,
    owner       TEXT,
    token       INTEGER,
    lease_until INTEGER,
    CHECK ((state = 'sending') = (owner IS NOT NULL AND token IS NOT NULL AND lease_until IS NOT NULL))
) STRICT;

CREATE INDEX delivery_job     ON delivery (job_id);
CREATE INDEX delivery_due     ON delivery (due_at) WHERE state = 'pending';
CREATE INDEX delivery_sending ON delivery (owner)  WHERE state = 'sending';

CREATE TABLE delivery_attempt (
    delivery_id INTEGER NOT NULL REFERENCES delivery (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    duration    REAL    NOT NULL,
    status      INTEGER,
    error       TEXT,
    answer      BLOB    NOT NULL,
    PRIMARY KEY (delivery_id, number)
) STRICT;
