-- A record may hold several actions (`mapping.each`): `part` tells them apart, from 0. Records of one action have 0.

ALTER TABLE actions
    ADD COLUMN IF NOT EXISTS part UInt16,
    MODIFY ORDER BY (run_id, user_id, event_time, topic, partition, offset, part);

ALTER TABLE outcomes
    ADD COLUMN IF NOT EXISTS event_id String,
    MODIFY ORDER BY (run_id, user_id, topic, partition, offset, event_id);
