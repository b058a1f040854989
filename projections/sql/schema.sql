-- The database as the migrations leave it, for reading; a test proves that both give the same.

CREATE SCHEMA flowtrail_api;

CREATE TABLE flowtrail_api.migrations (
    number     int         NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    sha256     bytea       NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE SCHEMA flowtrail;

CREATE TABLE flowtrail.projection_position (
    projection     text        NOT NULL,
    topic          text        NOT NULL,
    partition      int         NOT NULL,
    next_offset    bigint      NOT NULL,
    command_offset bigint      NOT NULL DEFAULT -1,
    event_time     timestamptz,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON COLUMN flowtrail.projection_position.next_offset IS 'the first offset that is not folded yet; moves in the transaction of the rows';
COMMENT ON COLUMN flowtrail.projection_position.command_offset IS 'the greatest offset of a command whose consequences are folded; -1: none';

CREATE TABLE flowtrail.flows (
    flow_id          text        COLLATE "C" NOT NULL PRIMARY KEY,
    definition       text        COLLATE "C" NOT NULL,
    namespace        text        COLLATE "C" NOT NULL,
    name             text        COLLATE "C" NOT NULL,
    version          text        COLLATE "C" NOT NULL,
    definition_hash  bytea       NOT NULL,
    engine_version   text,
    status           text,
    sequence         bigint      NOT NULL,
    head             bytea       NOT NULL,
    started_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    ended_at         timestamptz,
    actor_kind       text        NOT NULL,
    actor_id         text        NOT NULL,
    command_id       text        NOT NULL,
    trace            text,
    input            text,
    transformed      text,
    context          text,
    output           text,
    error            text,
    reason           text,
    partition        int         NOT NULL,
    first_offset     bigint      NOT NULL,
    last_offset      bigint      NOT NULL,
    parent_flow      text        COLLATE "C",
    parent_task      text,
    deadline_at      timestamptz,
    tasks            int         NOT NULL DEFAULT 0
) WITH (fillfactor = 80);
COMMENT ON COLUMN flowtrail.flows.status IS 'running, suspended, compensating, completed, faulted, cancelled; null: its first event could not be read';
COMMENT ON COLUMN flowtrail.flows.head IS 'SHA-256 of the stored value of event number "sequence"';
COMMENT ON COLUMN flowtrail.flows.transformed IS 'input after input.from; null: same as input';
COMMENT ON COLUMN flowtrail.flows.context IS 'null: nothing exported, same as the transformed input';
COMMENT ON COLUMN flowtrail.flows.parent_flow IS 'the flow whose task started this one; ~schedule/... for a schedule';
COMMENT ON COLUMN flowtrail.flows.tasks IS 'how many rows of tasks it has';
CREATE INDEX flows_parent ON flowtrail.flows (parent_flow) WHERE parent_flow IS NOT NULL;
CREATE INDEX flows_started ON flowtrail.flows (started_at, flow_id);
CREATE INDEX flows_status ON flowtrail.flows (status, started_at, flow_id);
CREATE INDEX flows_definition ON flowtrail.flows (namespace, name, started_at, flow_id);

CREATE TABLE flowtrail.tasks (
    flow_id            text        COLLATE "C" NOT NULL,
    task               text        COLLATE "C" NOT NULL,
    run                int         NOT NULL,
    attempt            int         NOT NULL,
    definition         text        COLLATE "C" NOT NULL,
    name               text        NOT NULL,
    kind               text,
    queue              text,
    function           text,
    status             text,
    sequence           bigint      NOT NULL,
    scheduled_sequence bigint,
    ended_sequence     bigint,
    scheduled_at       timestamptz,
    ended_at           timestamptz,
    actor_kind         text,
    actor_id           text,
    input              text,
    arguments          text,
    result             text,
    output             text,
    error              text,
    branch             text,
    deadline_at        timestamptz,
    due_at             timestamptz,
    due_for            text,
    iteration          int,
    progress           text,
    child              text        COLLATE "C",
    priority           text,
    PRIMARY KEY (flow_id, task, run, attempt)
) WITH (fillfactor = 80);
COMMENT ON COLUMN flowtrail.tasks.status IS 'scheduled, running, waiting, retried, completed, faulted, cancelled, skipped (run 0: its last skip)';
COMMENT ON COLUMN flowtrail.tasks.input IS 'as the event has it; null: same as the data before the task';
COMMENT ON COLUMN flowtrail.tasks.output IS 'as the event has it; null: same as the result or, without one, the data before the end of the task';
COMMENT ON COLUMN flowtrail.tasks.due_at IS 'when its wait, its attempt, its retry or its heartbeat was last due; means something while it has not ended';
COMMENT ON COLUMN flowtrail.tasks.iteration IS 'of a for or a foreach: the last one that began';
COMMENT ON COLUMN flowtrail.tasks.child IS 'flow id of its sub-flow';
CREATE INDEX tasks_approvals ON flowtrail.tasks (scheduled_at, flow_id, task) WHERE queue = '' AND function = 'approval';
CREATE INDEX tasks_branch ON flowtrail.tasks (definition, task, branch) WHERE branch IS NOT NULL;

CREATE TABLE flowtrail.history (
    "time"          timestamptz NOT NULL,
    flow_id         text        COLLATE "C" NOT NULL,
    sequence        bigint      NOT NULL,
    kind            text        NOT NULL,
    task            text,
    run             int         NOT NULL,
    attempt         int         NOT NULL,
    actor_kind      text        NOT NULL,
    actor_id        text        NOT NULL,
    command_id      text        NOT NULL,
    cause_partition int         NOT NULL,
    cause_offset    bigint      NOT NULL,
    partition       int         NOT NULL,
    event_offset    bigint      NOT NULL,
    definition      text        NOT NULL,
    trace           text,
    body            text        NOT NULL
) PARTITION BY RANGE ("time");
-- Months are attached by the projector, ahead of need; what lies outside every month is kept here.
CREATE TABLE flowtrail.history_other PARTITION OF flowtrail.history DEFAULT;
CREATE INDEX history_time ON flowtrail.history USING brin ("time") WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX history_flow ON flowtrail.history (flow_id, sequence);
CREATE INDEX history_turns ON flowtrail.history (flow_id, sequence) WHERE kind IN ('FlowMigrated', 'FlowRestored');

CREATE TABLE flowtrail.rejections (
    partition       int         NOT NULL,
    event_offset    bigint      NOT NULL,
    "time"          timestamptz NOT NULL,
    flow_id         text        COLLATE "C" NOT NULL,
    command         text        NOT NULL,
    code            text        NOT NULL,
    reason          text        NOT NULL,
    task            text,
    actor_kind      text        NOT NULL,
    actor_id        text        NOT NULL,
    command_id      text        NOT NULL,
    cause_partition int         NOT NULL,
    cause_offset    bigint      NOT NULL,
    trace           text,
    PRIMARY KEY (partition, event_offset)
);
CREATE INDEX rejections_time ON flowtrail.rejections ("time", partition, event_offset);
CREATE INDEX rejections_flow ON flowtrail.rejections (flow_id, "time");

CREATE TABLE flowtrail.unreadable (
    partition    int         NOT NULL,
    event_offset bigint      NOT NULL,
    seen_at      timestamptz NOT NULL DEFAULT now(),
    key          bytea,
    value        bytea,
    code         text        NOT NULL,
    reason       text        NOT NULL,
    PRIMARY KEY (partition, event_offset)
);
COMMENT ON TABLE flowtrail.unreadable IS 'records of the events topic that are in no read model, with their original bytes and why';

CREATE TABLE flowtrail.broken (
    flow_id      text   COLLATE "C" NOT NULL PRIMARY KEY,
    partition    int    NOT NULL,
    event_offset bigint NOT NULL,
    found        text   NOT NULL
);
COMMENT ON TABLE flowtrail.broken IS 'flows whose events in the log do not follow one another: the first that does not, and why';

CREATE TABLE flowtrail_api.api_keys (
    key_id       text        NOT NULL PRIMARY KEY,
    digest       bytea       NOT NULL,
    name         text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz,
    last_used_at timestamptz
);

CREATE TABLE flowtrail_api.idempotency_keys (
    key_id          text        NOT NULL,
    idempotency_key text        NOT NULL,
    request_hash    bytea       NOT NULL,
    flow_id         text        NOT NULL,
    command_id      text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key_id, idempotency_key)
);

CREATE TABLE flowtrail_api.definitions (
    definition text        NOT NULL PRIMARY KEY,
    hash       bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE flowtrail_api.healings (
    flow_id      text        COLLATE "C" NOT NULL,
    partition    int         NOT NULL,
    event_offset bigint      NOT NULL,
    found        text        NOT NULL,
    healed_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE flowtrail_api.healings IS 'flows whose rows were not what the log says, and were folded anew: the event that showed it, and how';
CREATE INDEX healings_healed ON flowtrail_api.healings (healed_at);
