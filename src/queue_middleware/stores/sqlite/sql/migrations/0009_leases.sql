-- Leases are measured on the boot clock from now on, which no one can set; those of a file of an earlier release are over.
UPDATE job SET lease_until = 0 WHERE state = 'running';
UPDATE delivery SET lease_until = 0 WHERE state = 'sending';

-- A poll under way is held like an attempt: renewed while its process lives, free at once when that has died.
ALTER TABLE task ADD COLUMN owner TEXT;
UPDATE task SET owner = '', lease_until = 0 WHERE token IS NOT NULL;
DROP INDEX task_poll;
CREATE INDEX task_poll  ON task (poll_at) WHERE poll_at IS NOT NULL AND token IS NULL;
CREATE INDEX task_asked ON task (owner)   WHERE token IS NOT NULL;

-- What a process without anything to renew writes, to know that others could have renewed: one row for all.
CREATE TABLE pulse (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL  -- boot clock
) STRICT;
INSERT INTO pulse VALUES (1, 0);
