-- Campaigns on several boards, and why a run ended.

-- One invocation of `bench` on several boards; it has one run per board.
CREATE TABLE campaigns (
    number INTEGER PRIMARY KEY,
    -- In the same format as a run's id.
    id     TEXT NOT NULL UNIQUE,
    -- 'repeat': every board measures everything; 'spread': equal boards share the rounds.
    mode   TEXT NOT NULL CHECK (mode IN ('repeat', 'spread')),
    -- Names of all requested boards, in order: JSON. A board without a run was not available.
    boards TEXT NOT NULL
) STRICT;

-- The campaign of which the run is a part.
ALTER TABLE runs ADD COLUMN campaign INTEGER REFERENCES campaigns (number);
-- The error that ended the run.
ALTER TABLE runs ADD COLUMN ended_because TEXT;
