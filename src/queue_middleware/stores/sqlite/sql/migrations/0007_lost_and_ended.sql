-- A request that lost its process may be what ended it. Until it has ended it is run while no other one of them is: they stay
-- delayed, and one at a time is let into the queue. Few, so a table of their own, as in 0002.
CREATE TABLE suspect (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    reason TEXT NOT NULL  -- of the last loss
) STRICT;

-- How often in a row a request was handed back by a process that ended in order.
CREATE TABLE handed_back (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    times  INTEGER NOT NULL CHECK (times >= 1)
) STRICT;

-- What the process that accepted it wants; whichever finds it lost acts on it.
ALTER TABLE job ADD COLUMN fails_on_crash INTEGER NOT NULL DEFAULT 0 CHECK (fails_on_crash IN (0, 1));

-- How many ended how, of those that are kept. Triggers, so that no statement can forget it, and within the statement that ends
-- a whole batch of jobs.
CREATE TABLE outcome (
    name TEXT    PRIMARY KEY,  -- '2xx' to '5xx', 'other', 'failed', 'cancelled'
    jobs INTEGER NOT NULL CHECK (jobs >= 0)
) STRICT, WITHOUT ROWID;

INSERT INTO outcome
SELECT CASE WHEN state <> 'completed' THEN state WHEN status BETWEEN 200 AND 599 THEN (status / 100) || 'xx' ELSE 'other' END, count(*)
FROM job WHERE finished_at IS NOT NULL GROUP BY 1;

CREATE TRIGGER job_has_ended AFTER UPDATE OF finished_at ON job WHEN old.finished_at IS NULL AND new.finished_at IS NOT NULL BEGIN
    INSERT INTO outcome VALUES (
        CASE WHEN new.state <> 'completed' THEN new.state
            WHEN new.status BETWEEN 200 AND 599 THEN (new.status / 100) || 'xx' ELSE 'other' END, 1)
    ON CONFLICT (name) DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_is_no_longer_kept AFTER DELETE ON job WHEN old.finished_at IS NOT NULL BEGIN
    UPDATE outcome SET jobs = jobs - 1 WHERE name = CASE WHEN old.state <> 'completed' THEN old.state
        WHEN old.status BETWEEN 200 AND 599 THEN (old.status / 100) || 'xx' ELSE 'other' END;
END;
