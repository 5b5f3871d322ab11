-- How far do embeddings move, from one version to the next, and in a day?
-- param run_id String
-- param one_user_in UInt32 = 10
-- plot to_previous_p50 to_previous_p10 to_day_ago_p50 to_day_ago_p10
-- Cosine similarity by the day of the newer one: of each embedding to the user's previous one, and of each user's last of the
-- day to the newest that was a day older. Of every `one_user_in`-th user, by a hash of the id.
WITH
    history AS
    (
        SELECT user_id, version, last_event_time, embedding
        FROM embeddings FINAL
        WHERE run_id = {run_id:String} AND cityHash64(user_id) % {one_user_in:UInt32} = 0
    ),
    steps AS
    (
        SELECT toDate(last_event_time) AS day, 1 - cosineDistance(embedding, previous) AS cosine
        FROM
        (
            SELECT last_event_time, embedding,
                lagInFrame(embedding) OVER (PARTITION BY user_id ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS previous
            FROM history
        )
        WHERE notEmpty(previous)
    ),
    days AS
    (
        SELECT toDate(newer.last_event_time) AS day, 1 - cosineDistance(newer.embedding, older.embedding) AS cosine
        FROM
        (
            SELECT user_id, last_event_time, embedding, last_event_time - INTERVAL 1 DAY AS before
            FROM history
            ORDER BY user_id, toDate(last_event_time), version DESC
            LIMIT 1 BY user_id, toDate(last_event_time)
        ) AS newer
        ASOF INNER JOIN history AS older ON older.user_id = newer.user_id AND newer.before >= older.last_event_time
    )
SELECT
    s.day AS day,
    s.steps AS steps,
    s.p50 AS to_previous_p50,
    s.p10 AS to_previous_p10,
    d.users AS users,
    if(d.users > 0, d.p50, NULL) AS to_day_ago_p50,
    if(d.users > 0, d.p10, NULL) AS to_day_ago_p10
FROM (SELECT day, count() AS steps, quantileExact(0.5)(cosine) AS p50, quantileExact(0.1)(cosine) AS p10 FROM steps GROUP BY day) AS s
LEFT JOIN (SELECT day, count() AS users, quantileExact(0.5)(cosine) AS p50, quantileExact(0.1)(cosine) AS p10 FROM days GROUP BY day) AS d
ON s.day = d.day
ORDER BY day
