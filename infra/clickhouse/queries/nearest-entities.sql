-- Which entities are nearest to this user now, and has the user acted on them?
-- param run_id String
-- param user_id String
-- param k UInt32 = 10
-- By dot product of the newest embedding with the catalogue's vectors, exact, over the whole catalogue of the embedding's model.
WITH
    (
        SELECT (argMax(embedding, version), argMax(model_digest, version))
        FROM embeddings_current
        WHERE run_id = {run_id:String} AND user_id = {user_id:String}
    ) AS asked
SELECT
    entity,
    dotProduct(vector, asked.1) AS score,
    entity IN (SELECT entity FROM actions WHERE run_id = {run_id:String} AND user_id = {user_id:String}) AS seen
FROM entities FINAL
WHERE model_digest = asked.2 AND length(vector) = length(asked.1)
ORDER BY score DESC, entity
LIMIT {k:UInt32}
