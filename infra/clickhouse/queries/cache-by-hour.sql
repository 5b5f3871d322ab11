-- How often did the encoder's cache help, how many rows did an event cost, and why were rows computed again?
-- param run_id String
-- plot hit_share rows_per_event
-- By the hour of computing. Two rows an event is an ideal cache, one event a user a batch. Causes: `cold` a user not in the
-- cache, `window` the window slid, `diverged` a late event or another history, `uncached` the cache was full.
SELECT
    toStartOfHour(computed_at) AS hour,
    count() AS embeddings,
    avg(outcome = 'hit') AS hit_share,
    sum(rows_computed) / sum(gained) AS rows_per_event,
    countIf(outcome = 'cold') AS cold,
    countIf(outcome = 'window') AS window,
    countIf(outcome = 'diverged') AS diverged,
    countIf(outcome = 'uncached') AS uncached
FROM
(
    SELECT
        computed_at, outcome, rows_computed,
        version - lagInFrame(version, 1, 0) OVER (PARTITION BY user_id ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS gained
    FROM embeddings FINAL
    WHERE run_id = {run_id:String}
)
GROUP BY hour
ORDER BY hour
