/** Our schemas as they were: an id never changes its text, so that records written long ago stay readable. */

/** JSON text by fixed id. */
export const SUPERSEDED_SCHEMAS: ReadonlyMap<number, string> = new Map([
  [
    0x48_53_02_01,
    `{
  "type": "record",
  "name": "CandidateRequest",
  "namespace": "io.hstustreams",
  "doc": "Asks for the scores of some entities for a user, answered on candidate-scores. Topic candidate-requests, key: userId in UTF-8, partitioned like user-actions.",
  "fields": [
    { "name": "requestId", "type": "string", "doc": "Comes back with the answer." },
    { "name": "userId", "type": "string" },
    { "name": "entities", "type": { "type": "array", "items": "string" }, "doc": "The candidates, with their namespaces: movie:1." },
    { "name": "queryTimeMs", "type": "long", "doc": "The moment that the scores are for, ms since the epoch." },
    { "name": "deadlineMs", "type": ["null", "long"], "default": null, "doc": "An answer later than this is of no use, ms since the epoch." }
  ]
}`,
  ],
  [
    0x48_53_02_02,
    `{
  "type": "record",
  "name": "CandidateRequest",
  "namespace": "io.hstustreams",
  "doc": "Asks for the scores of some entities for a user, answered on candidate-scores. Topic candidate-requests, key: userId in UTF-8, partitioned like user-actions.",
  "fields": [
    { "name": "requestId", "type": "string", "doc": "Comes back with the answer." },
    { "name": "userId", "type": "string" },
    { "name": "entities", "type": { "type": "array", "items": "string" }, "doc": "The candidates, with their namespaces: movie:1. None, and topK: the whole catalogue." },
    { "name": "queryTimeMs", "type": "long", "doc": "The moment that the scores are for, ms since the epoch." },
    { "name": "deadlineMs", "type": ["null", "long"], "default": null, "doc": "An answer later than this is of no use, ms since the epoch." },
    { "name": "topK", "type": ["null", "int"], "default": null, "doc": "At most so many of the best; null: all that were asked for." },
    { "name": "deny", "type": { "type": "array", "items": "string" }, "default": [], "doc": "Entities that the answer must not hold." }
  ]
}`,
  ],
  [
    0x48_53_05_01,
    `{
  "type": "record",
  "name": "CandidateScores",
  "namespace": "io.hstustreams",
  "doc": "Entities scored for a user. Topic candidate-scores, key: userId in UTF-8.",
  "fields": [
    { "name": "userId", "type": "string" },
    { "name": "version", "type": "long", "doc": "The version of the embedding that scored." },
    { "name": "requestId", "type": ["null", "string"], "default": null, "doc": "The CandidateRequest that this answers; null: the best of the catalogue, published with the embedding." },
    {
      "name": "candidates",
      "doc": "Best first.",
      "type": {
        "type": "array",
        "items": {
          "type": "record",
          "name": "Candidate",
          "fields": [
            { "name": "entity", "type": "string" },
            { "name": "score", "type": "double", "doc": "Comparable within one record only." }
          ]
        }
      }
    },
    {
      "name": "lineage",
      "doc": "Which input and which model this was made of.",
      "type": {
        "type": "record",
        "name": "Lineage",
        "fields": [
          { "name": "topic", "type": "string", "doc": "Topic of the newest input record that this output includes." },
          { "name": "partition", "type": "int" },
          { "name": "offset", "type": "long" },
          { "name": "sequenceDigest", "type": "string", "doc": "Rolling digest over the window, 16 hexadecimal digits." },
          { "name": "modelDigest", "type": "string", "doc": "Identity of the model bundle." }
        ]
      }
    },
    { "name": "computedAtMs", "type": "long", "doc": "When it was computed, ms since the epoch." }
  ]
}`,
  ],
  [
    0x48_53_06_01,
    `{
  "type": "record",
  "name": "DeadLetter",
  "namespace": "io.hstustreams",
  "doc": "A record that could not be used, byte for byte, and why. Topic dead-letters, key: the user's id where the record could be read, else the record's own. Enough to send it again.",
  "fields": [
    { "name": "topic", "type": "string", "doc": "Where the record came from." },
    { "name": "partition", "type": "int" },
    { "name": "offset", "type": "long" },
    { "name": "timestampMs", "type": ["null", "long"], "default": null, "doc": "The record's own timestamp, ms since the epoch." },
    { "name": "originalKey", "type": ["null", "bytes"], "default": null, "doc": "The record's key; null: it had none." },
    { "name": "original", "type": ["null", "bytes"], "default": null, "doc": "The record's value; null: it was a tombstone." },
    { "name": "code", "type": "string", "doc": "RECORD_MALFORMED, TIME_INVALID and so on. Text rather than an enum: the set grows, and an old consumer must read what it does not know." },
    { "name": "step", "type": "string", "doc": "The step that gave up on it." },
    { "name": "message", "type": "string", "doc": "For people: the field, the value, what is allowed." }
  ]
}`,
  ],
  [
    0x48_53_08_01,
    `{
  "type": "record",
  "name": "Entity",
  "namespace": "io.hstustreams",
  "doc": "All that is said of an entity of the catalogue beside the model. Topic entities, compacted, key: entity in UTF-8. A null value with the key takes back what was said.",
  "fields": [
    { "name": "entity", "type": "string", "doc": "With its namespace: movie:1." },
    { "name": "content", "type": { "type": "array", "items": "float" }, "default": [], "doc": "Embedding of its content, by what the bundle's projection was fitted to; empty: none." },
    { "name": "popularity", "type": ["null", "double"], "default": null, "doc": "More is more popular; null: as the bundle has it." },
    { "name": "retired", "type": "boolean", "default": false, "doc": "Not to be offered any more." }
  ]
}`,
  ],
]);
