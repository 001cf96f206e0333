-- What operators see and do. No table is written for a job that succeeds in its first attempt, except the counts of `metric` and
-- `tally`, which are added up in memory and written at most once a second.

-- ## Requests

-- Attempts that were not the last one of their job: retried, lost or handed back. The last attempt is in the row of the job.
CREATE TABLE attempt (
    job_id     INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL CHECK (position >= 1),  -- 1 for the first; several attempts may have one number, if none was charged
    number     INTEGER NOT NULL CHECK (number >= 1),
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    ending     TEXT    NOT NULL,  -- `jobs.attempts.AttemptEnding`
    status     INTEGER,           -- HTTP status of its response
    detail     TEXT,
    owner      TEXT    NOT NULL,
    PRIMARY KEY (job_id, position)
) STRICT, WITHOUT ROWID;

-- Requests that are kept after the end of their job (`keep_requests`), so that they can be submitted again. Their chunks stay in
-- `request_chunk`. While a job awaits an external service, its request is kept until its outcome is known.
CREATE TABLE kept_request (
    job_id     INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    head       BLOB    NOT NULL,  -- like the columns of `payload`
    body       BLOB    NOT NULL,
    chunks     INTEGER NOT NULL CHECK (chunks >= 0),
    secrets    BLOB,    -- like the column of `task`, whose value is deleted at the end
    kept_until INTEGER  -- NULL: the job awaits an external service
) STRICT;

CREATE INDEX kept_request_until ON kept_request (kept_until) WHERE kept_until IS NOT NULL;

-- Jobs that an operator has created from the kept requests of ended jobs. The original may be deleted first.
CREATE TABLE copy (
    job_id          INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    original        INTEGER NOT NULL,  -- `job.id`
    original_random BLOB    NOT NULL   -- `job.id_random`
) STRICT;

CREATE INDEX copy_original ON copy (original);

-- For lists of requests that failed with a response.
CREATE INDEX job_server_error ON job (id) WHERE state = 'completed' AND status >= 500;

-- ## Control

-- With the route, so that a claim skips the jobs of paused routes without reading their rows.
DROP INDEX job_queued;
CREATE INDEX job_queued ON job (priority, id, start_by, state, route) WHERE state = 'queued';

-- The same, so that metrics count jobs by route without reading their rows.
DROP INDEX job_by_state;
CREATE INDEX job_by_state ON job (state, id, route) WHERE state <> 'running' AND state <> 'completed' AND state <> 'queued';

-- Routes whose jobs do not start. '*' stands for all routes.
CREATE TABLE pause (
    route        TEXT    PRIMARY KEY,  -- `route.template`, with every method
    operator     TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    paused_at    INTEGER NOT NULL,
    paused_until INTEGER               -- NULL: until it is resumed
) STRICT, WITHOUT ROWID;

CREATE TABLE process (
    owner       TEXT    PRIMARY KEY,  -- as in `job.owner`
    host        TEXT    NOT NULL,
    pid         INTEGER NOT NULL,
    version     TEXT    NOT NULL,
    concurrency INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    running     INTEGER NOT NULL DEFAULT 0,
    stuck       INTEGER NOT NULL DEFAULT 0,
    streams     INTEGER NOT NULL DEFAULT 0  -- open status streams
) STRICT, WITHOUT ROWID;

-- What operators have done; the newest 10,000 rows.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    operator TEXT    NOT NULL,
    action   TEXT    NOT NULL,  -- `jobs.audit.Action`
    target   TEXT    NOT NULL,  -- a request id, a delivery id, a route, or a filter as JSON
    count    INTEGER NOT NULL
) STRICT;

-- ## Numbers

-- Counters and histograms of all processes since the database was created.
CREATE TABLE metric (
    name   TEXT    NOT NULL,
    labels TEXT    NOT NULL,  -- the values of the labels, separated by line feeds
    bucket INTEGER NOT NULL,  -- 0: the value of a counter or the sum of a histogram; from 1: how many observations are in a bucket
    value  REAL    NOT NULL,
    PRIMARY KEY (name, labels, bucket)
) STRICT, WITHOUT ROWID;

-- The same by minute, for charts; 48 hours.
CREATE TABLE tally (
    minute INTEGER NOT NULL,  -- minutes since 1970
    name   TEXT    NOT NULL,
    route  TEXT    NOT NULL,
    bucket INTEGER NOT NULL,
    value  REAL    NOT NULL,
    PRIMARY KEY (minute, name, route, bucket)
) STRICT, WITHOUT ROWID;

-- When the database was created. One row.
CREATE TABLE birth (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO birth VALUES (1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));

-- Where the spans of later deliveries are linked to. Written only while spans are recorded.
CREATE TABLE trace (
    job_id  INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    context TEXT    NOT NULL  -- `traceparent` of the attempt (W3C Trace Context)
) STRICT;
