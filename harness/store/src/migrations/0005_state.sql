-- The state that boards are set to, and observations of it during trials.

-- {"asked", "brought": {"leftover", "found", "set"}}: the state in the board's file, the state that was found, the state
-- that was set, and a state left by another session that was restored first. NULL if the file names no state.
ALTER TABLE runs ADD COLUMN state TEXT;
-- As in `runs`, for this resumption.
ALTER TABLE resumptions ADD COLUMN state TEXT;
-- The wait for the board to cool down before the trial: {"waited_ns", "zone", "from_milli_celsius", "to_milli_celsius"}.
ALTER TABLE trials ADD COLUMN cooling TEXT;
-- {"looks", "cpu_ns", "lowest": [{"cpu", "khz", "at_ns"}], "changes": [{"at_ns", "setting", "from", "to"}]}, with times of the
-- board's monotonic clock. NULL for protocol versions before 6.
ALTER TABLE measurements ADD COLUMN watched TEXT;
