-- Which users are most like this one now?
-- param run_id String
-- param user_id String
-- param k UInt32 = 10
-- By the cosine of their newest embeddings; exact, over all users. Those of another model are not comparable and left out.
WITH
    (
        SELECT (argMax(embedding, version), argMax(model_digest, version))
        FROM embeddings_current
        WHERE run_id = {run_id:String} AND user_id = {user_id:String}
    ) AS asked
SELECT user_id, 1 - cosineDistance(embedding, asked.1) AS cosine, sequence_length, last_event_time
FROM embeddings_current FINAL
WHERE run_id = {run_id:String} AND user_id != {user_id:String} AND model_digest = asked.2 AND length(embedding) = length(asked.1)
ORDER BY cosine DESC, user_id
LIMIT {k:UInt32}
