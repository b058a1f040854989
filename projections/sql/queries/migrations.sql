-- lock --
SELECT pg_advisory_lock(%(key)s)

-- bookkeeping --
CREATE SCHEMA IF NOT EXISTS flowtrail_api;
CREATE TABLE IF NOT EXISTS flowtrail_api.migrations (
    number     int         NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    sha256     bytea       NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- applied --
SELECT number, name, sha256 FROM flowtrail_api.migrations ORDER BY number

-- note --
INSERT INTO flowtrail_api.migrations (number, name, sha256) VALUES (%(number)s, %(name)s, %(sha256)s)
