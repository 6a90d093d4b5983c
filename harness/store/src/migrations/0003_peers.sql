-- Schedules of other inference engines. In SQLite, changing a CHECK takes a new table.

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
    -- Warnings from before the measurement: ["…"]
    warnings      TEXT NOT NULL,
    -- For a peer, which has sessions instead of stages: {"engine", "version", "threads", "sessions"}.
    -- `sessions` lists the CPUs of each session.
    peer          TEXT CHECK ((peer IS NOT NULL) = (kind = 'peer')),
    UNIQUE (run, place)
) STRICT;
INSERT INTO schedules_new (id, run, place, network, kind, label, baseline, predicted_fps, warnings)
    SELECT id, run, place, network, kind, label, baseline, predicted_fps, warnings FROM schedules;
DROP TABLE schedules;
ALTER TABLE schedules_new RENAME TO schedules;
