-- Queues of a stream that the planner chose (`queue: auto`, `queue_depth: auto` in the experiment).

-- Frames that can wait under a stream, if the planner chose them: {"before", "before_chosen", "between", "between_chosen",
-- "expected": {"dropped", "late"}, "reason"}.
ALTER TABLE schedules ADD COLUMN queues TEXT;
