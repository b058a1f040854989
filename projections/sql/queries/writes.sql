-- session --
CREATE TEMP TABLE IF NOT EXISTS incoming_flows
    (LIKE flowtrail.flows INCLUDING DEFAULTS, follows bigint, follows_head bytea) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS incoming_tasks
    (LIKE flowtrail.tasks) ON COMMIT DELETE ROWS

-- add_positions --
INSERT INTO flowtrail.projection_position (projection, topic, partition, next_offset)
SELECT %(projection)s, %(topic)s, p, 0 FROM unnest(%(partitions)s::int[]) p ORDER BY p
ON CONFLICT DO NOTHING

-- read_positions --
SELECT partition, next_offset
FROM flowtrail.projection_position
WHERE projection = %(projection)s AND topic = %(topic)s AND partition = ANY(%(partitions)s)

-- move_positions --
UPDATE flowtrail.projection_position p
SET next_offset = m.next_offset,
    command_offset = greatest(p.command_offset, m.command_offset),
    event_time = coalesce(m.event_time, p.event_time),
    updated_at = clock_timestamp()
FROM unnest(%(partitions)s::int[], %(starts)s::bigint[], %(next_offsets)s::bigint[], %(command_offsets)s::bigint[],
            %(event_times)s::timestamptz[]) AS m (partition, start, next_offset, command_offset, event_time)
WHERE p.projection = %(projection)s AND p.topic = %(topic)s AND p.partition = m.partition AND p.next_offset = m.start

-- copy_flows --
COPY incoming_flows (flow_id, definition, namespace, name, version, definition_hash, engine_version, status, sequence,
    head, started_at, updated_at, ended_at, actor_kind, actor_id, command_id, trace, input, transformed, context,
    output, error, reason, partition, first_offset, last_offset, parent_flow, parent_task, deadline_at, follows,
    follows_head)
FROM STDIN

-- copy_new_flows --
COPY flowtrail.flows (flow_id, definition, namespace, name, version, definition_hash, engine_version, status, sequence,
    head, started_at, updated_at, ended_at, actor_kind, actor_id, command_id, trace, input, transformed, context,
    output, error, reason, partition, first_offset, last_offset, parent_flow, parent_task, deadline_at, tasks)
FROM STDIN

-- copy_tasks --
COPY incoming_tasks (flow_id, task, run, attempt, definition, name, kind, queue, function, status, sequence,
    scheduled_sequence, ended_sequence, scheduled_at, ended_at, actor_kind, actor_id, input, arguments, result, output,
    error, branch, deadline_at, due_at, due_for, iteration, progress, child, priority)
FROM STDIN

-- copy_new_tasks --
COPY flowtrail.tasks (flow_id, task, run, attempt, definition, name, kind, queue, function, status, sequence,
    scheduled_sequence, ended_sequence, scheduled_at, ended_at, actor_kind, actor_id, input, arguments, result, output,
    error, branch, deadline_at, due_at, due_for, iteration, progress, child, priority)
FROM STDIN

-- out_of_step --
-- rows that do not stand where the log's next event begins; nested, so that a large table is never read whole, and
-- counting no more than 1,001 tasks, so that a long flow does not cost the square of its length
SELECT i.flow_id, i.partition, i.first_offset, i.follows, i.sequence, f.partition, f.first_offset, f.sequence,
       f.head IS DISTINCT FROM i.follows_head, coalesce(f.tasks, 0), t.found,
       EXISTS (SELECT FROM flowtrail.broken b WHERE b.flow_id = i.flow_id)
FROM incoming_flows i
LEFT JOIN LATERAL (
    SELECT sequence, head, tasks, partition, first_offset FROM flowtrail.flows WHERE flow_id = i.flow_id OFFSET 0
) f ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS found
    FROM (SELECT FROM flowtrail.tasks WHERE flow_id = i.flow_id LIMIT 1001) limited
) t
WHERE i.follows <> coalesce(f.sequence, 0) OR f.head <> i.follows_head OR f.partition <> i.partition
   OR least(coalesce(f.tasks, 0), 1001) <> t.found

-- merge --
WITH merged AS (
    INSERT INTO flowtrail.tasks AS t
    SELECT * FROM incoming_tasks
    ON CONFLICT (flow_id, task, run, attempt) DO UPDATE SET
        kind = coalesce(t.kind, excluded.kind),
        queue = coalesce(t.queue, excluded.queue),
        function = coalesce(t.function, excluded.function),
        status = coalesce(excluded.status, t.status),
        sequence = excluded.sequence,
        scheduled_sequence = coalesce(t.scheduled_sequence, excluded.scheduled_sequence),
        scheduled_at = coalesce(t.scheduled_at, excluded.scheduled_at),
        input = coalesce(t.input, excluded.input),
        arguments = coalesce(t.arguments, excluded.arguments),
        ended_sequence = coalesce(excluded.ended_sequence, t.ended_sequence),
        ended_at = coalesce(excluded.ended_at, t.ended_at),
        actor_kind = coalesce(excluded.actor_kind, t.actor_kind),
        actor_id = coalesce(excluded.actor_id, t.actor_id),
        result = coalesce(excluded.result, t.result),
        output = coalesce(excluded.output, t.output),
        error = coalesce(excluded.error, t.error),
        branch = coalesce(excluded.branch, t.branch),
        deadline_at = coalesce(excluded.deadline_at, t.deadline_at),
        due_at = coalesce(excluded.due_at, t.due_at),
        due_for = coalesce(excluded.due_for, t.due_for),
        iteration = coalesce(excluded.iteration, t.iteration),
        progress = coalesce(excluded.progress, t.progress),
        child = coalesce(t.child, excluded.child),
        priority = coalesce(t.priority, excluded.priority)
    RETURNING t.flow_id, t.xmax = 0 AS made
), counted AS (
    SELECT flow_id, count(*) FILTER (WHERE made) AS made FROM merged GROUP BY flow_id
)
INSERT INTO flowtrail.flows AS f (flow_id, definition, namespace, name, version, definition_hash, engine_version, status,
    sequence, head, started_at, updated_at, ended_at, actor_kind, actor_id, command_id, trace, input, transformed,
    context, output, error, reason, partition, first_offset, last_offset, parent_flow, parent_task, deadline_at, tasks)
SELECT i.flow_id, i.definition, i.namespace, i.name, i.version, i.definition_hash, i.engine_version, i.status,
    i.sequence, i.head, i.started_at, i.updated_at, i.ended_at, i.actor_kind, i.actor_id, i.command_id, i.trace, i.input,
    i.transformed, i.context, i.output, i.error, i.reason, i.partition, i.first_offset, i.last_offset, i.parent_flow,
    i.parent_task, i.deadline_at, coalesce(c.made, 0)
FROM incoming_flows i LEFT JOIN counted c ON c.flow_id = i.flow_id
ON CONFLICT (flow_id) DO UPDATE SET
    definition = excluded.definition,
    version = excluded.version,
    definition_hash = excluded.definition_hash,
    engine_version = coalesce(f.engine_version, excluded.engine_version),
    status = coalesce(excluded.status, f.status),
    sequence = excluded.sequence,
    head = excluded.head,
    updated_at = excluded.updated_at,
    ended_at = coalesce(excluded.ended_at, f.ended_at),
    input = coalesce(f.input, excluded.input),
    transformed = coalesce(f.transformed, excluded.transformed),
    context = coalesce(excluded.context, f.context),
    output = coalesce(excluded.output, f.output),
    error = coalesce(excluded.error, f.error),
    reason = coalesce(excluded.reason, f.reason),
    last_offset = excluded.last_offset,
    parent_flow = coalesce(f.parent_flow, excluded.parent_flow),
    parent_task = coalesce(f.parent_task, excluded.parent_task),
    deadline_at = coalesce(f.deadline_at, excluded.deadline_at),
    tasks = f.tasks + excluded.tasks

-- copy_history --
COPY flowtrail.history ("time", flow_id, sequence, kind, task, run, attempt, actor_kind, actor_id, command_id,
    cause_partition, cause_offset, partition, event_offset, definition, trace, body)
FROM STDIN

-- copy_rejections --
COPY flowtrail.rejections (partition, event_offset, "time", flow_id, command, code, reason, task, actor_kind, actor_id,
    command_id, cause_partition, cause_offset, trace)
FROM STDIN

-- copy_unreadable --
COPY flowtrail.unreadable (partition, event_offset, key, value, code, reason)
FROM STDIN

-- add_broken --
INSERT INTO flowtrail.broken (flow_id, partition, event_offset, found)
VALUES (%(flow_id)s, %(partition)s, %(offset)s, %(found)s)
ON CONFLICT DO NOTHING

-- add_healing --
INSERT INTO flowtrail_api.healings (flow_id, partition, event_offset, found)
VALUES (%(flow_id)s, %(partition)s, %(offset)s, %(found)s)

-- forget_flows --
DELETE FROM flowtrail.flows WHERE flow_id = ANY(%(flow_ids)s::text[])

-- forget_tasks --
DELETE FROM flowtrail.tasks WHERE flow_id = ANY(%(flow_ids)s::text[])

-- forget_broken --
DELETE FROM flowtrail.broken WHERE flow_id = ANY(%(flow_ids)s::text[])

-- forget_history --
-- what another partition's records left here stays
DELETE FROM flowtrail.history
WHERE flow_id = ANY(%(flow_ids)s::text[])
  AND (flow_id, partition) IN (SELECT * FROM unnest(%(flow_ids)s::text[], %(partitions)s::int[]))

-- forget_rejections --
-- what another partition's records left here stays
DELETE FROM flowtrail.rejections
WHERE flow_id = ANY(%(flow_ids)s::text[])
  AND (flow_id, partition) IN (SELECT * FROM unnest(%(flow_ids)s::text[], %(partitions)s::int[]))

-- share_lock --
SELECT pg_advisory_lock_shared(%(key)s)

-- aside --
SELECT partition, event_offset FROM flowtrail.unreadable WHERE partition = ANY(%(partitions)s::int[])

-- months --
SELECT c.relname
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'flowtrail.history'::regclass

-- lock_months --
SELECT pg_advisory_xact_lock(%(key)s)

-- add_month --
CREATE TABLE IF NOT EXISTS flowtrail.{table} PARTITION OF flowtrail.history FOR VALUES FROM ({first}) TO ({next})
