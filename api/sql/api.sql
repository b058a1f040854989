-- key --
SELECT key_id, digest, name, revoked_at IS NOT NULL, last_used_at
FROM flowtrail_api.api_keys
WHERE key_id = %(key_id)s

-- key_used --
UPDATE flowtrail_api.api_keys SET last_used_at = now() WHERE key_id = %(key_id)s

-- keep_key --
INSERT INTO flowtrail_api.api_keys AS k (key_id, digest, name) VALUES (%(key_id)s, %(digest)s, %(name)s)
ON CONFLICT (key_id) DO UPDATE SET digest = excluded.digest WHERE k.revoked_at IS NULL
RETURNING (xmax = 0)

-- list_keys --
SELECT key_id, name, created_at, revoked_at, last_used_at
FROM flowtrail_api.api_keys
ORDER BY created_at, key_id

-- revoke_key --
UPDATE flowtrail_api.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = %(key_id)s
RETURNING key_id

-- claim --
INSERT INTO flowtrail_api.idempotency_keys AS i (key_id, idempotency_key, request_hash, flow_id, command_id)
SELECT * FROM unnest(%(key_ids)s::text[], %(idempotency_keys)s::text[], %(request_hashes)s::bytea[],
                     %(flow_ids)s::text[], %(command_ids)s::text[])
ON CONFLICT (key_id, idempotency_key) DO UPDATE SET key_id = i.key_id
RETURNING key_id, idempotency_key, request_hash, flow_id, command_id, xmax = 0

-- forget_claims --
DELETE FROM flowtrail_api.idempotency_keys
WHERE (key_id, idempotency_key) IN (
    SELECT key_id, idempotency_key
    FROM flowtrail_api.idempotency_keys
    WHERE created_at < now() - make_interval(days => %(days)s)
    LIMIT %(most)s
)
RETURNING 1

-- claim_definition --
INSERT INTO flowtrail_api.definitions AS d (definition, hash) VALUES (%(definition)s, %(hash)s)
ON CONFLICT (definition) DO UPDATE SET definition = d.definition
RETURNING hash

-- started_by --
SELECT flow_id, command_id
FROM flowtrail.flows
WHERE flow_id = ANY(%(flow_ids)s)

-- outcomes --
SELECT flow_id, command_id, NULL, NULL
FROM flowtrail.flows
WHERE flow_id = ANY(%(flow_ids)s) AND ended_at IS NOT NULL
UNION ALL
SELECT flow_id, command_id, code, reason
FROM flowtrail.rejections
WHERE flow_id = ANY(%(flow_ids)s) AND command_id = ANY(%(command_ids)s)

-- approvals --
SELECT t.flow_id, t.task, t.run, t.attempt, t.definition, t.name, t.scheduled_at, t.arguments
FROM flowtrail.tasks t JOIN flowtrail.flows f USING (flow_id)
WHERE t.queue = '' AND t.function = 'approval' AND t.ended_at IS NULL AND f.ended_at IS NULL
  AND (%(flow_id)s::text IS NULL OR t.flow_id = %(flow_id)s)
  AND (%(definition)s::text IS NULL
       OR (CASE WHEN %(any_version)s THEN split_part(t.definition, '@', 1) ELSE t.definition END) = %(definition)s)
  AND (%(at)s::timestamptz IS NULL
       OR (t.scheduled_at, t.flow_id, t.task) > (%(at)s, %(last_flow)s COLLATE "C", %(last_task)s COLLATE "C"))
ORDER BY t.scheduled_at, t.flow_id, t.task
LIMIT %(limit)s

-- not_durable --
SET LOCAL synchronous_commit = off

-- applied --
SELECT number FROM flowtrail_api.migrations
