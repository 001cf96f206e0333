-- The webhooks of one submitter to one host are a flow: it has its own health, and flows of one host take turns. So a submitter
-- whose endpoint at a shared host (a relay, a tunnel) fails holds up nothing of another. What is known of the host as a whole
-- stays in `receiver`: whether connections to it are made at all.
CREATE TABLE flow (
    flow          TEXT    PRIMARY KEY,           -- the host, a space, the client of the job
    host          TEXT    NOT NULL,
    standing      TEXT    NOT NULL DEFAULT 'new' CHECK (standing IN ('new', 'good', 'slow', 'failing', 'open')),
    failures      INTEGER NOT NULL DEFAULT 0,    -- in a row
    failing_since INTEGER,
    held_until    INTEGER,                       -- nothing is sent before, but for one probe after it
    next_at       INTEGER,                       -- its turn: not before something is due; NULL: nothing waits
    used_at       INTEGER NOT NULL DEFAULT 0,
    CHECK ((standing IN ('failing', 'open')) = (failures > 0 AND failing_since IS NOT NULL)),
    CHECK (held_until IS NULL OR standing = 'open')
) STRICT, WITHOUT ROWID;

CREATE INDEX flow_turn   ON flow (host, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX flow_unused ON flow (used_at)       WHERE next_at IS NULL;

-- Marks of flows that have failed since the host last answered one well, with spaces; kept until they are several.
ALTER TABLE receiver ADD COLUMN suspects TEXT NOT NULL DEFAULT '';

ALTER TABLE delivery ADD COLUMN flow TEXT NOT NULL DEFAULT '';
UPDATE delivery SET flow = host || ' ' || (SELECT client FROM job WHERE job.id = job_id);
INSERT INTO flow (flow, host, standing, failures, failing_since, held_until, next_at)
SELECT delivery.flow, delivery.host, ifnull(standing, 'new'), ifnull(failures, 0), failing_since, held_until,
    max(min(due_at), ifnull(held_until, 0))
FROM delivery LEFT JOIN receiver ON receiver.host = delivery.host WHERE state = 'pending' GROUP BY delivery.flow;
UPDATE receiver SET standing = 'new', failures = 0, failing_since = NULL, held_until = NULL WHERE standing IN ('failing', 'open');

DROP INDEX delivery_due;
CREATE INDEX delivery_due ON delivery (flow, due_at, id) WHERE state = 'pending';

DROP TRIGGER delivery_inserted;
DROP TRIGGER delivery_made_due;

CREATE TRIGGER delivery_inserted AFTER INSERT ON delivery
BEGIN
    INSERT INTO flow (flow, host, next_at) VALUES (new.flow, new.host, new.due_at)
    ON CONFLICT (flow) DO UPDATE SET next_at = max(excluded.next_at, ifnull(held_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(held_until, 0));
    INSERT INTO receiver (host, next_at) VALUES (new.host, new.due_at)
    ON CONFLICT (host) DO UPDATE SET next_at = max(excluded.next_at, ifnull(held_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(held_until, 0));
END;

CREATE TRIGGER delivery_made_due AFTER UPDATE OF state, due_at ON delivery WHEN new.state = 'pending'
BEGIN
    INSERT INTO flow (flow, host, next_at) VALUES (new.flow, new.host, new.due_at)
    ON CONFLICT (flow) DO UPDATE SET next_at = max(excluded.next_at, ifnull(held_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(held_until, 0));
    INSERT INTO receiver (host, next_at) VALUES (new.host, new.due_at)
    ON CONFLICT (host) DO UPDATE SET next_at = max(excluded.next_at, ifnull(held_until, 0))
    WHERE next_at IS NULL OR next_at > max(excluded.next_at, ifnull(held_until, 0));
END;
