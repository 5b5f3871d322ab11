-- Does anything of an erased user remain?
-- param run_id String
-- param user_id String =
-- A row an erased user; `user_id` asks about one. Of a user who came back, only what stands before the erasure counts.
WITH
    cuts AS
    (
        SELECT
            toString(erasures.user_hash) AS user_hash,
            max(erased_at) AS erased,
            maxIf(erased_at, scope = 'outputs') AS outputs_end,
            maxIf(erased_at, scope = 'actions' AND offset IS NULL) AS actions_end,
            groupArrayIf((topic, partition, assumeNotNull(offset)), offset IS NOT NULL) AS places
        FROM erasures FINAL
        WHERE run_id = {run_id:String}
          AND ({user_id:String} = '' OR erasures.user_hash = lower(hex(SHA256({user_id:String}))))
        GROUP BY user_hash
    ),
    found AS
    (
        SELECT 'actions' AS tab, user_id, recorded_at AS at, topic, partition, offset
        FROM actions
        WHERE run_id = {run_id:String} AND user_id IN
            (SELECT user_id FROM (SELECT DISTINCT user_id FROM actions WHERE run_id = {run_id:String}) WHERE lower(hex(SHA256(user_id))) IN (SELECT user_hash FROM cuts))
        UNION ALL SELECT 'embeddings', user_id, published_at, topic, partition, offset
        FROM embeddings
        WHERE run_id = {run_id:String} AND user_id IN
            (SELECT user_id FROM (SELECT DISTINCT user_id FROM embeddings WHERE run_id = {run_id:String}) WHERE lower(hex(SHA256(user_id))) IN (SELECT user_hash FROM cuts))
        UNION ALL SELECT 'embeddings_current', user_id, published_at, topic, partition, offset
        FROM embeddings_current
        WHERE run_id = {run_id:String} AND user_id IN
            (SELECT user_id FROM (SELECT DISTINCT user_id FROM embeddings_current WHERE run_id = {run_id:String}) WHERE lower(hex(SHA256(user_id))) IN (SELECT user_hash FROM cuts))
        UNION ALL SELECT 'scores', user_id, published_at, topic, partition, offset
        FROM scores
        WHERE run_id = {run_id:String} AND user_id IN
            (SELECT user_id FROM (SELECT DISTINCT user_id FROM scores WHERE run_id = {run_id:String}) WHERE lower(hex(SHA256(user_id))) IN (SELECT user_hash FROM cuts))
        UNION ALL SELECT 'quality', user_id, published_at, topic, partition, offset
        FROM quality
        WHERE run_id = {run_id:String} AND user_id IN
            (SELECT user_id FROM (SELECT DISTINCT user_id FROM quality WHERE run_id = {run_id:String}) WHERE lower(hex(SHA256(user_id))) IN (SELECT user_hash FROM cuts))
        UNION ALL SELECT 'outcomes', user_id, published_at, topic, partition, offset
        FROM outcomes
        WHERE run_id = {run_id:String} AND user_id IN
            (SELECT user_id FROM (SELECT DISTINCT user_id FROM outcomes WHERE run_id = {run_id:String}) WHERE lower(hex(SHA256(user_id))) IN (SELECT user_hash FROM cuts))
        UNION ALL SELECT 'dead_letters', user_id, published_at, topic, partition, offset
        FROM dead_letters
        WHERE run_id = {run_id:String} AND user_id IN
            (SELECT user_id FROM (SELECT DISTINCT user_id FROM dead_letters WHERE run_id = {run_id:String}) WHERE lower(hex(SHA256(user_id))) IN (SELECT user_hash FROM cuts))
    ),
    remaining AS
    (
        SELECT cuts.user_hash AS user_hash, count() AS rows, groupUniqArray(tab) AS tables
        FROM (SELECT *, lower(hex(SHA256(user_id))) AS user_hash FROM found) AS f
        INNER JOIN cuts ON cuts.user_hash = f.user_hash
        WHERE (tab != 'actions' AND at < outputs_end)
           OR (tab IN ('actions', 'dead_letters')
               AND ((toUnixTimestamp64Milli(actions_end) > 0 AND at <= actions_end)
                    OR arrayExists(place -> place.1 = topic AND place.2 = partition AND offset <= place.3, places)))
        GROUP BY user_hash
    )
SELECT substring(cuts.user_hash, 1, 16) AS user_digest, erased AS erased_at, remaining.rows AS remaining, arraySort(remaining.tables) AS tables
FROM cuts
LEFT JOIN remaining ON remaining.user_hash = cuts.user_hash
ORDER BY remaining DESC, erased_at DESC, user_digest
