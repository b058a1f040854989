-- lock --
SELECT pg_try_advisory_lock(%(key)s)

-- await_hands --
-- a rebuild that was killed may have left others of its processes at their last batch
SELECT pg_advisory_lock(%(key)s), pg_advisory_unlock(%(key)s)

-- schemas --
SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = ANY(%(names)s::text[])

-- positions --
SELECT partition, next_offset FROM {schema}.projection_position
WHERE projection = %(projection)s AND topic = %(topic)s

-- set_positions --
INSERT INTO flowtrail_rebuild.projection_position (projection, topic, partition, next_offset, command_offset, event_time)
SELECT %(projection)s, %(topic)s, s.partition, s.next_offset, coalesce(p.command_offset, -1), p.event_time
FROM unnest(%(partitions)s::int[], %(offsets)s::bigint[]) AS s (partition, next_offset)
LEFT JOIN flowtrail.projection_position p
    ON p.projection = %(projection)s AND p.topic = %(topic)s AND p.partition = s.partition

-- folded_again --
DELETE FROM flowtrail_rebuild.projection_position WHERE projection = %(again)s

-- make_chosen --
CREATE TABLE flowtrail_rebuild.chosen (flow_id text COLLATE "C" NOT NULL PRIMARY KEY)

-- copy_chosen --
COPY flowtrail_rebuild.chosen (flow_id) FROM STDIN

-- analyze_chosen --
ANALYZE flowtrail_rebuild.chosen

-- chosen --
SELECT flow_id FROM flowtrail_rebuild.chosen

-- drop_chosen --
DROP TABLE IF EXISTS flowtrail_rebuild.chosen

-- months --
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'flowtrail.history'::regclass AND c.relname <> 'history_other'

-- add_month --
CREATE TABLE flowtrail_rebuild.{table} PARTITION OF flowtrail_rebuild.history {bounds}

-- copy_table --
INSERT INTO flowtrail_rebuild.{table} SELECT * FROM flowtrail.{table}

-- copy_others --
INSERT INTO flowtrail_rebuild.{table}
SELECT * FROM flowtrail.{table} t
WHERE NOT EXISTS (SELECT FROM flowtrail_rebuild.chosen c WHERE c.flow_id = t.flow_id)

-- hold --
LOCK TABLE flowtrail.projection_position IN EXCLUSIVE MODE

-- columns --
SELECT attname FROM pg_attribute
WHERE attrelid = (%(schema)s || '.' || %(name)s)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum

-- count --
SELECT count(*) FROM {schema}.{name}

-- rows --
COPY (SELECT {columns} FROM {schema}.{name} ORDER BY {key}) TO STDOUT

-- rows_of_chosen --
COPY (
    SELECT {columns} FROM {schema}.{name}
    WHERE flow_id IN (SELECT c.flow_id FROM flowtrail_rebuild.chosen c)
    ORDER BY {key}
) TO STDOUT
