-- The state boards are brought to, and how it was during trials.

-- {"asked", "brought": {"leftover", "found", "set"}}: what the board's file asks for, what was found and set, and what
-- another session had left to be restored. NULL where nothing was asked.
ALTER TABLE runs ADD COLUMN state TEXT;
-- The same, each time.
ALTER TABLE resumptions ADD COLUMN state TEXT;
-- What it waited for before it began: {"waited_ns", "zone", "from_milli_celsius", "to_milli_celsius"}.
ALTER TABLE trials ADD COLUMN cooling TEXT;
-- {"looks", "cpu_ns", "lowest": [{"cpu", "khz", "at_ns"}], "changes": [{"at_ns", "setting", "from", "to"}]}, times by the
-- board's monotonic clock. NULL in runs of protocols before the sixth.
ALTER TABLE measurements ADD COLUMN watched TEXT;
