-- Power meters: readings during trials and of the idle board. Boards without a meter have no rows here.

-- Readings of the power meter for each trial on a board with a meter.
CREATE TABLE trial_power (
    trial   INTEGER PRIMARY KEY REFERENCES trials (id) ON DELETE CASCADE,
    -- Why the meter could not be read; all columns below are then NULL.
    fault   TEXT,
    -- Kernel driver and interface.
    driver  TEXT,
    -- Name of the rail that supplies everything measured, or names of the rails of a sum, such as GPU + CPU.
    total   TEXT,
    -- CPU time used for reading.
    cpu_ns  INTEGER,
    -- [{"name", "source", "range_microjoules", "errors": [{"message", "count", "first_ns", "last_ns"}]}]
    rails   TEXT,
    -- Six series per rail: start of each reading by the board's monotonic clock, its duration in ns, and
    -- zigzag-encoded mW, mV, mA and uJ. A series is empty if the driver does not provide it.
    samples BLOB,
    CHECK ((fault IS NULL) = (samples IS NOT NULL))
) STRICT;

-- Readings of the power meter before the first trial of a run, while nothing runs.
CREATE TABLE idle_power (
    run                 INTEGER PRIMARY KEY REFERENCES runs (number) ON DELETE CASCADE,
    request             INTEGER NOT NULL,
    opened_monotonic_ns INTEGER NOT NULL,
    duration_ns         INTEGER NOT NULL,
    -- Same as in trial_power.
    driver              TEXT NOT NULL,
    total               TEXT NOT NULL,
    cpu_ns              INTEGER NOT NULL,
    rails               TEXT NOT NULL,
    samples             BLOB NOT NULL
) STRICT;
