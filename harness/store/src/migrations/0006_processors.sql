-- GPUs as processors, contended profiles as a column, and no warnings of schedules, which were always empty.

-- Stages on GPUs: JSON, a list of the protocol's CudaStage. NULL if the schedule has none.
ALTER TABLE measurements ADD COLUMN cuda TEXT;

-- [{"name", "kind": "cpu", "cpus", "threads", "mcpu"}] or
-- [{"name", "kind": "cuda", "arch", "device", "host_cpus", "gpu": {"device", "driver_path", "driver_version",
-- "emulated"}}], where "gpu" has the device as its driver describes it. `mcpu` is absent in runs before this version.
UPDATE runs SET processors =
        (SELECT json_group_array(json_set(each.value, '$.kind', 'cpu')) FROM json_each(runs.processors) AS each)
    WHERE json_valid(processors) AND json_type(processors) = 'array';

-- Raw profile of a network on a processor.
CREATE TABLE profiles_new (
    run            INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    network        INTEGER NOT NULL REFERENCES networks (id),
    processor      TEXT NOT NULL,
    -- 1: all other processors were busy; only `frames` has samples.
    contended      INTEGER NOT NULL CHECK (contended IN (0, 1)),
    request        INTEGER NOT NULL,
    -- Number of kernel calls; then for each call its unit and the series of its durations, one per frame.
    calls          BLOB NOT NULL,
    -- Series of durations of frames without timed kernels, then series of durations of frames with timed kernels.
    frames         BLOB NOT NULL,
    resident_bytes INTEGER NOT NULL,
    -- The stage on a GPU: JSON of the protocol's CudaStage. NULL on CPUs.
    cuda           TEXT,
    PRIMARY KEY (run, network, processor, contended)
) STRICT, WITHOUT ROWID;
INSERT INTO profiles_new (run, network, processor, contended, request, calls, frames, resident_bytes)
    SELECT run, network,
           CASE WHEN processor LIKE '% with all others busy'
                THEN substr(processor, 1, length(processor) - length(' with all others busy')) ELSE processor END,
           processor LIKE '% with all others busy', request, calls, frames, resident_bytes
    FROM profiles;
DROP TABLE profiles;
ALTER TABLE profiles_new RENAME TO profiles;

CREATE TABLE schedules_new (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    -- Number of the schedule in its run.
    place         INTEGER NOT NULL,
    network       INTEGER NOT NULL REFERENCES networks (id),
    kind          TEXT NOT NULL CHECK (kind IN ('single', 'pipeline', 'replicate', 'peer')),
    label         TEXT NOT NULL,
    -- 1 for schedules with one stage, with which others are compared.
    baseline      INTEGER NOT NULL CHECK (baseline = (kind = 'single')),
    -- Throughput predicted from the profile; NULL without a profile.
    predicted_fps REAL,
    -- For a peer, which has sessions instead of stages: {"engine", "version", "threads", "sessions"}.
    -- `sessions` lists the CPUs of each session.
    peer          TEXT CHECK ((peer IS NOT NULL) = (kind = 'peer')),
    UNIQUE (run, place)
) STRICT;
INSERT INTO schedules_new (id, run, place, network, kind, label, baseline, predicted_fps, peer)
    SELECT id, run, place, network, kind, label, baseline, predicted_fps, peer FROM schedules;
DROP TABLE schedules;
ALTER TABLE schedules_new RENAME TO schedules;
