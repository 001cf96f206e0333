-- Jobs whose submitter does not want their answers stored: few, so a table of their own and no column that all would carry.
CREATE TABLE short_lived (
    job_id INTEGER PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE
) STRICT;
