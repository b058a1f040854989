-- get_flow --
SELECT f.flow_id, f.definition, f.namespace, f.name, f.version, f.definition_hash, s.status, f.sequence, f.head,
       f.started_at, f.updated_at, f.ended_at, f.actor_kind, f.actor_id, f.command_id, f.trace, nullif(f.reason, ''),
       f.partition, f.first_offset, f.last_offset, f.engine_version, f.error,
       f.input, coalesce(f.transformed, f.input), coalesce(f.context, f.transformed, f.input), f.output,
       ARRAY(SELECT t.task FROM flowtrail.tasks t
             WHERE t.flow_id = f.flow_id AND t.ended_at IS NULL ORDER BY t.scheduled_sequence),
       f.parent_flow, f.parent_task, f.deadline_at,
       (SELECT b.found FROM flowtrail.broken b WHERE b.flow_id = f.flow_id)
FROM flowtrail.flows f
CROSS JOIN LATERAL (
    -- a running flow waits when no worker and no other flow has a task of it
    SELECT CASE WHEN f.status = 'running' AND (
        SELECT bool_or(t.status = 'waiting') AND NOT bool_or(t.status = 'scheduled' OR t.kind = 'subflow')
        FROM flowtrail.tasks t
        WHERE t.flow_id = f.flow_id AND t.ended_at IS NULL
    ) THEN 'waiting' ELSE coalesce(f.status, 'unknown') END AS status
) s
WHERE f.flow_id = %(flow_id)s

-- list_flows --
SELECT f.flow_id, f.definition, f.namespace, f.name, f.version, f.definition_hash, s.status, f.sequence, f.head,
       f.started_at, f.updated_at, f.ended_at, f.actor_kind, f.actor_id, f.command_id, f.trace, nullif(f.reason, ''),
       f.partition, f.first_offset, f.last_offset, f.engine_version, f.error
FROM flowtrail.flows f
CROSS JOIN LATERAL (
    -- a running flow waits when no worker and no other flow has a task of it
    SELECT CASE WHEN f.status = 'running' AND (
        SELECT bool_or(t.status = 'waiting') AND NOT bool_or(t.status = 'scheduled' OR t.kind = 'subflow')
        FROM flowtrail.tasks t
        WHERE t.flow_id = f.flow_id AND t.ended_at IS NULL
    ) THEN 'waiting' ELSE coalesce(f.status, 'unknown') END AS status
) s
WHERE (%(status)s::text IS NULL OR (f.status = %(stored_status)s AND s.status = %(status)s))
  AND (%(parent)s::text IS NULL OR f.parent_flow = %(parent)s)
  AND (%(definition)s::text IS NULL OR f.definition = %(definition)s)
  AND (%(namespace)s::text IS NULL OR f.namespace = %(namespace)s)
  AND (%(name)s::text IS NULL OR f.name = %(name)s)
  AND (%(version)s::text IS NULL OR f.version = %(version)s)
  AND (%(id_from)s::text IS NULL OR (f.flow_id >= %(id_from)s AND f.flow_id < %(id_to)s))
  AND (%(started_after)s::timestamptz IS NULL OR f.started_at >= %(started_after)s)
  AND (%(started_before)s::timestamptz IS NULL OR f.started_at < %(started_before)s)
  AND (%(at)s::timestamptz IS NULL OR (f.started_at, f.flow_id) < (%(at)s, %(id)s COLLATE "C"))
ORDER BY f.started_at DESC, f.flow_id DESC
LIMIT %(limit)s

-- tasks_of --
WITH happened AS (
    -- what listens went through: their output is in no other event
    SELECT h.task, h.run, array_agg(concat_ws(' ', h.sequence, h.kind, h.body) ORDER BY h.sequence) AS events
    FROM flowtrail.history h JOIN flowtrail.tasks l USING (flow_id, task, run)
    WHERE h.flow_id = %(flow_id)s AND l.kind = 'listen'
      AND h.kind IN ('EventConsumed', 'TaskIterated', 'TaskIterationCompleted')
      AND EXISTS (SELECT FROM flowtrail.tasks WHERE flow_id = %(flow_id)s AND kind = 'listen')
    GROUP BY h.task, h.run
)
SELECT CASE WHEN row_number() OVER () = 1 THEN coalesce(f.transformed, f.input) END,
       t.task, t.run, t.attempt, t.name, t.kind, t.queue, t.function, coalesce(t.status, 'unknown'), t.sequence,
       t.scheduled_sequence, t.ended_sequence, t.scheduled_at, t.ended_at, t.actor_kind, t.actor_id,
       t.input, t.arguments, t.result, t.output, t.error, t.branch,
       t.deadline_at, t.due_at, t.due_for, t.iteration, t.progress, t.child, t.priority, h.events,
       CASE WHEN row_number() OVER () = 1 THEN ARRAY(
           SELECT concat_ws(' ', r.sequence, r.kind, r.body)
           FROM flowtrail.history r
           WHERE r.flow_id = %(flow_id)s AND r.kind IN ('FlowMigrated', 'FlowRestored')
           ORDER BY r.sequence
       ) END
FROM flowtrail.tasks t LEFT JOIN flowtrail.flows f USING (flow_id)
     LEFT JOIN happened h ON t.kind = 'listen' AND h.task = t.task AND h.run = t.run
WHERE t.flow_id = %(flow_id)s

-- history_of --
SELECT "time", flow_id, sequence, kind, task, run, attempt, actor_kind, actor_id, command_id, cause_partition,
       cause_offset, partition, event_offset, definition, trace, body
FROM flowtrail.history
WHERE flow_id = %(flow_id)s AND sequence > %(after)s
ORDER BY sequence, event_offset
LIMIT %(limit)s

-- rejections --
SELECT "time", flow_id, command, code, reason, task, actor_kind, actor_id, command_id, cause_partition, cause_offset,
       partition, event_offset, trace
FROM flowtrail.rejections
WHERE (%(flow_id)s::text IS NULL OR flow_id = %(flow_id)s)
  AND (%(code)s::text IS NULL OR code = %(code)s)
  AND (%(at)s::timestamptz IS NULL
       OR ("time", partition, event_offset) < (%(at)s, %(partition)s::int, %(event_offset)s::bigint))
ORDER BY "time" DESC, partition DESC, event_offset DESC
LIMIT %(limit)s

-- rejection_of_command --
SELECT "time", flow_id, command, code, reason, task, actor_kind, actor_id, command_id, cause_partition, cause_offset,
       partition, event_offset, trace
FROM flowtrail.rejections
WHERE flow_id = %(flow_id)s AND command_id = %(command_id)s
ORDER BY "time"
LIMIT 1

-- unreadable --
SELECT partition, event_offset, seen_at, key, value, code, reason
FROM flowtrail.unreadable
ORDER BY partition, event_offset
LIMIT %(limit)s

-- count_broken --
SELECT count(*) FROM flowtrail.broken

-- count_healings --
SELECT count(*) FROM flowtrail_api.healings

-- healings --
SELECT flow_id, partition, event_offset, found, healed_at
FROM flowtrail_api.healings
ORDER BY healed_at DESC, flow_id
LIMIT %(limit)s

-- count_unreadable --
SELECT count(*) FROM flowtrail.unreadable

-- positions --
SELECT projection, topic, partition, next_offset, command_offset, event_time, updated_at
FROM flowtrail.projection_position
WHERE topic = %(topic)s
ORDER BY projection, partition

-- positions_of_flow --
SELECT partition, event_offset, sequence
FROM flowtrail.history
WHERE flow_id = %(flow_id)s
ORDER BY sequence, event_offset

-- ended_among --
SELECT flow_id, status
FROM flowtrail.flows
WHERE flow_id = ANY(%(flow_ids)s) AND ended_at IS NOT NULL

-- rejected_among --
SELECT flow_id, code, reason
FROM flowtrail.rejections
WHERE flow_id = ANY(%(flow_ids)s) AND command = 'StartFlow'

-- counts_by_status --
SELECT s.status, count(*)
FROM flowtrail.flows f
CROSS JOIN LATERAL (
    -- a running flow waits when no worker and no other flow has a task of it
    SELECT CASE WHEN f.status = 'running' AND (
        SELECT bool_or(t.status = 'waiting') AND NOT bool_or(t.status = 'scheduled' OR t.kind = 'subflow')
        FROM flowtrail.tasks t
        WHERE t.flow_id = f.flow_id AND t.ended_at IS NULL
    ) THEN 'waiting' ELSE coalesce(f.status, 'unknown') END AS status
) s
WHERE f.namespace = %(namespace)s AND f.name = %(name)s AND (%(version)s::text IS NULL OR f.version = %(version)s)
GROUP BY 1
ORDER BY 1

-- counts_by_branch --
SELECT t.task, t.branch, count(DISTINCT t.flow_id)
FROM flowtrail.tasks t
WHERE t.branch IS NOT NULL AND t.definition >= %(definition_from)s AND t.definition < %(definition_to)s
GROUP BY t.task, t.branch
ORDER BY t.task, t.branch

-- durations --
SELECT count(*),
       extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY ended_at - started_at))::float8 * 1000,
       extract(epoch FROM percentile_cont(0.99) WITHIN GROUP (ORDER BY ended_at - started_at))::float8 * 1000,
       extract(epoch FROM max(ended_at - started_at))::float8 * 1000,
       min(started_at),
       max(ended_at)
FROM flowtrail.flows
WHERE namespace = %(namespace)s AND name = %(name)s AND (%(version)s::text IS NULL OR version = %(version)s)
  AND ended_at IS NOT NULL
