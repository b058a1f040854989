-- lock --
SELECT pg_try_advisory_lock(%(key)s)

-- schemas --
SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = ANY(%(names)s::text[])

-- positions --
SELECT partition, next_offset FROM {schema}.projection_position
WHERE projection = %(projection)s AND topic = %(topic)s

-- hold --
LOCK TABLE flowtrail.projection_position IN EXCLUSIVE MODE

-- columns --
SELECT attname FROM pg_attribute
WHERE attrelid = (%(schema)s || '.' || %(name)s)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum

-- rows --
COPY (SELECT {columns} FROM {schema}.{name} ORDER BY {key}) TO STDOUT

