-- Results of edgepipe. One database holds any number of runs, of any number of boards.
--
-- Raw observations are written once and never changed. Reports compute everything else from them.
-- A value that was not observed is NULL or has no row; it is never 0. Times are nanoseconds; `unix_ns` counts from 1970 (UTC).
-- JSON columns are TEXT. Columns of samples are BLOBs, encoded as in domain/src/packed.rs: a series of n integers is n,
-- then the difference of each integer to the previous one (of the first to 0), zigzag-encoded; every number as LEB128.
-- The comments describe the order of the parts of other BLOBs.

-- Boards by the name in their file, and the model that was detected.
CREATE TABLE boards (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL,
    model TEXT
) STRICT;
CREATE UNIQUE INDEX boards_identity ON boards (name, ifnull(model, ''));

-- States of machines: JSON of the protocol's MachineState. Values that change from minute to minute are stored in the
-- `readings` columns of other tables instead: {"memory_available_bytes", "load_milli", "current_khz": [one per CPU],
-- "milli_celsius": [one per zone], "gpu_hz", "emc_hz", "silent_zones"}; the last five are absent if the machine reports none.
-- Here, these values are 0, null or absent.
CREATE TABLE machines (
    id    INTEGER PRIMARY KEY,
    state TEXT NOT NULL UNIQUE
) STRICT;

-- Networks, identified by content. Runs with the same network share its row.
CREATE TABLE networks (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    -- Origin of the network: JSON, {"zoo": NAME} or {"onnx": PATH}; also "precision": "fp16" and "winograd": "off" if the
    -- network's file sets them.
    source     TEXT NOT NULL,
    -- Hash of the compiler's description of the network, which includes the ONNX file's content.
    sha256     TEXT NOT NULL,
    parameters INTEGER NOT NULL,
    -- Multiply-adds per frame.
    macs       INTEGER NOT NULL,
    -- Units, and boundary tensors at each cut: JSON {"name", "units", "boundaries"}.
    structure  TEXT NOT NULL,
    UNIQUE (name, sha256, source, structure)
) STRICT;

-- One invocation of `bench` or `optimize` on one board, with everything needed to repeat it.
CREATE TABLE runs (
    number          INTEGER PRIMARY KEY,
    -- UTC date and time of the start, and a random part: 20250131-094500-1f2e3d4c. Sorts by time.
    id              TEXT NOT NULL UNIQUE,
    begun_unix_ns   INTEGER NOT NULL,
    ended_unix_ns   INTEGER,
    -- A run that was killed stays 'running', because no process is left to change it.
    status          TEXT NOT NULL CHECK (status IN ('running', 'complete', 'interrupted', 'failed')),
    experiment      TEXT NOT NULL,
    board           INTEGER NOT NULL REFERENCES boards (id),
    -- A list, with {"name", "kind": "cpu", "cpus", "threads", "mcpu"} for CPUs, and {"name", "kind": "cuda", "arch", "device",
    -- "host_cpus", "gpu": {"device", "driver_path", "driver_version", "emulated"}} for a GPU.
    processors      TEXT NOT NULL,
    -- The board before the first trial.
    machine         INTEGER NOT NULL REFERENCES machines (id),
    readings        TEXT NOT NULL,
    -- Name of the machine on which the harness ran.
    host            TEXT NOT NULL,
    -- ["program", "argument", …]
    command         TEXT NOT NULL,
    -- The resolved configuration, as YAML.
    configuration   TEXT NOT NULL,
    -- An unsigned 64-bit number, stored as the signed number with the same bits.
    seed            INTEGER NOT NULL,
    -- Planned number of trials per schedule.
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
    -- Further versions and facts: JSON.
    provenance      TEXT NOT NULL,
    -- How much of the run's journal has been imported. One transaction adds a record and increases this number.
    journal_bytes   INTEGER NOT NULL,
    CHECK ((git_revision IS NULL) = (git_dirty IS NULL))
) STRICT;
CREATE INDEX runs_by_time ON runs (begun_unix_ns);

-- Each time that an interrupted run was resumed.
CREATE TABLE resumptions (
    run     INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    unix_ns INTEGER NOT NULL,
    command TEXT NOT NULL,
    PRIMARY KEY (run, unix_ns)
) STRICT, WITHOUT ROWID;

CREATE TABLE run_networks (
    run     INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    -- Position in the experiment.
    place   INTEGER NOT NULL,
    network INTEGER NOT NULL REFERENCES networks (id),
    -- Numbers of the units without a schedule rule in the compiler: [n, …]
    fallback_units TEXT NOT NULL,
    PRIMARY KEY (run, place)
) STRICT, WITHOUT ROWID;

-- Raw profile of a network on a processor.
CREATE TABLE profiles (
    run            INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    network        INTEGER NOT NULL REFERENCES networks (id),
    processor      TEXT NOT NULL,
    request        INTEGER NOT NULL,
    -- Number of kernel calls; then for each call its unit and the series of its durations, one per frame.
    calls          BLOB NOT NULL,
    -- Series of durations of frames without timed kernels, then series of durations of frames with timed kernels.
    frames         BLOB NOT NULL,
    resident_bytes INTEGER NOT NULL,
    PRIMARY KEY (run, network, processor)
) STRICT, WITHOUT ROWID;

-- Raw times of the hand-over of a buffer between two processors.
CREATE TABLE transfers (
    run            INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    from_processor TEXT NOT NULL,
    to_processor   TEXT NOT NULL,
    request        INTEGER NOT NULL,
    -- Number of sizes; then for each size its bytes, and two series: durations of the first and of the second read of each
    -- hand-over.
    sizes          BLOB NOT NULL,
    PRIMARY KEY (run, from_processor, to_processor)
) STRICT, WITHOUT ROWID;

-- Planned schedules.
CREATE TABLE schedules (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    -- Number of the schedule in its run.
    place         INTEGER NOT NULL,
    network       INTEGER NOT NULL REFERENCES networks (id),
    kind          TEXT NOT NULL CHECK (kind IN ('single', 'pipeline', 'replicate')),
    label         TEXT NOT NULL,
    -- 1 for schedules with one stage, with which others are compared.
    baseline      INTEGER NOT NULL CHECK (baseline = (kind = 'single')),
    -- Throughput predicted from the profile; NULL without a profile.
    predicted_fps REAL,
    -- Warnings from before the measurement: ["…"]
    warnings      TEXT NOT NULL,
    UNIQUE (run, place)
) STRICT;

-- Stages of schedules. A stage on several processors has a row for each of them: adjacent rows with the same units.
CREATE TABLE stages (
    schedule     INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    place        INTEGER NOT NULL,
    processor    TEXT NOT NULL,
    first_unit   INTEGER NOT NULL,
    end_unit     INTEGER NOT NULL CHECK (end_unit > first_unit),
    predicted_ns REAL,
    PRIMARY KEY (schedule, place)
) STRICT, WITHOUT ROWID;

-- Comparisons of the outputs of two schedules on the same frames.
CREATE TABLE comparisons (
    id        INTEGER PRIMARY KEY,
    schedule  INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    -- The schedule whose outputs are the reference.
    reference INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    request   INTEGER NOT NULL,
    -- Largest allowed max_abs / max_reference.
    tolerance REAL NOT NULL,
    frames    INTEGER NOT NULL,
    -- [{"name", "elements", "non_finite", "max_abs", "max_reference", "identical"}]
    outputs   TEXT NOT NULL
) STRICT;
CREATE INDEX comparisons_of_schedule ON comparisons (schedule);

-- Executions of schedules. A failed trial has a fault and a message, but no measurement.
CREATE TABLE trials (
    id            INTEGER PRIMARY KEY,
    schedule      INTEGER NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    -- Trials of the same round ran one after the other.
    round         INTEGER NOT NULL,
    -- Position in the order of execution.
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
    -- The window begins when a frame completes; that frame is not counted.
    opened_unix_ns      INTEGER NOT NULL,
    opened_monotonic_ns INTEGER NOT NULL,
    frames              INTEGER NOT NULL,
    -- Series: time of completion of each frame, from the start of the window.
    completed_ns        BLOB NOT NULL,
    -- Series: latency of each frame, from its start in the first stage to completion.
    latency_ns          BLOB NOT NULL,
    -- Series: the stage that completed each frame; empty unless the schedule is a replicate or a peer with several sessions.
    completed_by        BLOB NOT NULL,
    -- Series: time of completion of each warm-up frame, from the start of the first frame.
    warm_up_ns          BLOB NOT NULL,
    warm_up_steady      INTEGER NOT NULL CHECK (warm_up_steady IN (0, 1)),
    -- Number of stages; then for each stage the series of its durations when it ran by itself.
    isolated_ns         BLOB NOT NULL,
    -- Four series: frame, stage, and zigzag-encoded start and end times from the start of the window.
    timeline            BLOB NOT NULL,
    -- Time from the reading of CPU times when the window opened to the reading when it closed. The next columns are CPU times
    -- in between: stolen from the schedule's CPUs, busy on these CPUs, used by the runner, and used by the runner's threads that
    -- belong to no stage.
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

-- Activity of each stage during the window.
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
