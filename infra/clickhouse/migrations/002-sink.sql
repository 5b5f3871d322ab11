-- What the sink adds: it feeds the same tables from the committed topics, under the deployment's name as the run.
--
-- Codecs as measured on 1,000,000 rows, bytes a row (docs/howto/analytics.md): event ids 6.7 with LZ4 and 3.4 with ZSTD(1),
-- entities 5.7 and 2.9, times 5.9 and 3.7 with Delta + ZSTD(1), offsets 4.6 and 2.3; embeddings of 64 numbers 257 with LZ4
-- and 234 with ZSTD(1), but read 1.7 times as fast with LZ4.

-- The record's timestamp in its topic: what an erasure's time is compared with.
ALTER TABLE actions ADD COLUMN IF NOT EXISTS recorded_at DateTime64(3, 'UTC') DEFAULT event_time CODEC(Delta, ZSTD(1));
ALTER TABLE actions MODIFY COLUMN event_id String CODEC(ZSTD(1));

-- When the output was published, by its record's timestamp; 1970 where nothing was published (a replay).
ALTER TABLE embeddings ADD COLUMN IF NOT EXISTS published_at DateTime64(3, 'UTC') DEFAULT toDateTime64(0, 3, 'UTC') CODEC(Delta, ZSTD(1));
ALTER TABLE scores ADD COLUMN IF NOT EXISTS published_at DateTime64(3, 'UTC') DEFAULT toDateTime64(0, 3, 'UTC') CODEC(Delta, ZSTD(1));
ALTER TABLE quality ADD COLUMN IF NOT EXISTS published_at DateTime64(3, 'UTC') DEFAULT toDateTime64(0, 3, 'UTC') CODEC(Delta, ZSTD(1));
ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS published_at DateTime64(3, 'UTC') DEFAULT toDateTime64(0, 3, 'UTC') CODEC(Delta, ZSTD(1));
-- The record's key: the user's id, where it was one.
ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS user_id String CODEC(ZSTD(1));

-- History ends by a column, so that each writer says how long its rows live: a replay's for ever, as they are its result.
ALTER TABLE embeddings ADD COLUMN IF NOT EXISTS expires_at DateTime('UTC') DEFAULT toDateTime(4294967295, 'UTC') CODEC(Delta, ZSTD(1));
ALTER TABLE embeddings MODIFY TTL expires_at;

-- The newest embedding of every user, which no TTL takes: an inactive user keeps one. Written by a view of every insert into
-- `embeddings`; costs 1.1 times the insert, and finds nearest users without reading the history.
CREATE TABLE IF NOT EXISTS embeddings_current
(
    run_id          LowCardinality(String),
    user_id         String,
    version         UInt64,
    embedding       Array(Float32),
    sequence_length UInt32,
    last_event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    query_time      DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    sequence_digest FixedString(16) CODEC(ZSTD(1)),
    model_digest    LowCardinality(String),
    topic           LowCardinality(String),
    partition       UInt32,
    offset          UInt64 CODEC(Delta, ZSTD(1)),
    computed_at     DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    published_at    DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY run_id
ORDER BY (run_id, user_id);

CREATE MATERIALIZED VIEW IF NOT EXISTS embeddings_to_current TO embeddings_current AS
SELECT
    run_id, user_id, version, embedding, sequence_length, last_event_time, query_time, sequence_digest, model_digest,
    topic, partition, offset, computed_at, published_at
FROM embeddings;

-- Of what was there before; done again, it changes nothing.
INSERT INTO embeddings_current
SELECT
    run_id, user_id, version, embedding, sequence_length, last_event_time, query_time, sequence_digest, model_digest,
    topic, partition, offset, computed_at, published_at
FROM embeddings
ORDER BY run_id, user_id, version DESC
LIMIT 1 BY run_id, user_id;

CREATE OR REPLACE VIEW embeddings_latest AS
SELECT * EXCEPT version, version AS latest_version
FROM embeddings_current FINAL;

-- What became of each action of a live stream. A replay writes it into `actions`, where the sink leaves it empty: the two
-- come from two topics.
CREATE TABLE IF NOT EXISTS outcomes
(
    run_id       LowCardinality(String),
    user_id      String,
    topic        LowCardinality(String),
    partition    UInt32,
    offset       UInt64 CODEC(Delta, ZSTD(1)),
    event_time   DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    action       LowCardinality(String),
    disposition  LowCardinality(String),
    published_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY run_id
ORDER BY (run_id, user_id, topic, partition, offset);

-- What became of each action, whoever wrote it. `at`: when the stream said so; for a replay, the event's own time.
CREATE OR REPLACE VIEW dispositions AS
SELECT run_id, user_id, topic, partition, offset, event_time, action, disposition, event_time AS at
FROM actions FINAL
WHERE disposition != ''
UNION ALL
SELECT run_id, user_id, topic, partition, offset, event_time, action, disposition, published_at AS at
FROM outcomes FINAL;

-- The catalogue's vectors of every model that published: what an embedding is compared with, by dot product.
CREATE TABLE IF NOT EXISTS entities
(
    model_digest LowCardinality(String),
    entity       String,
    vector       Array(Float32)
)
ENGINE = ReplacingMergeTree
ORDER BY (model_digest, entity);

-- Erasures, by a digest of the user's id: they must outlive the user, to keep out what is read again. Rows of scope
-- `outputs` take what was published before `erased_at`; of scope `actions`, what stands before `offset` of the same topic
-- partition, or, where `offset` is null, was recorded up to `erased_at`.
CREATE TABLE IF NOT EXISTS erasures
(
    run_id    LowCardinality(String),
    -- SHA-256, lower-case hexadecimal.
    user_hash FixedString(64),
    scope     LowCardinality(String),
    topic     LowCardinality(String),
    partition UInt32,
    offset    Nullable(UInt64),
    erased_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (run_id, user_hash, scope, topic, partition, erased_at);

-- How far the sink has come: rows first, this last. A restart goes on here, wherever the consumer group stands.
CREATE TABLE IF NOT EXISTS sink_offsets
(
    run_id      LowCardinality(String),
    topic       LowCardinality(String),
    partition   UInt32,
    next_offset UInt64,
    updated_at  DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(next_offset)
ORDER BY (run_id, topic, partition);

-- Where the sink stood, every few seconds.
CREATE TABLE IF NOT EXISTS health
(
    run_id      LowCardinality(String),
    topic       LowCardinality(String),
    partition   UInt32,
    at          DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    next_offset UInt64 CODEC(Delta, ZSTD(1)),
    -- Records of the topic that were not stored.
    lag         UInt64 CODEC(Delta, ZSTD(1)),
    instance    LowCardinality(String)
)
ENGINE = MergeTree
ORDER BY (run_id, topic, partition, at)
TTL toDateTime(at) + INTERVAL 30 DAY;

-- Every run, a replay or a live deployment.
CREATE OR REPLACE VIEW runs AS
SELECT run_id, 'replay' AS kind, position, total, finished, updated_at, facts
FROM progress FINAL
UNION ALL
SELECT run_id, 'live' AS kind, sum(next_offset) AS position, CAST(NULL, 'Nullable(UInt64)') AS total, false AS finished, max(updated_at) AS updated_at, '{}' AS facts
FROM sink_offsets FINAL
GROUP BY run_id;
