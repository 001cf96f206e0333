-- Lines are written, read and deleted in batches, so a batch is a row.
CREATE TABLE log (
    job_id INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL CHECK (number >= 1),  -- of its last line; the first line of a job is 1, over all attempts
    lines  BLOB    NOT NULL,  -- MessagePack
    PRIMARY KEY (job_id, number)
) STRICT;
