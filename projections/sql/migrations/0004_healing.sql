-- A projector tells a row that is not what the log says, and folds its flow anew.

ALTER TABLE flowtrail.flows ADD COLUMN tasks int NOT NULL DEFAULT 0;
COMMENT ON COLUMN flowtrail.flows.tasks IS 'how many rows of tasks it has';
UPDATE flowtrail.flows f SET tasks = t.found
FROM (SELECT flow_id, count(*) AS found FROM flowtrail.tasks GROUP BY flow_id) t
WHERE t.flow_id = f.flow_id;

CREATE TABLE flowtrail.broken (
    flow_id      text   COLLATE "C" NOT NULL PRIMARY KEY,
    partition    int    NOT NULL,
    event_offset bigint NOT NULL,
    found        text   NOT NULL
);
COMMENT ON TABLE flowtrail.broken IS 'flows whose events in the log do not follow one another: the first that does not, and why';

CREATE TABLE flowtrail_api.healings (
    flow_id      text        COLLATE "C" NOT NULL,
    partition    int         NOT NULL,
    event_offset bigint      NOT NULL,
    found        text        NOT NULL,
    healed_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE flowtrail_api.healings IS 'flows whose rows were not what the log says, and were folded anew: the event that showed it, and how';
CREATE INDEX healings_healed ON flowtrail_api.healings (healed_at);

CREATE INDEX IF NOT EXISTS history_turns ON flowtrail.history (flow_id, sequence)
    WHERE kind IN ('FlowMigrated', 'FlowRestored');
