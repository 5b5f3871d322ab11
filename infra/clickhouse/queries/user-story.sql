-- What did this user do last?
-- param run_id String
-- param user_id String
-- param limit UInt32 = 20
SELECT event_time, action, entity, value, disposition, topic, partition, offset
FROM actions FINAL
WHERE run_id = {run_id:String} AND user_id = {user_id:String}
ORDER BY event_time DESC, topic DESC, partition DESC, offset DESC
LIMIT {limit:UInt32}
