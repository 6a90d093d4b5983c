-- Operating points: settings of a board that decide speed and power, which a search changes within a run.

-- The operating points that a run has set. Number 0, the point of the board's file, is here only if there are others.
CREATE TABLE operating_points (
    run    INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    -- {"power_mode": {"id", "name"}, "governor", "max_khz": {PROCESSOR: kHz}, "memory_khz"}. A processor that is offline, or
    -- whose clock is not known, is absent; so are governor and memory clock if the points do not differ in them.
    point  TEXT NOT NULL,
    -- {"asked", "brought"} as in `runs`.state, from the latest time that the point was set; NULL if it asks for nothing.
    state  TEXT,
    -- The power meter while nothing ran at this point: JSON of the protocol's Idled. NULL if it was not read; for point 0 see
    -- `idle_power`.
    idle   TEXT,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;

-- Number of the operating point.
ALTER TABLE schedules ADD COLUMN point INTEGER NOT NULL DEFAULT 0;

-- Raw profile of a network on a processor.
CREATE TABLE profiles_new (
    run            INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    network        INTEGER NOT NULL REFERENCES networks (id),
    processor      TEXT NOT NULL,
    -- 1: all other processors were busy; only `frames` has samples.
    contended      INTEGER NOT NULL CHECK (contended IN (0, 1)),
    -- Number of the operating point.
    point          INTEGER NOT NULL,
    request        INTEGER NOT NULL,
    -- Number of kernel calls; then for each call its unit and the series of its durations, one per frame.
    calls          BLOB NOT NULL,
    -- Series of durations of frames without timed kernels, then series of durations of frames with timed kernels.
    frames         BLOB NOT NULL,
    resident_bytes INTEGER NOT NULL,
    -- The stage on a GPU: JSON of the protocol's CudaStage. NULL on CPUs.
    cuda           TEXT,
    PRIMARY KEY (run, network, processor, contended, point)
) STRICT, WITHOUT ROWID;
INSERT INTO profiles_new (run, network, processor, contended, point, request, calls, frames, resident_bytes, cuda)
    SELECT run, network, processor, contended, 0, request, calls, frames, resident_bytes, cuda FROM profiles;
DROP TABLE profiles;
ALTER TABLE profiles_new RENAME TO profiles;

-- Raw timings of hand-overs between two processors.
CREATE TABLE transfers_new (
    run            INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    from_processor TEXT NOT NULL,
    to_processor   TEXT NOT NULL,
    -- Number of the operating point.
    point          INTEGER NOT NULL,
    request        INTEGER NOT NULL,
    -- Number of sizes; then for each size its bytes, and two series: durations of the first and of the second read of each
    -- hand-over.
    sizes          BLOB NOT NULL,
    PRIMARY KEY (run, from_processor, to_processor, point)
) STRICT, WITHOUT ROWID;
INSERT INTO transfers_new (run, from_processor, to_processor, point, request, sizes)
    SELECT run, from_processor, to_processor, 0, request, sizes FROM transfers;
DROP TABLE transfers;
ALTER TABLE transfers_new RENAME TO transfers;
