-- How long after an event is an embedding that knows of it published, hour by hour and partition by partition?
-- param run_id String
-- plot event_p50_ms event_p99_ms by partition
-- From the newest event in the embedding to the record's timestamp on its topic; `read_…`: from reading that event to having
-- the embedding, so that the difference is what the event waited before it was read, and the publishing. Live runs only.
SELECT
    toStartOfHour(published_at) AS hour,
    partition,
    count() AS embeddings,
    quantileExact(0.5)(toUnixTimestamp64Milli(published_at) - toUnixTimestamp64Milli(last_event_time)) AS event_p50_ms,
    quantileExact(0.9)(toUnixTimestamp64Milli(published_at) - toUnixTimestamp64Milli(last_event_time)) AS event_p90_ms,
    quantileExact(0.99)(toUnixTimestamp64Milli(published_at) - toUnixTimestamp64Milli(last_event_time)) AS event_p99_ms,
    quantileExact(0.5)(latency_ms) AS read_p50_ms,
    quantileExact(0.99)(latency_ms) AS read_p99_ms
FROM embeddings FINAL
WHERE run_id = {run_id:String} AND published_at > toDateTime64(0, 3, 'UTC')
GROUP BY hour, partition
ORDER BY hour, partition
