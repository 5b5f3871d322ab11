-- Which records could not be used, and why?
-- param run_id String
SELECT
    code,
    step,
    count() AS records,
    argMin(message, (topic, partition, offset)) AS example,
    argMin(concat(topic, '/', toString(partition), '/', toString(offset)), (topic, partition, offset)) AS first_at
FROM dead_letters FINAL
WHERE run_id = {run_id:String}
GROUP BY code, step
ORDER BY records DESC, code, step
