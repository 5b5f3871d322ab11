/** What kafkajs throws, told apart: a login that is refused is final, a connection that ended is not. */
import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { kafkaError } from '../../../infra/kafka/kafka-errors.ts';

type Thrown = new (message: string, facts?: object) => Error;
const { KafkaJSSASLAuthenticationError, KafkaJSConnectionError, KafkaJSNonRetriableError } = createRequire(import.meta.url)(
  'kafkajs/src/errors.js',
) as {
  readonly KafkaJSSASLAuthenticationError: Thrown;
  readonly KafkaJSConnectionError: Thrown;
  readonly KafkaJSNonRetriableError: new (error: Error, facts: object) => Error;
};
const codeOf = (thrown: unknown) => kafkaError(thrown, 'fetching').code;

describe('an error of kafkajs', () => {
  // As its authenticators word them: whatever goes wrong during a login is theirs.
  it.each([
    ['Closed connection', 'KAFKA_UNAVAILABLE'],
    ['Connection error: read ECONNRESET', 'KAFKA_UNAVAILABLE'],
    ['Request SaslAuthenticate(key: 36, version: 1) timed out', 'KAFKA_UNAVAILABLE'],
    [
      'Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512',
      'KAFKA_AUTHENTICATION',
    ],
    ['Invalid server signature in server final message', 'KAFKA_AUTHENTICATION'],
  ])('during a login, %s, is %s', (message, code) => {
    expect(codeOf(new KafkaJSSASLAuthenticationError(`SASL SCRAM SHA512 authentication failed: ${message}`))).toBe(code);
  });

  it.each([
    ['Client network socket disconnected before secure TLS connection was established', 'ECONNRESET', 'KAFKA_UNAVAILABLE'],
    ['certificate has expired', 'CERT_HAS_EXPIRED', 'KAFKA_AUTHENTICATION'],
  ])('while TLS is agreed on, %s (%s) is %s', (message, code, expected) => {
    expect(codeOf(new KafkaJSConnectionError(`Connection error: ${message}`, { code }))).toBe(expected);
  });

  /** What its own code throws where it reads on in an answer that it has not got. */
  it.each([
    () => {
      const { topicMetadata } = null as unknown as { topicMetadata: unknown };
      return topicMetadata;
    },
    () => (undefined as unknown as { partitions: unknown }).partitions,
    () => {
      const [answer] = undefined as unknown as unknown[];
      return answer;
    },
  ])('a TypeError of its own is an answer that did not come, and tried again', (reads) => {
    let thrown: unknown;
    try {
      reads();
    } catch (error) {
      thrown = error;
    }
    for (const fault of [thrown, new KafkaJSNonRetriableError(thrown as Error, { cause: thrown })]) {
      const error = kafkaError(fault, 'reading the topics');
      expect(error).toMatchObject({ code: 'KAFKA_FAILED', retriable: true });
      expect(error.message).toMatch(/^reading the topics: the brokers gave no answer, or none about this \(.*undefined|null/);
    }
  });

  it('a timestamp that the broker refuses names the clock', () => {
    const error = kafkaError(
      Object.assign(new Error('The timestamp of the message is out of acceptable range'), { type: 'INVALID_TIMESTAMP' }),
      'committing',
    );
    expect(error).toMatchObject({ code: 'CLOCK_OFF', retriable: false, exitCode: 2 });
    expect(error.message).toMatch(/the clock of this machine, \d{4}-.*message\.timestamp\.after\.max\.ms/);
  });
});
