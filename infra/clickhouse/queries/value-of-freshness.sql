-- What is freshness worth: how would the user's embedding of an hour or a day before have ranked the same events?
-- param run_id String
-- param events UInt32 = 50
-- param k UInt32 = 10
-- A sample of the ranked events, the same for everyone who asks. Each is ranked, as live, among all entities that its user had
-- not seen: `live` as it was; `newest` by the last embedding stored before it, which its version says, for events share times; and by the
-- last that was an hour or a day old. Only events that have all of them. A stored embedding is for the moment of its last event, the
-- live one for the moment asked.
WITH
    -- A list, as the targets below: a named query would be computed again wherever it is named.
    -- More than are wanted: not all have embeddings that are old enough.
    (
        SELECT groupArray((user_id, event_id, event_time, entity, rank, prior_events, offset))
        FROM
        (
            SELECT user_id, event_id, event_time, entity, rank, prior_events, offset
            FROM quality FINAL
            WHERE run_id = {run_id:String} AND rank > 0
              AND user_id IN
              (
                  SELECT user_id FROM embeddings WHERE run_id = {run_id:String}
                  GROUP BY user_id HAVING max(last_event_time) > min(last_event_time) + INTERVAL 1 DAY
              )
            ORDER BY cityHash64(user_id, event_id), user_id, event_id
            LIMIT 4 * {events:UInt32}
        )
    ) AS picked,
    arrayMap(event -> event.1, picked) AS users,
    complete AS
    (
        SELECT asked.user_id AS user_id, asked.event_id AS event_id, any(asked.event_time) AS event_time,
            any(asked.entity) AS entity, any(asked.rank) AS rank, any(asked.offset) AS offset, any(asked.model_digest) AS model_digest,
            arraySort(groupArray((asked.age_s, asked.embedding))) AS aged
        FROM
        (
            SELECT asked.user_id AS user_id, event_id, event_time, entity, rank, offset, age_s, history.embedding AS embedding,
                history.model_digest AS model_digest
            FROM
            (
                SELECT arrayJoin(picked) AS event, event.1 AS user_id, event.2 AS event_id, event.3 AS event_time, event.4 AS entity,
                    event.5 AS rank, event.7 AS offset, arrayJoin([3600, 86400]) AS age_s, event_time - toIntervalSecond(age_s) AS before
            ) AS asked
            ASOF INNER JOIN
            (
                SELECT user_id, last_event_time, embedding, model_digest
                FROM embeddings FINAL
                WHERE run_id = {run_id:String} AND user_id IN (SELECT arrayJoin(users))
                ORDER BY user_id, last_event_time, version DESC
                LIMIT 1 BY user_id, last_event_time
            ) AS history
            ON asked.user_id = history.user_id AND asked.before > history.last_event_time
            UNION ALL
            SELECT asked.user_id AS user_id, event_id, event_time, entity, rank, offset, 0 AS age_s, history.embedding AS embedding,
                history.model_digest AS model_digest
            FROM
            (
                SELECT arrayJoin(picked) AS event, event.1 AS user_id, event.2 AS event_id, event.3 AS event_time, event.4 AS entity,
                    event.5 AS rank, event.6 AS prior_events, event.7 AS offset
            ) AS asked
            ASOF INNER JOIN
            (
                SELECT user_id, version, embedding, model_digest
                FROM embeddings FINAL
                WHERE run_id = {run_id:String} AND user_id IN (SELECT arrayJoin(users))
            ) AS history
            ON asked.user_id = history.user_id AND asked.prior_events >= history.version
        ) AS asked
        GROUP BY user_id, event_id
        HAVING count() = 3 AND uniqExact(asked.model_digest) = 1
        ORDER BY cityHash64(user_id, event_id), user_id, event_id
        LIMIT {events:UInt32}
    ),
    -- An event and an age a row; `score`: what that embedding gives to what the user did.
    (
        SELECT groupArray((user_id, event_id, event_time, rank, model_digest, age_s, embedding, score, offset))
        FROM
        (
            SELECT c.user_id AS user_id, c.event_id AS event_id, c.event_time AS event_time, c.rank AS rank, c.offset AS offset, c.model_digest AS model_digest,
                arrayJoin(c.aged) AS one, one.1 AS age_s, one.2 AS embedding, dotProduct(embedding, e.vector) AS score
            FROM complete AS c
            INNER JOIN (SELECT * FROM entities FINAL) AS e ON e.entity = c.entity AND e.model_digest = c.model_digest
        )
    ) AS target_list,
    targets AS
    (
        SELECT arrayJoin(target_list) AS target, target.1 AS user_id, target.2 AS event_id, target.3 AS event_time, target.4 AS rank,
            target.5 AS model_digest, target.6 AS age_s, target.7 AS embedding, target.8 AS score, target.9 AS offset
    ),
    counted AS
    (
        SELECT targets.user_id AS user_id, targets.event_id AS event_id, targets.age_s AS age_s, any(targets.rank) AS rank,
            toInt64(countIf(dotProduct(targets.embedding, e.vector) > targets.score)) AS higher
        FROM (SELECT * FROM entities FINAL) AS e
        INNER JOIN targets ON targets.model_digest = e.model_digest
        GROUP BY user_id, event_id, age_s
        UNION ALL
        -- Those of them that the user had seen, and that were not to be recommended again.
        SELECT t.user_id, t.event_id, t.age_s, toUInt32(0), -toInt64(uniqExactIf(e.entity, dotProduct(t.embedding, e.vector) > t.score))
        FROM
        (
            SELECT user_id, entity, event_time, offset FROM actions
            WHERE run_id = {run_id:String} AND user_id IN (SELECT arrayJoin(users))
        ) AS seen
        INNER JOIN targets AS t ON t.user_id = seen.user_id
        INNER JOIN (SELECT * FROM entities FINAL) AS e ON e.entity = seen.entity AND e.model_digest = t.model_digest
        WHERE (seen.event_time, seen.offset) < (t.event_time, t.offset)
        GROUP BY t.user_id, t.event_id, t.age_s
    ),
    ranks AS
    (
        SELECT user_id, event_id, age_s, 1 + sum(higher) AS ranked, max(rank) AS live
        FROM counted
        GROUP BY user_id, event_id, age_s
    )
SELECT
    multiIf(place < 0, 'live', place = 0, 'newest', place = 3600, 'one hour old', 'one day old') AS embedding,
    count() AS events,
    avg(r <= {k:UInt32}) AS hr,
    avg(if(r <= {k:UInt32}, 1 / log2(r + 1), 0)) AS ndcg,
    avg(1 / r) AS mrr
FROM
(
    SELECT arrayJoin(if(age_s = 0, [(toInt64(-1), toInt64(live)), (toInt64(0), ranked)], [(toInt64(age_s), ranked)])) AS both, both.1 AS place, both.2 AS r
    FROM ranks
)
GROUP BY place
ORDER BY place
