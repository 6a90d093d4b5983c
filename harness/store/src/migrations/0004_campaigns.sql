-- Runs on several boards by one invocation, and why a run ended.

-- One `bench` on several boards, which is a run on each of them.
CREATE TABLE campaigns (
    number INTEGER PRIMARY KEY,
    -- Made as a run's.
    id     TEXT NOT NULL UNIQUE,
    -- 'repeat': every board measures everything; 'spread': equal boards share the rounds.
    mode   TEXT NOT NULL CHECK (mode IN ('repeat', 'spread')),
    -- Names of all boards asked for: JSON, in that order. One without a run could not be had.
    boards TEXT NOT NULL
) STRICT;

-- The campaign it is a part of.
ALTER TABLE runs ADD COLUMN campaign INTEGER REFERENCES campaigns (number);
-- The error that ended it.
ALTER TABLE runs ADD COLUMN ended_because TEXT;
