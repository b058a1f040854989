-- snapshot --
SELECT pg_export_snapshot()

-- use_snapshot --
SET TRANSACTION SNAPSHOT {snapshot}

-- flows_by_partition --
SELECT partition, count(*) FROM flowtrail.flows GROUP BY partition

-- flows_in_partition --
SELECT flow_id FROM flowtrail.flows WHERE partition = %(partition)s

-- without_flow --
SELECT 'tasks', flow_id FROM flowtrail.tasks t
WHERE NOT EXISTS (SELECT FROM flowtrail.flows f WHERE f.flow_id = t.flow_id)
UNION
SELECT 'history', flow_id FROM flowtrail.history h
WHERE NOT EXISTS (SELECT FROM flowtrail.flows f WHERE f.flow_id = h.flow_id)
ORDER BY 1, 2

-- unreadable --
SELECT event_offset, code, reason FROM flowtrail.unreadable
WHERE partition = %(partition)s AND event_offset < %(bound)s

-- flows --
COPY (SELECT {columns} FROM flowtrail.flows WHERE flow_id = ANY(%(flow_ids)s::text[])) TO STDOUT

-- tasks --
COPY (SELECT {columns} FROM flowtrail.tasks WHERE flow_id = ANY(%(flow_ids)s::text[])) TO STDOUT

-- history --
COPY (SELECT {columns} FROM flowtrail.history
      WHERE flow_id = ANY(%(flow_ids)s::text[]) AND partition = %(partition)s AND event_offset < %(bound)s) TO STDOUT

-- rejections --
COPY (SELECT {columns} FROM flowtrail.rejections
      WHERE partition = %(partition)s AND event_offset >= %(first)s AND event_offset < %(end)s
        AND (%(flow_id)s::text IS NULL OR flow_id = %(flow_id)s)) TO STDOUT
