-- What is the full story of a user: actions, what became of them, embeddings, candidates, and of what each was made?
-- param run_id String
-- param user_id String
-- param limit UInt32 = 50
-- The newest `limit` entries, oldest first. `made_of`: the newest input record that it includes; the digest is of the window.
SELECT at, kind, what, made_of, sequence_digest, substring(model_digest, 1, 16) AS model
FROM
(
    SELECT
        a.event_time AS at, 'action' AS kind, 0 AS place, toUInt64(0) AS version,
        concat(a.action, ' ', a.entity, if(a.value IS NULL, '', concat(' ', toString(a.value))), if(q.rank > 0, concat(', rank ', toString(q.rank)), ''),
            if(a.disposition != '', concat(', ', a.disposition), if(o.disposition != '', concat(', ', o.disposition), ''))) AS what,
        concat(a.topic, '/', toString(a.partition), '/', toString(a.offset)) AS made_of,
        toString(q.sequence_digest) AS sequence_digest, toString(q.model_digest) AS model_digest
    FROM (SELECT * FROM actions FINAL WHERE run_id = {run_id:String} AND user_id = {user_id:String}) AS a
    LEFT JOIN (SELECT * FROM outcomes FINAL WHERE run_id = {run_id:String} AND user_id = {user_id:String}) AS o USING (topic, partition, offset)
    LEFT JOIN (SELECT * FROM quality FINAL WHERE run_id = {run_id:String} AND user_id = {user_id:String}) AS q USING (topic, partition, offset)
    UNION ALL
    SELECT
        query_time, 'embedding', 1, version,
        concat('version ', toString(version), ' of ', toString(sequence_length), ' events, cache ', outcome, ', ', toString(rows_computed), ' rows'),
        concat(topic, '/', toString(partition), '/', toString(offset)), toString(sequence_digest), toString(model_digest)
    FROM embeddings FINAL
    WHERE run_id = {run_id:String} AND user_id = {user_id:String}
    UNION ALL
    SELECT
        if(s.query_time IS NULL, e.query_time, assumeNotNull(s.query_time)), 'candidates', 2, s.version,
        concat(if(s.request_id = '', '', concat('request ', s.request_id, if(s.cold_start, ' (cold start): ', ': '))), arrayStringConcat(arraySlice(s.entities, 1, 5), ' '),
            if(length(s.entities) > 5, concat(' and ', toString(length(s.entities) - 5), ' more'), '')),
        concat(s.topic, '/', toString(s.partition), '/', toString(s.offset)), toString(s.sequence_digest), toString(s.model_digest)
    FROM (SELECT * FROM scores FINAL WHERE run_id = {run_id:String} AND user_id = {user_id:String}) AS s
    LEFT JOIN (SELECT version, query_time FROM embeddings FINAL WHERE run_id = {run_id:String} AND user_id = {user_id:String}) AS e USING (version)
)
ORDER BY at DESC, version DESC, place DESC, made_of DESC
LIMIT {limit:UInt32}
