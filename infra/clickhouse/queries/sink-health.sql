-- Where did the sink stand, and how far behind was it?
-- param run_id String
-- param hours UInt32 = 24
-- plot max_lag by topic
-- The last `hours` of a live run, every five minutes.
SELECT topic, toStartOfInterval(at, INTERVAL 5 MINUTE) AS minute, max(lag) AS max_lag, max(next_offset) AS next_offset, uniqExact(partition) AS partitions
FROM health
WHERE run_id = {run_id:String} AND at > now() - toIntervalHour({hours:UInt32})
GROUP BY topic, minute
ORDER BY topic, minute
