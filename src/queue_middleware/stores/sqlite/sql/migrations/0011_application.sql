-- The application whose requests these are; a process of another one does not open the database. One row, or none yet.
CREATE TABLE application (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    name TEXT NOT NULL
) STRICT;
