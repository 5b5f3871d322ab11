-- How often did the encoder's cache help, and what did each outcome cost?
-- param run_id String
SELECT
    outcome,
    count() AS embeddings,
    avg(rows_computed) AS avg_rows,
    avg(sequence_length) AS avg_sequence
FROM embeddings FINAL
WHERE run_id = {run_id:String}
GROUP BY outcome
ORDER BY embeddings DESC, outcome
