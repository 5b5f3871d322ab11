-- What is recommended to this user now, and what was before the latest change?
-- param run_id String
-- param user_id String
-- param k UInt32 = 10
SELECT version, computed_at, place, entity, score
FROM
(
    SELECT version, computed_at, entities, scores
    FROM scores FINAL
    WHERE run_id = {run_id:String} AND user_id = {user_id:String} AND request_id = ''
    ORDER BY version DESC
    LIMIT 2
)
ARRAY JOIN entities AS entity, scores AS score, arrayEnumerate(entities) AS place
WHERE place <= {k:UInt32}
ORDER BY version DESC, place
