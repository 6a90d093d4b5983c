-- Trials under a load that is a stream (`load: { stream: … }` in the experiment): arrivals and drops of frames.

-- Frames of a stream during a measured window. Trials without a stream have no row. In `measurements`, `latency_ns` counts
-- from the first stage also for streams.
CREATE TABLE streams (
    trial             INTEGER PRIMARY KEY REFERENCES trials (id) ON DELETE CASCADE,
    -- {"fps", "streams", "queue", "policy", "arrivals", "deadline_ns", "seed"}.
    load              TEXT NOT NULL,
    -- Series of scheduled arrivals in the window, in ns since it opened.
    scheduled_ns      BLOB NOT NULL,
    -- Series: how much later the source offered each of these frames.
    late_ns           BLOB NOT NULL,
    -- Series: how many frames were waiting when each of these frames was offered.
    waiting           BLOB NOT NULL,
    -- Series: stream of each of these frames, from 0; empty with one stream.
    stream            BLOB NOT NULL,
    -- Series of drops in the window: when, in ns since it opened.
    dropped_ns        BLOB NOT NULL,
    -- Series: time of each dropped frame since its scheduled arrival.
    dropped_since_ns  BLOB NOT NULL,
    -- Series: stream of each dropped frame; empty with one stream.
    dropped_stream    BLOB NOT NULL,
    -- Series: time of each completed frame since its scheduled arrival, in the order of `measurements`.completed_ns.
    since_arrival_ns  BLOB NOT NULL,
    -- Series: stream of each completed frame; empty with one stream.
    completed_stream  BLOB NOT NULL,
    -- CPU time of the source in the window.
    source_cpu_ns     INTEGER NOT NULL,
    -- 1 if the source ran on CPUs that no stage uses.
    source_apart      INTEGER NOT NULL CHECK (source_apart IN (0, 1)),
    -- Counts and histograms of the whole window if the series are full: {"arrived", "dropped", "completed", "closed_ns",
    -- "since_arrival", "between", "late", "waiting"}. A histogram is {"up_to_ns", "counts"}.
    rest              TEXT
) STRICT;
