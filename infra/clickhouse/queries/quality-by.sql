-- How good were the embeddings at ranking what users did next, by hour, kind of action, length of history, or age of the user?
-- param run_id String
-- param by Enum('hour','action','length','age') = hour
-- param k UInt32 = 10
-- plot hr ndcg mrr
-- `length`: events before the one ranked; `age`: days since the user's first event; both from the number shown up to the next.
-- For one relevant item NDCG@K is 1 / log2(rank + 1), or 0 beyond K.
WITH first AS
(
    SELECT user_id, min(event_time) AS at
    FROM actions
    WHERE run_id = {run_id:String} AND {by:Enum('hour','action','length','age')} = 'age'
    GROUP BY user_id
)
SELECT
    multiIf(
        {by:Enum('hour','action','length','age')} = 'hour', formatDateTime(toStartOfHour(q.event_time), '%Y-%m-%d %H:00'),
        {by:Enum('hour','action','length','age')} = 'action', toString(q.action),
        toString(from)) AS bucket,
    count() AS events,
    avg(rank <= {k:UInt32}) AS hr,
    avg(if(rank <= {k:UInt32}, 1 / log2(rank + 1), 0)) AS ndcg,
    avg(1 / rank) AS mrr
FROM
(
    SELECT
        quality.event_time AS event_time, quality.action AS action, quality.rank AS rank,
        multiIf(
            {by:Enum('hour','action','length','age')} = 'length', toInt64(prior_events),
            {by:Enum('hour','action','length','age')} = 'age', greatest(0, dateDiff('day', first.at, quality.event_time)),
            0) AS size,
        if(size < 1, 0, toInt64(exp2(floor(log2(size))))) AS from
    FROM quality FINAL
    LEFT JOIN first ON first.user_id = quality.user_id
    WHERE quality.run_id = {run_id:String} AND quality.rank > 0
) AS q
GROUP BY bucket, from
ORDER BY from, bucket
