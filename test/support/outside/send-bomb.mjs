/** `node send-bomb.mjs BROKER TOPIC BYTES`: one record of so many spaces, in one gzip batch to partition 0. In a process of its own: packing it takes seconds. */
import kafkajs from 'kafkajs';

const [broker, topic, bytes] = process.argv.slice(2);
const kafka = new kafkajs.Kafka({ brokers: [broker], logLevel: kafkajs.logLevel.ERROR });
const producer = kafka.producer({ allowAutoTopicCreation: false });
await producer.connect();
const messages = [{ partition: 0, key: 'x', value: Buffer.alloc(Number(bytes), ' ') }];
await producer.send({ topic, compression: kafkajs.CompressionTypes.GZIP, messages });
await producer.disconnect();
