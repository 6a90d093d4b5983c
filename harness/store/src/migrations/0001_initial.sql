-- Results of edgepipe. One database holds any number of runs, of any number of boards.
--
-- Raw observations are written once and never changed; whatever is derived from them is derived anew by the report.
-- What was not observed is NULL or has no row, never 0. Times are nanoseconds, `unix_ns` since 1970 (UTC).
-- JSON columns are TEXT. Columns of samples are BLOBs in the packing of harness/src/store/packed.rs: a series of
-- n whole numbers is n, then the difference of each to the one before (the first to 0), zigzag-coded; every number
-- as LEB128. Other blobs say here what follows what.

-- What `board` of a configuration names, and the model that was found there.
CREATE TABLE boards (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL,
    model TEXT
) STRICT;
CREATE UNIQUE INDEX boards_identity ON boards (name, ifnull(model, ''));

-- States of machines, without what changes from minute to minute: JSON of the protocol's MachineState, in which
-- memory_available_bytes and load_milli are 0, current_khz is null and milli_celsius is 0. Those four stand where the
-- state was taken, in a `readings` column: {"memory_available_bytes", "load_milli", "current_khz": [one a CPU],
-- "milli_celsius": [one a zone]}.
CREATE TABLE machines (
    id    INTEGER PRIMARY KEY,
    state TEXT NOT NULL UNIQUE
) STRICT;

-- Networks by what they are made of; runs share them.
CREATE TABLE networks (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    -- Where it came from: JSON, {"zoo": NAME} or {"onnx": PATH}.
    source     TEXT NOT NULL,
    -- Of the network's description by the compiler, and with it of its ONNX.
    sha256     TEXT NOT NULL,
    parameters INTEGER NOT NULL,
    -- Multiply-adds of one frame.
    macs       INTEGER NOT NULL,
    -- Units and the boundary tensors at every cut: JSON {"name", "units", "boundaries"}.
    structure  TEXT NOT NULL,
    UNIQUE (name, sha256, source, structure)
) STRICT;

-- One invocation, with everything needed to repeat it.
CREATE TABLE runs (
    number          INTEGER PRIMARY KEY,
    -- UTC date and time of the begin and a random part: 20250131-094500-1f2e3d4c. Sorts by time.
    id              TEXT NOT NULL UNIQUE,
    begun_unix_ns   INTEGER NOT NULL,
    ended_unix_ns   INTEGER,
    -- 'running' without a living process: it was killed.
    status          TEXT NOT NULL CHECK (status IN ('running', 'complete', 'interrupted', 'failed')),
    experiment      TEXT NOT NULL,
    board           INTEGER NOT NULL REFERENCES boards (id),
    -- [{"name", "cpus", "threads"}]
    processors      TEXT NOT NULL,
    -- The board before the first trial.
    machine         INTEGER NOT NULL REFERENCES machines (id),
    readings        TEXT NOT NULL,
    -- Name of the machine the harness ran on.
    host            TEXT NOT NULL,
    -- ["program", "argument", …]
    command         TEXT NOT NULL,
    -- Resolved, as YAML.
    configuration   TEXT NOT NULL,
    -- Unsigned 64 bits, kept as the signed number of the same bits.
    seed            INTEGER NOT NULL,
    -- Trials planned of each schedule.
    rounds          INTEGER NOT NULL,
    harness_version TEXT NOT NULL,
    runner_version  TEXT,
    protocol_version INTEGER NOT NULL,
    tvm_version     TEXT,
    llvm_version    TEXT,
    python_version  TEXT,
    -- NULL outside a git repository.
    git_revision    TEXT,
    git_dirty       INTEGER CHECK (git_dirty IN (0, 1)),
    -- Whatever else there is to know: JSON.
    provenance      TEXT NOT NULL,
    -- How far the run's journal has been brought in; one transaction moves this and adds the record.
    journal_bytes   INTEGER NOT NULL,
    CHECK ((git_revision IS NULL) = (git_dirty IS NULL))
) STRICT;
CREATE INDEX runs_by_time ON runs (begun_unix_ns);

-- The times a run was taken up again after it had been cut off.
CREATE TABLE resumptions (
    run     INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    unix_ns INTEGER NOT NULL,
    command TEXT NOT NULL,
    PRIMARY KEY (run, unix_ns)
) STRICT, WITHOUT ROWID;

CREATE TABLE run_networks (
    run     INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    -- In the order of the experiment.
    place   INTEGER NOT NULL,
    network INTEGER NOT NULL REFERENCES networks (id),
    -- Numbers of the units that the compiler has no schedule rule for: [n, …]
    fallback_units TEXT NOT NULL,
    PRIMARY KEY (run, place)
) STRICT, WITHOUT ROWID;

-- Raw profile of a network on a processor.
CREATE TABLE profiles (
    run            INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    network        INTEGER NOT NULL REFERENCES networks (id),
    processor      TEXT NOT NULL,
    request        INTEGER NOT NULL,
    -- Number of kernel calls; then for each its unit and its series of durations, one a frame.
    calls          BLOB NOT NULL,
    -- Series of durations of whole frames without the instrument, then of those with it.
    frames         BLOB NOT NULL,
    resident_bytes INTEGER NOT NULL,
    PRIMARY KEY (run, network, processor)
) STRICT, WITHOUT ROWID;

-- Raw timings of handing a buffer from one processor to another.
CREATE TABLE transfers (
    run            INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    from_processor TEXT NOT NULL,
    to_processor   TEXT NOT NULL,
    request        INTEGER NOT NULL,
    -- Number of sizes; then for each its bytes, the series of first readings and that of second readings.
    sizes          BLOB NOT NULL,
    PRIMARY KEY (run, from_processor, to_processor)
) STRICT, WITHOUT ROWID;

-- What was planned to be measured.
CREATE TABLE schedules (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    -- Number of the schedule within its run.
    place         INTEGER NOT NULL,
    network       INTEGER NOT NULL REFERENCES networks (id),
    kind          TEXT NOT NULL CHECK (kind IN ('single', 'pipeline', 'replicate')),
    label         TEXT NOT NULL,
    -- One-stage schedules, what the others are compared with.
    baseline      INTEGER NOT NULL CHECK (baseline = (kind = 'single')),
    -- Steady rate by the profile; NULL where there was none.
    predicted_fps REAL,
    -- What was to be said about it before it was measured: ["…"]
    warnings      TEXT NOT NULL,
    UNIQUE (run, place)
) STRICT;

CREATE TABLE stages (
    schedule     INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    place        INTEGER NOT NULL,
    processor    TEXT NOT NULL,
    first_unit   INTEGER NOT NULL,
    end_unit     INTEGER NOT NULL CHECK (end_unit > first_unit),
    predicted_ns REAL,
    PRIMARY KEY (schedule, place)
) STRICT, WITHOUT ROWID;

-- Outputs of a schedule against those of another on the same frames.
CREATE TABLE comparisons (
    id        INTEGER PRIMARY KEY,
    schedule  INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    -- Its outputs were taken as right.
    reference INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    request   INTEGER NOT NULL,
    -- Largest max_abs / max_reference allowed.
    tolerance REAL NOT NULL,
    frames    INTEGER NOT NULL,
    -- [{"name", "elements", "non_finite", "max_abs", "max_reference", "identical"}]
    outputs   TEXT NOT NULL
) STRICT;
CREATE INDEX comparisons_of_schedule ON comparisons (schedule);

-- Executions of schedules. A failed one has a fault and a message and no measurement.
CREATE TABLE trials (
    id            INTEGER PRIMARY KEY,
    schedule      INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    -- Trials of one round ran next to one another.
    round         INTEGER NOT NULL,
    -- Place in the interleaved order of the run.
    position      INTEGER NOT NULL,
    begun_unix_ns INTEGER NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('measured', 'failed')),
    fault         TEXT,
    message       TEXT,
    CHECK ((status = 'failed') = (message IS NOT NULL))
) STRICT;
CREATE INDEX trials_of_schedule ON trials (schedule, position);

CREATE TABLE measurements (
    trial               INTEGER PRIMARY KEY REFERENCES trials (id) ON DELETE CASCADE,
    request             INTEGER NOT NULL,
    -- The window opens with the completion of a frame that is not counted.
    opened_unix_ns      INTEGER NOT NULL,
    opened_monotonic_ns INTEGER NOT NULL,
    frames              INTEGER NOT NULL,
    -- Series: completion of each frame since the opening.
    completed_ns        BLOB NOT NULL,
    -- Series: from entering the first stage to completion.
    latency_ns          BLOB NOT NULL,
    -- Series: stage that completed each frame; empty unless replicated.
    completed_by        BLOB NOT NULL,
    -- Series: completion of each frame before the window, since the first was let in.
    warm_up_ns          BLOB NOT NULL,
    warm_up_steady      INTEGER NOT NULL CHECK (warm_up_steady IN (0, 1)),
    -- Number of stages, then for each the series of its durations alone.
    isolated_ns         BLOB NOT NULL,
    -- Four series: frame, stage, and zigzag-coded begin and end since the opening.
    timeline            BLOB NOT NULL,
    -- Load of the schedule's CPUs over the window.
    wall_ns             INTEGER NOT NULL,
    steal_ns            INTEGER,
    busy_ns             INTEGER,
    runner_ns           INTEGER NOT NULL,
    overhead_ns         INTEGER NOT NULL,
    machine_before      INTEGER NOT NULL REFERENCES machines (id),
    readings_before     TEXT NOT NULL,
    machine_after       INTEGER NOT NULL REFERENCES machines (id),
    readings_after      TEXT NOT NULL,
    weights_bytes       INTEGER NOT NULL,
    resident_bytes      INTEGER NOT NULL,
    anonymous_bytes     INTEGER NOT NULL
) STRICT;

-- Each stage during a window.
CREATE TABLE occupancies (
    trial                INTEGER NOT NULL REFERENCES trials (id) ON DELETE CASCADE,
    stage                INTEGER NOT NULL,
    frames               INTEGER NOT NULL,
    busy_ns              INTEGER NOT NULL,
    waiting_input_ns     INTEGER NOT NULL,
    waiting_output_ns    INTEGER NOT NULL,
    cpu_ns               INTEGER NOT NULL,
    minor_faults         INTEGER NOT NULL,
    major_faults         INTEGER NOT NULL,
    voluntary_switches   INTEGER NOT NULL,
    involuntary_switches INTEGER NOT NULL,
    PRIMARY KEY (trial, stage)
) STRICT, WITHOUT ROWID;
