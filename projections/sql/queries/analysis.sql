-- steps_of_flows --
    -- a call's work begins when its worker had ended the one before: the log does not say when a worker took it up
    SELECT t.flow_id AS case_id, 1 AS version, t.name AS step, t.status, t.queue, t.actor_id AS worker,
           coalesce(t.scheduled_at, t.ended_at) AS began, t.ended_at AS ended,
           CASE t.kind
               WHEN 'call' THEN greatest(coalesce(t.scheduled_at, t.ended_at), lag(t.ended_at) OVER (
                   PARTITION BY t.queue, t.actor_id ORDER BY t.ended_at, t.flow_id, t.sequence))
               WHEN 'wait' THEN t.ended_at
               WHEN 'listen' THEN t.ended_at
               WHEN 'approval' THEN t.ended_at
               WHEN 'subflow' THEN t.ended_at
               ELSE coalesce(t.scheduled_at, t.ended_at)
           END AS worked_from,
           coalesce(t.scheduled_sequence, t.ended_sequence) AS place, '' AS tie
    FROM flowtrail.tasks t JOIN flowtrail.flows f USING (flow_id)
    WHERE f.namespace = %(namespace)s AND f.name = %(name)s
      AND (%(version)s::text IS NULL OR f.version = %(version)s)
      AND (%(since)s::timestamptz IS NULL OR f.started_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR f.started_at < %(until)s)
      AND t.run > 0 AND coalesce(t.scheduled_at, t.ended_at) IS NOT NULL
      AND coalesce(t.status, '') NOT IN ('moved', 'skipped')
      AND coalesce(t.kind, '') NOT IN ('do', 'for', 'fork', 'try', 'extended')

-- steps_of_trails --
    SELECT s.flow_id AS case_id, s.version, s.name AS step, s.status, NULL::text AS queue, NULL::text AS worker,
           coalesce(s.started_at, s.first_at) AS began, s.ended_at AS ended,
           coalesce(s.started_at, s.first_at) AS worked_from, 0::bigint AS place, s.step AS tie
    FROM flowtrail_trails.trail_steps s JOIN flowtrail_trails.trail_flows f USING (project, flow_id, version)
    WHERE s.project = %(namespace)s AND f.name = %(name)s AND s.name IS NOT NULL
      AND (%(version)s::text IS NULL OR f.rules = %(version)s)
      AND (%(since)s::timestamptz IS NULL OR coalesce(f.started_at, f.first_at) >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR coalesce(f.started_at, f.first_at) < %(until)s)

-- cases_of_flows --
    SELECT f.flow_id AS case_id, 1 AS version, f.started_at AS began, f.ended_at AS ended, f.status
    FROM flowtrail.flows f
    WHERE f.namespace = %(namespace)s AND f.name = %(name)s
      AND (%(version)s::text IS NULL OR f.version = %(version)s)
      AND (%(since)s::timestamptz IS NULL OR f.started_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR f.started_at < %(until)s)

-- cases_of_trails --
    SELECT f.flow_id AS case_id, f.version, coalesce(f.started_at, f.first_at) AS began, f.ended_at AS ended, f.status
    FROM flowtrail_trails.trail_flows f
    WHERE f.project = %(namespace)s AND f.name = %(name)s
      AND (%(version)s::text IS NULL OR f.rules = %(version)s)
      AND (%(since)s::timestamptz IS NULL OR coalesce(f.started_at, f.first_at) >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR coalesce(f.started_at, f.first_at) < %(until)s)

-- ordered --
WITH steps AS ({steps}),
ordered AS (
    SELECT s.*, row_number() OVER w AS n, lead(s.step) OVER w AS next_step, lead(s.began) OVER w AS next_began,
           max(coalesce(s.ended, s.began)) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM steps s
    WINDOW w AS (PARTITION BY s.case_id, s.version ORDER BY s.began, s.place, s.tie)
)

-- graph --
{ordered}
SELECT step, next_step, min(n), count(*), avg(extract(epoch FROM next_began - coalesce(ended, began)))
FROM ordered
GROUP BY step, next_step, (n = 1)
ORDER BY step, next_step

-- variants --
{ordered},
paths AS (
    SELECT array_agg(step ORDER BY n) AS path, min(began) AS began, max(coalesce(ended, began)) AS ended,
           min(case_id) AS example
    FROM ordered GROUP BY case_id, version
)
SELECT path, count(*), avg(extract(epoch FROM ended - began)),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended - began)),
       min(example), sum(count(*)) OVER (), count(*) OVER ()
FROM paths
GROUP BY path
ORDER BY count(*) DESC, path
LIMIT %(limit)s

-- durations --
{ordered},
timed AS (
    -- waiting: since all before it was over, and until somebody worked; working: the rest of it
    SELECT step, status,
           extract(epoch FROM coalesce(ended, began) - worked_from)::float8 AS working,
           extract(epoch FROM greatest(worked_from - began, interval '0')
                            + greatest(began - coalesce(before, began), interval '0'))::float8 AS waiting
    FROM ordered WHERE ended IS NOT NULL
)
SELECT step, what, CASE WHEN seconds >= 0.000001 THEN floor(ln(seconds * 1000000) / %(log_base)s)::int END AS bucket,
       count(*), sum(seconds), min(seconds), max(seconds),
       count(*) FILTER (WHERE status IN ('faulted', 'failed'))
FROM timed CROSS JOIN LATERAL (VALUES ('working', working), ('waiting', waiting)) v (what, seconds)
GROUP BY 1, 2, 3

-- heat --
{ordered}
SELECT step, extract(isodow FROM began)::int, extract(hour FROM began)::int, count(*),
       avg(extract(epoch FROM coalesce(ended, began) - began)),
       count(*) FILTER (WHERE status IN ('faulted', 'failed'))
FROM ordered GROUP BY 1, 2, 3 ORDER BY 1, 2, 3

-- rework --
{ordered},
counted AS (SELECT case_id, version, step, count(*) AS times FROM ordered GROUP BY 1, 2, 3)
SELECT step, count(*), count(*) FILTER (WHERE times > 1), sum(times - 1), max(times)
FROM counted GROUP BY step ORDER BY step

-- cases --
WITH cases AS ({cases})
SELECT count(*), count(*) FILTER (WHERE ended IS NOT NULL), count(*) FILTER (WHERE status IN ('faulted', 'failed')),
       avg(extract(epoch FROM ended - began)),
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM ended - began)),
       min(began), max(ended)
FROM cases

-- throughput --
WITH cases AS ({cases}),
buckets AS (
    SELECT date_bin(%(bucket)s::interval, began, timestamptz '2000-01-03') AS at, 1 AS started, 0 AS ended, 0 AS failed
    FROM cases
    UNION ALL
    SELECT date_bin(%(bucket)s::interval, ended, timestamptz '2000-01-03'), 0, 1,
           (status IN ('faulted', 'failed'))::int
    FROM cases WHERE ended IS NOT NULL
)
SELECT at, sum(started), sum(ended), sum(failed) FROM buckets GROUP BY at ORDER BY at LIMIT %(limit)s

-- queues --
WITH steps AS ({steps}),
calls AS (SELECT * FROM steps WHERE queue <> '' AND ended IS NOT NULL AND worker IS NOT NULL)
SELECT queue, count(*), count(DISTINCT worker), sum(extract(epoch FROM ended - worked_from)),
       sum(extract(epoch FROM worked_from - began)), extract(epoch FROM max(ended) - min(began)),
       array_agg(DISTINCT step)
FROM calls GROUP BY queue ORDER BY queue
