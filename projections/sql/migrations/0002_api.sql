-- What the API must remember and no log holds: this schema cannot be rebuilt, so it is never dropped.

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
