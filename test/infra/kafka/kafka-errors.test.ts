/** What kafkajs throws, told apart: a login that is refused is final, a connection that ended is not. */
import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { kafkaError } from '../../../infra/kafka/kafka-errors.ts';

type Thrown = new (message: string, facts?: object) => Error;
const { KafkaJSSASLAuthenticationError, KafkaJSConnectionError } = createRequire(import.meta.url)('kafkajs/src/errors.js') as {
  readonly KafkaJSSASLAuthenticationError: Thrown;
  readonly KafkaJSConnectionError: Thrown;
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
});
