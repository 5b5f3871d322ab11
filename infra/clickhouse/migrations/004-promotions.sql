-- Which run a deployment's questions are asked about where none is named: one row says it, so it changes at once, for all tables.
CREATE TABLE IF NOT EXISTS promotions
(
    -- kafka.applicationId; empty for a configuration without Kafka.
    name        String,
    run_id      String,
    promoted_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(promoted_at)
ORDER BY name;
