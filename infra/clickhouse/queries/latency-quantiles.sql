-- How long did it take from reading a record to having the embedding?
-- param run_id String
SELECT
    count() AS embeddings,
    quantileExact(0.5)(latency_ms) AS p50_ms,
    quantileExact(0.9)(latency_ms) AS p90_ms,
    quantileExact(0.99)(latency_ms) AS p99_ms,
    max(latency_ms) AS max_ms
FROM embeddings FINAL
WHERE run_id = {run_id:String}
