-- How good were the embeddings, year by year, at ranking what users did next?
-- param run_id String
-- param unseen_users Array(String) = []
-- param min_prior UInt32 = 5
-- `unseen_users` are those whom the model was not trained on. For one relevant item NDCG@10 is 1 / log2(rank + 1), or 0.
SELECT
    toYear(event_time) AS year,
    if(has({unseen_users:Array(String)}, user_id), 'unseen', 'seen') AS users,
    count() AS events,
    avg(rank <= 10) AS hr_10,
    avg(if(rank <= 10, 1 / log2(rank + 1), 0)) AS ndcg_10,
    avg(1 / rank) AS mrr,
    avg(rank <= 50) AS hr_50
FROM quality FINAL
WHERE run_id = {run_id:String} AND prior_events >= {min_prior:UInt32} AND rank > 0
GROUP BY year, users
ORDER BY year, users
