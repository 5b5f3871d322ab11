/** One Kafka client a process, made from the configuration. */
import { readFileSync } from 'node:fs';
import { connect, isIP } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { Kafka, type KafkaConfig as KafkaJsConfig, type logCreator, logLevel } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { registerCodecs } from './compression.ts';
import { isCutOffInTls, kafkaError } from './kafka-errors.ts';
import { patchConnections } from './kafkajs-connection.ts';
import { patchJoin } from './kafkajs-internals.ts';
import { saslOptions } from './sasl/sasl-options.ts';

/** How kafkajs tries again where nothing else is said: about 12 s in all. */
export const RETRY = { initialRetryTime: 100, maxRetryTime: 2_000, retries: 9 } as const;

const KEEP_ALIVE_MS = 60_000;

/** As others name them, who do not see kafkajs. */
export type KafkaClient = Kafka;
export type KafkaLogCreator = logCreator;

export interface KafkaClientOptions {
  /** Where kafkajs' own messages go. @default nowhere */
  readonly logCreator?: logCreator;
  /** @default as `RETRY` says */
  readonly retries?: number;
}

/**
 * kafkajs takes what stands before a broker's first colon for its host: an IPv6 address goes through it with other signs. They are put right
 * where the socket is opened.
 */
const hidingColons = (broker: string): string =>
  broker.replace(/^\[(.*)\]:/, (_, address: string) => `${address.replaceAll(':', '|')}:`);

const openSocket: NonNullable<KafkaJsConfig['socketFactory']> = ({ host: hidden, port, ssl, onConnect }) => {
  const host = hidden.replaceAll('|', ':');
  const socket =
    // As kafkajs does it: a certificate's name is asked for where the host has one.
    ssl
      ? connectTls({ host, port, ...(isIP(host) === 0 && { servername: host }), ...ssl }, onConnect)
      : connect({ host, port }, onConnect);
  return socket.setKeepAlive(true, KEEP_ALIVE_MS);
};

/** @throws PipelineError `CONFIG_INVALID` for a certificate file that cannot be read */
export function kafkaClient(config: KafkaConfig, { logCreator, retries = RETRY.retries }: KafkaClientOptions = {}): Kafka {
  registerCodecs();
  patchJoin();
  patchConnections();
  const settings: KafkaJsConfig = {
    clientId: config.clientId,
    brokers: config.brokers.map(hidingColons),
    socketFactory: openSocket,
    connectionTimeout: 5_000,
    authenticationTimeout: 10_000,
    requestTimeout: config.requestTimeoutMs,
    retry: { ...RETRY, retries },
    logLevel: logCreator === undefined ? logLevel.NOTHING : logLevel.INFO,
    ssl: sslOf(config.ssl),
    ...(logCreator !== undefined && { logCreator }),
    ...(config.sasl !== undefined && { sasl: saslOptions(config.sasl) }),
  };
  return new Kafka(settings);
}

/**
 * Tries to connect once. kafkajs takes a refused certificate for a passing fault of the network, and tries it again and
 * again; this finds it at once.
 *
 * @throws PipelineError `KAFKA_AUTHENTICATION`. Brokers that do not answer are left to those who can wait for them
 */
export async function requireLogin(config: KafkaConfig): Promise<void> {
  const admin = kafkaClient(config, { retries: 0 }).admin();
  try {
    await admin.connect();
  } catch (thrown) {
    const error = kafkaError(thrown, `connecting to ${config.brokers.join(', ')}`);
    if (error.code === 'KAFKA_AUTHENTICATION') throw error;
    // At the very start it is the port of another protocol, rather than a broker that stops.
    if (isCutOffInTls(error.message)) throw new PipelineError('KAFKA_AUTHENTICATION', error.message, { cause: thrown });
  } finally {
    await admin.disconnect().catch(() => undefined);
  }
}

function sslOf(ssl: KafkaConfig['ssl']): boolean | ConnectionOptions {
  if (typeof ssl === 'boolean') return ssl;
  const { caFile, certFile, keyFile, keyPassphrase, serverName, rejectUnauthorized } = ssl;
  return {
    rejectUnauthorized,
    ...(caFile !== undefined && { ca: readPem('caFile', caFile) }),
    ...(certFile !== undefined && { cert: readPem('certFile', certFile) }),
    ...(keyFile !== undefined && { key: readPem('keyFile', keyFile) }),
    ...(keyPassphrase !== undefined && { passphrase: keyPassphrase }),
    ...(serverName !== undefined && { servername: serverName }),
  };
}

function readPem(key: string, file: string): string {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new PipelineError('CONFIG_INVALID', `kafka.ssl.${key}: cannot read ${file}: ${messageOf(cause)}`, { cause });
  }
  if (!text.includes('-----BEGIN '))
    throw new PipelineError('CONFIG_INVALID', `kafka.ssl.${key}: ${file} is not a PEM file (no -----BEGIN line)`);
  return text;
}
