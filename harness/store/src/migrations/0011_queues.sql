-- Queues of a stream that the planner chose (`queue: auto`, `queue_depth: auto` in the experiment).

-- How many frames can wait in the queues under a stream, if the experiment has `queue: auto` or `queue_depth: auto`:
-- {"before", "before_chosen", "between", "between_chosen", "expected": {"dropped", "late"}, "reason"}.
ALTER TABLE schedules ADD COLUMN queues TEXT;
