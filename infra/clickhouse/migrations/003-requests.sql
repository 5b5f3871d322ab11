-- What answers to candidate requests say beside the scores.
ALTER TABLE scores ADD COLUMN IF NOT EXISTS cold_start Bool DEFAULT false;
-- The moment that the scores are for; null where it is that of the newest event.
ALTER TABLE scores ADD COLUMN IF NOT EXISTS query_time Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1));
-- Age of the newest event in the state at that moment; null without history, and where it was not said.
ALTER TABLE scores ADD COLUMN IF NOT EXISTS age_ms Nullable(Float64) CODEC(ZSTD(1));
-- Probabilities by task, each in the order of `entities`.
ALTER TABLE scores ADD COLUMN IF NOT EXISTS tasks Map(LowCardinality(String), Array(Float32));
-- Asked for and not scored: entity to reason.
ALTER TABLE scores ADD COLUMN IF NOT EXISTS left_out Map(String, LowCardinality(String)) CODEC(ZSTD(1));
