-- How much of the catalogue is recommended, and how biased are recommendations to what is popular?
-- param run_id String
-- plot actions_share recommended_share
-- Entities by how often they were acted on, in ten classes of (about) equally many, the most popular first; `never`: recommended
-- without ever having been acted on. Recommended: in the newest list of some user. Fair to popularity, the two shares are equal.
WITH
    acted AS
    (
        SELECT entity, count() AS actions, ntile(10) OVER (ORDER BY count() DESC, entity ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS class
        FROM actions FINAL
        WHERE run_id = {run_id:String}
        GROUP BY entity
    ),
    recommended AS
    (
        SELECT arrayJoin(entities) AS entity, count() AS times
        FROM
        (
            SELECT entities
            FROM scores
            WHERE run_id = {run_id:String} AND request_id = ''
              AND (user_id, version) IN
              (
                  SELECT user_id, max(version) FROM scores
                  WHERE run_id = {run_id:String} AND request_id = '' GROUP BY user_id
              )
            LIMIT 1 BY user_id
        )
        GROUP BY entity
    )
SELECT
    if(class = 0, 'never', toString(class)) AS popularity,
    count() AS entities,
    countIf(times > 0) AS recommended,
    countIf(times > 0) / count() AS coverage,
    sum(actions) / sum(sum(actions)) OVER () AS actions_share,
    sum(times) / sum(sum(times)) OVER () AS recommended_share
FROM acted
FULL OUTER JOIN recommended USING (entity)
GROUP BY class
ORDER BY class = 0, class
