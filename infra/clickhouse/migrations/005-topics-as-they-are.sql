-- A position belongs to a topic, not to its name: the id of the topic that next_offset counts in; empty where it is not known.
ALTER TABLE sink_offsets ADD COLUMN IF NOT EXISTS topic_id String DEFAULT '' CODEC(ZSTD(1));

-- Length of the original where only its beginning is kept, bytes; 0: it is whole.
ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS cut_from UInt64 DEFAULT 0 CODEC(ZSTD(1));
