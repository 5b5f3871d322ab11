/** The login of the configuration, as kafkajs takes it. */
import type { OauthbearerProviderResponse, SASLOptions } from 'kafkajs';
import type { KafkaConfig } from '../../../schemas/config.ts';
import { type BearerConfig, isLoopback, type SaslConfig } from '../../../schemas/kafka-sasl.ts';
import { requestToken } from './client-credentials.ts';
import { keepToken } from './kept-token.ts';
import { signMskToken } from './msk-token.ts';
import { runTokenCommand } from './token-command.ts';

/** A process has many clients, and one token for all of them. */
const providers = new WeakMap<SaslConfig, () => Promise<OauthbearerProviderResponse>>();

export function saslOptions(sasl: SaslConfig): SASLOptions {
  // A copy: kafkajs adds to it.
  if ('password' in sasl) return { ...sasl } as SASLOptions;
  let oauthBearerProvider = providers.get(sasl);
  if (oauthBearerProvider === undefined) {
    const value = keepToken(() => (sasl.mechanism === 'oauthbearer' ? bearerToken(sasl) : signMskToken(sasl)));
    const extensions = sasl.mechanism === 'oauthbearer' ? sasl.extensions : undefined;
    oauthBearerProvider = async () => ({ value: await value(), ...(extensions !== undefined && { extensions }) });
    providers.set(sasl, oauthBearerProvider);
  }
  return { mechanism: 'oauthbearer', oauthBearerProvider };
}

const bearerToken = ({ clientCredentials, command, timeoutMs }: BearerConfig) =>
  clientCredentials === undefined ? runTokenCommand(command!, timeoutMs) : requestToken(clientCredentials, timeoutMs);

/** What is wrong with a login over connections that anyone on the way can read; undefined where nothing is. */
export function loginInClearText({ sasl, ssl, brokers }: KafkaConfig): string | undefined {
  if (sasl === undefined || ssl !== false || !['plain', 'oauthbearer'].includes(sasl.mechanism)) return undefined;
  const far = brokers.filter((broker) => !isLoopback(broker.replace(/:\d+$/, '')));
  if (far.length === 0) return undefined;
  const what = sasl.mechanism === 'plain' ? 'the password of kafka.sasl is' : 'the token of kafka.sasl is';
  return `${what} sent in clear text to ${far.join(', ')}, where everyone on the way can read it: set kafka.ssl: true, or { caFile }`;
}
