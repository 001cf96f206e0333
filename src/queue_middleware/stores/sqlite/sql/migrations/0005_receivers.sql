-- One row for each host that webhooks go to. What a claim asks is "which hosts have something due?", and the answer must not
-- take longer because one of them has a hundred thousand webhooks that nobody can deliver.
CREATE TABLE receiver (
    host          TEXT    PRIMARY KEY,           -- lower case, with the port where it is not the usual one
    standing      TEXT    NOT NULL DEFAULT 'new' CHECK (standing IN ('new', 'good', 'slow', 'failing', 'open')),
    failures      INTEGER NOT NULL DEFAULT 0,    -- in a row
    failing_since INTEGER,
    held_until    INTEGER,                       -- nothing is sent before, but for one probe after it
    next_at       INTEGER,                       -- when it is to be looked at: never later than it should be; NULL: nothing waits
    used_at       INTEGER NOT NULL DEFAULT 0,
    CHECK ((standing IN ('failing', 'open')) = (failures > 0 AND failing_since IS NOT NULL)),
    CHECK (held_until IS NULL OR standing = 'open')
) STRICT, WITHOUT ROWID;

-- Two, so that hosts which are well are found however many others wait in front of them.
CREATE INDEX receiver_good   ON receiver (next_at) WHERE standing = 'good' AND next_at IS NOT NULL;
CREATE INDEX receiver_others ON receiver (next_at) WHERE standing <> 'good' AND next_at IS NOT NULL;

-- Jobs whose webhook is to be told of more than the end: few, as in 0002.
CREATE TABLE news_wanted (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    events TEXT    NOT NULL  -- with commas
) STRICT;

CREATE TABLE webhook (
    id          INTEGER PRIMARY KEY,
    job_id      INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL DEFAULT 0,      -- 0 for the end of the request, from 1 for what was told before
    kind        TEXT    NOT NULL DEFAULT 'completed' CHECK (kind IN ('started', 'progress', 'completed')),
    data        TEXT,                            -- JSON; what there is to say of the end lies in job and response
    url         TEXT    NOT NULL,
    host        TEXT    NOT NULL,
    state       TEXT    NOT NULL DEFAULT 'pending'
        CHECK (state IN ('waiting', 'pending', 'sending', 'delivered', 'superseded', 'dead')),
    attempt     INTEGER NOT NULL DEFAULT 0,
    spent       INTEGER NOT NULL DEFAULT 0,      -- attempts before it was asked to be delivered again
    since       INTEGER NOT NULL,                -- when it was first due, of this round
    due_at      INTEGER NOT NULL,
    owner       TEXT,
    token       INTEGER,
    lease_until INTEGER,
    CHECK ((kind = 'completed') = (number = 0)),
    CHECK ((state = 'sending') = (owner IS NOT NULL AND token IS NOT NULL AND lease_until IS NOT NULL))
) STRICT;

CREATE TABLE webhook_attempt (
    delivery_id INTEGER NOT NULL REFERENCES webhook (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    duration    REAL    NOT NULL,
    status      INTEGER,
    error       TEXT,
    answer      BLOB    NOT NULL,
    PRIMARY KEY (delivery_id, number)
) STRICT;

-- Rows of an older file know no host; together they count as one.
INSERT INTO webhook (id, job_id, url, host, state, attempt, since, due_at, owner, token, lease_until)
SELECT id, job_id, url, '', state, attempt, due_at, due_at, owner, token, lease_until FROM delivery;
INSERT INTO webhook_attempt SELECT * FROM delivery_attempt;
DROP TABLE delivery_attempt;
DROP TABLE delivery;
ALTER TABLE webhook RENAME TO delivery;
ALTER TABLE webhook_attempt RENAME TO delivery_attempt;
INSERT INTO receiver (host, next_at) SELECT '', min(due_at) FROM delivery WHERE state = 'pending' HAVING count(*) > 0;

-- UNIQUE: a request that ended twice, by whatever accident, is told once.
CREATE UNIQUE INDEX delivery_job ON delivery (job_id, number);
CREATE INDEX delivery_due        ON delivery (host, due_at, id) WHERE state = 'pending';
CREATE INDEX delivery_sending    ON delivery (owner)            WHERE state = 'sending';
CREATE INDEX delivery_dead       ON delivery (id)               WHERE state = 'dead';

-- What follows is kept by the database, because many statements make a webhook due, and none of them is to pay with a second
-- statement: for each, the interpreter's lock is given up and taken back.

CREATE TRIGGER delivery_inserted AFTER INSERT ON delivery
BEGIN
    INSERT INTO receiver (host, next_at) VALUES (new.host, new.due_at)
    ON CONFLICT (host) DO UPDATE SET next_at = max(excluded.next_at, ifnull(held_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(held_until, 0));
END;

CREATE TRIGGER delivery_made_due AFTER UPDATE OF state, due_at ON delivery WHEN new.state = 'pending'
BEGIN
    INSERT INTO receiver (host, next_at) VALUES (new.host, new.due_at)
    ON CONFLICT (host) DO UPDATE SET next_at = max(excluded.next_at, ifnull(held_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(held_until, 0));
END;

-- The webhooks of one request go out in order. An earlier one that has failed before is not tried again: there is newer news.
CREATE TRIGGER delivery_follows AFTER INSERT ON delivery
WHEN EXISTS (SELECT 1 FROM delivery WHERE job_id = new.job_id AND id < new.id AND state IN ('waiting', 'pending', 'sending'))
BEGIN
    UPDATE delivery SET state = 'waiting' WHERE id = new.id;
    UPDATE delivery SET due_at = new.due_at
    WHERE job_id = new.job_id AND id < new.id AND state IN ('waiting', 'pending') AND due_at > new.due_at;
    UPDATE delivery SET state = 'superseded'
    WHERE job_id = new.job_id AND id < new.id AND state = 'pending' AND attempt > spent;
END;

CREATE TRIGGER delivery_ended AFTER UPDATE OF state ON delivery
WHEN new.number > 0 AND new.state IN ('delivered', 'superseded', 'dead')
BEGIN
    UPDATE delivery SET state = 'pending' WHERE id = (
        SELECT min(id) FROM delivery WHERE job_id = new.job_id AND state = 'waiting'
            AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = new.job_id AND state IN ('pending', 'sending')));
END;
