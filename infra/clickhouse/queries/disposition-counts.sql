-- What became of the actions that were read?
-- param run_id String
SELECT disposition, action, count() AS actions, uniqExact(user_id) AS users
FROM dispositions
WHERE run_id = {run_id:String}
GROUP BY disposition, action
ORDER BY actions DESC, disposition, action
