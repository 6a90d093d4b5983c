-- Power meters: what they said beside trials and while nothing ran. Boards without a meter have no rows here.

-- Of each trial whose power meter was to be read.
CREATE TABLE trial_power (
    trial   INTEGER PRIMARY KEY REFERENCES trials (id) ON DELETE CASCADE,
    -- Why it could not be read; then all that follows is NULL.
    fault   TEXT,
    -- Kernel driver and interface.
    driver  TEXT,
    -- Name of the rail that feeds everything measured.
    total   TEXT,
    -- CPU time that reading took.
    cpu_ns  INTEGER,
    -- [{"name", "source", "range_microjoules", "errors": [{"message", "count", "first_ns", "last_ns"}]}]
    rails   TEXT,
    -- Six series for each rail: begin of each reading by the board's monotonic clock, its duration in ns, and
    -- zigzag-coded mW, mV, mA and uJ, each empty where the driver does not give it.
    samples BLOB,
    CHECK ((fault IS NULL) = (samples IS NOT NULL))
) STRICT;

-- Of each run on a board with a power meter: what it said before the first trial, with nothing running.
CREATE TABLE idle_power (
    run                 INTEGER PRIMARY KEY REFERENCES runs (number) ON DELETE CASCADE,
    request             INTEGER NOT NULL,
    opened_monotonic_ns INTEGER NOT NULL,
    duration_ns         INTEGER NOT NULL,
    -- As in trial_power.
    driver              TEXT NOT NULL,
    total               TEXT NOT NULL,
    cpu_ns              INTEGER NOT NULL,
    rails               TEXT NOT NULL,
    samples             BLOB NOT NULL
) STRICT;
