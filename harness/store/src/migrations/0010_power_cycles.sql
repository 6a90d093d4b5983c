-- Boards of a farm whose power was cut and restored within a run.

-- Each time that the power of the board was cut and restored because it did not answer.
CREATE TABLE power_cycles (
    run     INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    unix_ns INTEGER NOT NULL,
    -- Place of the board on the farm.
    place   TEXT NOT NULL,
    -- Why: the error of the connection.
    reason  TEXT NOT NULL,
    PRIMARY KEY (run, unix_ns)
) STRICT, WITHOUT ROWID;
