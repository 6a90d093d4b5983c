-- Schedules on the CPUs of several processors as one: the kind `merged`. Their processors are in `runs`.processors, with names
-- such as `a57+denver`.

CREATE TABLE schedules_new (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    -- Number of the schedule in its run.
    place         INTEGER NOT NULL,
    network       INTEGER NOT NULL REFERENCES networks (id),
    kind          TEXT NOT NULL CHECK (kind IN ('single', 'merged', 'pipeline', 'replicate', 'peer')),
    label         TEXT NOT NULL,
    -- 1 for schedules on a single processor of the board: the others are compared with these.
    baseline      INTEGER NOT NULL CHECK (baseline = (kind = 'single')),
    -- Throughput predicted from the profile; NULL without a profile.
    predicted_fps REAL,
    -- For a peer, which has sessions instead of stages: {"engine", "version", "threads", "sessions", "gpu": {"provider",
    -- "processor"}}. `sessions` lists the CPUs of each session. `gpu` is absent if the CPUs compute.
    peer          TEXT CHECK ((peer IS NOT NULL) = (kind = 'peer')),
    -- Number of the operating point.
    point         INTEGER NOT NULL DEFAULT 0,
    UNIQUE (run, place)
) STRICT;
INSERT INTO schedules_new (id, run, place, network, kind, label, baseline, predicted_fps, peer, point)
    SELECT id, run, place, network, kind, label, baseline, predicted_fps, peer, point FROM schedules;
DROP TABLE schedules;
ALTER TABLE schedules_new RENAME TO schedules;
