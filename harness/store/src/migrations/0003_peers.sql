-- Schedules of other inference engines. SQLite changes a CHECK only by a new table.

CREATE TABLE schedules_new (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    -- Number of the schedule within its run.
    place         INTEGER NOT NULL,
    network       INTEGER NOT NULL REFERENCES networks (id),
    kind          TEXT NOT NULL CHECK (kind IN ('single', 'pipeline', 'replicate', 'peer')),
    label         TEXT NOT NULL,
    -- One-stage schedules, what the others are compared with.
    baseline      INTEGER NOT NULL CHECK (baseline = (kind = 'single')),
    -- Steady rate by the profile; NULL where there was none.
    predicted_fps REAL,
    -- What was to be said about it before it was measured: ["…"]
    warnings      TEXT NOT NULL,
    -- The engine of a peer, whose sessions are in place of stages: {"engine", "version", "threads", "sessions"},
    -- sessions being the CPUs of each.
    peer          TEXT CHECK ((peer IS NOT NULL) = (kind = 'peer')),
    UNIQUE (run, place)
) STRICT;
INSERT INTO schedules_new (id, run, place, network, kind, label, baseline, predicted_fps, warnings)
    SELECT id, run, place, network, kind, label, baseline, predicted_fps, warnings FROM schedules;
DROP TABLE schedules;
ALTER TABLE schedules_new RENAME TO schedules;
