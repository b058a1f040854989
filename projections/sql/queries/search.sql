-- flows --
SELECT f.flow_id, f.version, f.name, f.status, f.first_at, f.started_at, f.ended_at, f.rules, f.attributes::text,
       f.steps, f.observations, f.kept, f.dropped, f.notes, f.errors
FROM flowtrail_trails.trail_flows f
WHERE f.project = %(project)s{where}
ORDER BY f.first_at DESC, f.flow_id DESC, f.version DESC
LIMIT %(limit)s

-- after --
(f.first_at, f.flow_id, f.version) < (%(after_at)s, %(after_flow)s COLLATE "C", %(after_of)s)

-- exists_observation --
EXISTS (SELECT FROM flowtrail_trails.trail_observations o
        WHERE o.project = f.project AND o.flow_id = f.flow_id AND o.version = f.version{where})

-- exists_step --
EXISTS (SELECT FROM flowtrail_trails.trail_steps s
        WHERE s.project = f.project AND s.flow_id = f.flow_id AND s.version = f.version{where})

-- exists_note --
EXISTS (SELECT FROM flowtrail_trails.trail_notes n
        WHERE n.project = f.project AND n.flow_id = f.flow_id AND n.version = f.version{where})

-- exists_error --
EXISTS (SELECT FROM flowtrail_trails.trail_errors e
        WHERE e.project = f.project AND e.flow_id = f.flow_id AND e.version = f.version{where})

-- reason_words --
to_tsvector('simple', o.reason) @@ websearch_to_tsquery('simple', {})

-- because_words --
to_tsvector('simple', s.because) @@ websearch_to_tsquery('simple', {})

-- note_words --
n.words @@ websearch_to_tsquery('simple', {})

-- error_words --
to_tsvector('simple', e.message) @@ websearch_to_tsquery('simple', {})

-- text --
(f.flow_id, f.version) IN (
    SELECT n.flow_id, n.version FROM flowtrail_trails.trail_notes n
    WHERE n.project = %(project)s AND n.words @@ websearch_to_tsquery('simple', {})
    UNION ALL
    SELECT o.flow_id, o.version FROM flowtrail_trails.trail_observations o
    WHERE o.project = %(project)s AND to_tsvector('simple', o.reason) @@ websearch_to_tsquery('simple', {})
    UNION ALL
    SELECT s.flow_id, s.version FROM flowtrail_trails.trail_steps s
    WHERE s.project = %(project)s AND to_tsvector('simple', s.because) @@ websearch_to_tsquery('simple', {})
    UNION ALL
    SELECT e.flow_id, e.version FROM flowtrail_trails.trail_errors e
    WHERE e.project = %(project)s AND to_tsvector('simple', e.message) @@ websearch_to_tsquery('simple', {})
)

-- reasons --
WITH chosen AS (SELECT f.project, f.flow_id, f.version FROM flowtrail_trails.trail_flows f
                WHERE f.project = %(project)s{where})
SELECT o.step_name, o.reason, CASE WHEN %(by_day)s THEN date_trunc('day', o.at)::date END, o.kept, count(*)
FROM chosen JOIN flowtrail_trails.trail_observations o USING (project, flow_id, version)
GROUP BY 1, 2, 3, 4
ORDER BY 5 DESC, 1, 2, 3
LIMIT %(limit)s

-- flips --
WITH chosen AS (SELECT f.project, f.flow_id, f.version FROM flowtrail_trails.trail_flows f
                WHERE f.project = %(project)s{where})
SELECT o.flow_id, o.version, o.step, o.step_name, o.position, o.candidate, o.kept, o.reason, o.score, o.data
FROM chosen JOIN flowtrail_trails.trail_observations o USING (project, flow_id, version)
WHERE o.kept IS NOT NULL AND (%(step)s::text IS NULL OR o.step_name = %(step)s)
ORDER BY o.flow_id, o.version, o.step, o.position
LIMIT %(limit)s

-- observations_of_run --
SELECT coalesce(o.step_name, o.step), o.attempt, o.candidate, o.kept, o.reason, o.score
FROM flowtrail_trails.trail_observations o
WHERE o.project = %(project)s AND o.flow_id = %(flow_id)s AND o.version = %(version)s
ORDER BY o.step, o.position
LIMIT %(limit)s

-- steps_of_run --
SELECT coalesce(s.name, s.step), s.attempt, s.status, s.chosen, s.because, extract(epoch FROM s.ended_at - s.started_at)
FROM flowtrail_trails.trail_steps s
WHERE s.project = %(project)s AND s.flow_id = %(flow_id)s AND s.version = %(version)s
ORDER BY s.first_at, s.step
LIMIT %(limit)s
