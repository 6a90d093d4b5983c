-- The state that boards are set to, and observations of it during trials.

-- {"asked", "brought": {"leftover", "found", "set"}}: the state that the board's file requests; a state that another session
-- left, which was restored first; the settings that were found then; and the settings that were set. NULL if no state was
-- requested and none was left.
ALTER TABLE runs ADD COLUMN state TEXT;
-- As in `runs`, for this resumption.
ALTER TABLE resumptions ADD COLUMN state TEXT;
-- The wait for the board to cool down before the trial: {"waited_ns", "zone", "from_milli_celsius", "to_milli_celsius"}.
ALTER TABLE trials ADD COLUMN cooling TEXT;
-- The settings of the board during the trial, read once a second: {"looks": number of reads, "cpu_ns", "lowest": [{"cpu", "khz",
-- "at_ns"}], "gpu_lowest": {"hz", "at_ns"}, "changes": [{"at_ns", "setting", "from", "to"}], "throttled": [{"group", "milli_cpus",
-- "periods", "throttled_ns"}]}, with times of the board's monotonic clock. NULL for protocol versions before 6.
ALTER TABLE measurements ADD COLUMN watched TEXT;
