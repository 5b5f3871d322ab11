-- What the pipeline writes. Every table begins with the run, and is partitioned by it: dropping a run drops partitions.
--
-- ReplacingMergeTree with a key that names the row by its lineage: a batch inserted again (a retry, a resumed run) replaces
-- itself and adds nothing. Read with FINAL, or by argMax over the version.
--
-- Keys put the user before the version: what is asked most is one user's newest row. Times and offsets grow within a key
-- prefix, hence Delta. Embeddings are near-random bits: ZSTD(1) gains little, LZ4 costs nearly nothing, so they keep LZ4.

CREATE TABLE IF NOT EXISTS actions
(
    run_id      LowCardinality(String),
    user_id     String,
    event_time  DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    event_id    String,
    action      LowCardinality(String),
    entity      String CODEC(ZSTD(1)),
    value       Nullable(Float64),
    disposition LowCardinality(String),
    context     Map(LowCardinality(String), String),
    topic       LowCardinality(String),
    partition   UInt32,
    offset      UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY run_id
ORDER BY (run_id, user_id, event_time, topic, partition, offset);

CREATE TABLE IF NOT EXISTS embeddings
(
    run_id          LowCardinality(String),
    user_id         String,
    version         UInt64 CODEC(Delta, ZSTD(1)),
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
    latency_ms      Float32,
    rows_computed   UInt32,
    outcome         LowCardinality(String)
)
ENGINE = ReplacingMergeTree
PARTITION BY run_id
ORDER BY (run_id, user_id, version);

-- A view, not a second table: the key finds a user's newest version at once, and every insert would cost twice.
CREATE VIEW IF NOT EXISTS embeddings_latest AS
SELECT
    run_id,
    user_id,
    max(version) AS latest_version,
    argMax(embedding, version) AS embedding,
    argMax(sequence_length, version) AS sequence_length,
    argMax(last_event_time, version) AS last_event_time,
    argMax(query_time, version) AS query_time,
    argMax(sequence_digest, version) AS sequence_digest,
    argMax(model_digest, version) AS model_digest,
    argMax(topic, version) AS topic,
    argMax(partition, version) AS partition,
    argMax(offset, version) AS offset,
    argMax(computed_at, version) AS computed_at
FROM embeddings
GROUP BY run_id, user_id;

CREATE TABLE IF NOT EXISTS scores
(
    run_id          LowCardinality(String),
    user_id         String,
    version         UInt64 CODEC(Delta, ZSTD(1)),
    request_id      String,
    -- Best first; the two arrays are of one length.
    entities        Array(String) CODEC(ZSTD(1)),
    scores          Array(Float32),
    sequence_digest FixedString(16) CODEC(ZSTD(1)),
    model_digest    LowCardinality(String),
    topic           LowCardinality(String),
    partition       UInt32,
    offset          UInt64 CODEC(Delta, ZSTD(1)),
    computed_at     DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY run_id
ORDER BY (run_id, user_id, version, request_id);

CREATE TABLE IF NOT EXISTS quality
(
    run_id          LowCardinality(String),
    user_id         String,
    event_time      DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    event_id        String,
    action          LowCardinality(String),
    entity          String CODEC(ZSTD(1)),
    prior_events    UInt64 CODEC(Delta, ZSTD(1)),
    rank            UInt32,
    sequence_digest FixedString(16) CODEC(ZSTD(1)),
    model_digest    LowCardinality(String),
    topic           LowCardinality(String),
    partition       UInt32,
    offset          UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY run_id
ORDER BY (run_id, user_id, event_time, event_id);

CREATE TABLE IF NOT EXISTS dead_letters
(
    run_id    LowCardinality(String),
    topic     LowCardinality(String),
    partition UInt32,
    offset    UInt64 CODEC(Delta, ZSTD(1)),
    code      LowCardinality(String),
    step      LowCardinality(String),
    message   String CODEC(ZSTD(1)),
    original  String CODEC(ZSTD(3)),
    -- 'text', or 'base64' for bytes that are no UTF-8.
    encoding  LowCardinality(String)
)
ENGINE = ReplacingMergeTree
PARTITION BY run_id
ORDER BY (run_id, topic, partition, offset);

-- One row a run: the highest position wins, and of equal positions the last insert. Not partitioned: it is tiny.
CREATE TABLE IF NOT EXISTS progress
(
    run_id     String,
    position   UInt64,
    total      Nullable(UInt64),
    finished   Bool,
    updated_at DateTime64(3, 'UTC'),
    -- What the run was made of, as JSON.
    facts      String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(position)
ORDER BY run_id;
