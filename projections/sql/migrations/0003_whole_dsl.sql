-- What the whole DSL adds: sub-flows and their parents, timers, iterations, progress, priorities, human tasks.

ALTER TABLE flowtrail.flows
    ADD COLUMN parent_flow text COLLATE "C",
    ADD COLUMN parent_task text,
    ADD COLUMN deadline_at timestamptz;
COMMENT ON COLUMN flowtrail.flows.parent_flow IS 'the flow whose task started this one; ~schedule/... for a schedule';
COMMENT ON COLUMN flowtrail.flows.status IS 'running, suspended, compensating, completed, faulted, cancelled; null: its first event could not be read';
CREATE INDEX flows_parent ON flowtrail.flows (parent_flow) WHERE parent_flow IS NOT NULL;

ALTER TABLE flowtrail.tasks
    ADD COLUMN deadline_at timestamptz,
    ADD COLUMN due_at timestamptz,
    ADD COLUMN due_for text,
    ADD COLUMN iteration int,
    ADD COLUMN progress text,
    ADD COLUMN child text COLLATE "C",
    ADD COLUMN priority text,
    ALTER COLUMN status DROP NOT NULL;
COMMENT ON COLUMN flowtrail.tasks.status IS 'scheduled, running, waiting, retried, completed, faulted, cancelled, skipped (run 0: its last skip)';
COMMENT ON COLUMN flowtrail.tasks.due_at IS 'when its wait, its attempt, its retry or its heartbeat was last due; means something while it has not ended';
COMMENT ON COLUMN flowtrail.tasks.iteration IS 'of a for or a foreach: the last one that began';
COMMENT ON COLUMN flowtrail.tasks.child IS 'flow id of its sub-flow';
-- its condition names no column that changes, so that ending a task rewrites no index
CREATE INDEX tasks_approvals ON flowtrail.tasks (scheduled_at, flow_id, task) WHERE queue = '' AND function = 'approval';
