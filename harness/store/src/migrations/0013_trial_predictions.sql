-- Predictions from a profile of the same round (`profile.every_round` in the experiment).

-- Prediction of the trial's schedule from a profile that was made just before the schedules of its network were measured in this
-- round: {"stage_ns": [time of each stage for one frame, in ns], "throughput": frames per second}.
ALTER TABLE trials ADD COLUMN prediction TEXT;
