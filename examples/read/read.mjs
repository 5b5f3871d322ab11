// The newest embedding and list of every user, as they come.   npm install kafkajs avsc
//   hstu-streams schemas UserEmbedding > UserEmbedding.avsc; hstu-streams schemas CandidateScores > CandidateScores.avsc
//   node read.mjs localhost:9092 user-embeddings candidate-scores
import { readFileSync } from 'node:fs';
import avro from 'avsc';
import { Kafka } from 'kafkajs';

const [broker, embeddings, scores] = process.argv.slice(2);
const schema = (name) => avro.Type.forSchema(JSON.parse(readFileSync(`${name}.avsc`, 'utf8')));
const types = { [embeddings]: schema('UserEmbedding'), [scores]: schema('CandidateScores') };
const newest = new Map();

// Only what was committed: kafkajs does so unless told otherwise.
const consumer = new Kafka({ brokers: [broker], clientId: 'reader' }).consumer({ groupId: `reader-${process.pid}` });
await consumer.connect();
await consumer.subscribe({ topics: [embeddings, scores], fromBeginning: true });
await consumer.run({
  eachMessage: async ({ topic, message }) => {
    const user = message.key.toString();
    // A tombstone: the user was erased.
    if (message.value === null) return void newest.delete(`${topic} ${user}`);
    // Behind a zero byte and four bytes of the schema's id.
    const record = types[topic].fromBuffer(message.value.subarray(5));
    // What answers a request is no list of everybody's.
    if (record.requestId || record.version < (newest.get(`${topic} ${user}`) ?? 0)) return;
    newest.set(`${topic} ${user}`, record.version);
    const what = record.embedding ?? record.candidates.map(({ entity }) => entity);
    console.log(JSON.stringify({ topic, user, version: record.version, first: what.slice(0, 3) }));
  },
});
