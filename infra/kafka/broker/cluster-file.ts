/** What a cluster's folder says about the cluster: its shape, its ports, its users. */
import { randomBytes } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PipelineError } from '../../../schemas/errors.ts';
import { makePrivateFolder } from '../../files/private-folder.ts';
import type { BrokerFiles } from './broker-process.ts';

export type KafkaSecurity = 'plaintext' | 'sasl-ssl';

export interface BrokerPorts {
  readonly id: number;
  /** For clients: PLAINTEXT, or SASL_SSL. */
  readonly clientPort: number;
  readonly controllerPort: number;
  /** Between brokers, and for our own administration: without a login, this machine only. */
  readonly internalPort: number;
}

export interface KafkaUser {
  readonly username: string;
  readonly password: string;
}

export interface ClusterFile {
  readonly format: 'hstu-kafka/1';
  /** Kafka's own id of the cluster: 16 random bytes, base64url. */
  readonly clusterId: string;
  readonly security: KafkaSecurity;
  readonly brokers: readonly BrokerPorts[];
  /** Of a `sasl-ssl` cluster, else empty; see `USERS`. */
  readonly users: readonly KafkaUser[];
}

const FILE = 'cluster.json';

/** Ports from `first` on: the clients' (one a broker, what people type), then the controllers', then the internal ones. */
export const portsFrom = (first: number, brokers: number): BrokerPorts[] =>
  Array.from({ length: brokers }, (_, i) => ({
    id: i + 1,
    clientPort: first + i,
    controllerPort: first + brokers + i,
    internalPort: first + 2 * brokers + i,
  }));

/** 16 random bytes, base64url; never with a `-` in front, which Kafka's tools take for an option. */
export function newClusterId(): string {
  for (;;) {
    const id = randomBytes(16).toString('base64url');
    if (!id.startsWith('-')) return id;
  }
}

/** How many ports that many brokers take. */
export const portCount = (brokers: number): number => 3 * brokers;

/**
 * Undefined where there is none.
 *
 * @throws PipelineError `CONFIG_INVALID` for a file that cannot be read
 */
export async function readClusterFile(folder: string): Promise<ClusterFile | undefined> {
  let text: string;
  try {
    text = await readFile(join(folder, FILE), 'utf8');
  } catch {
    return undefined;
  }
  try {
    const cluster = JSON.parse(text) as ClusterFile;
    if (cluster.format === 'hstu-kafka/1') return cluster;
  } catch {
    // As wrong as another format.
  }
  throw new PipelineError(
    'CONFIG_INVALID',
    `${join(folder, FILE)} is not a cluster of this version: remove the folder ${folder}`,
  );
}

/** Whole or not at all, and readable by its owner only: it holds passwords. */
export async function writeClusterFile(folder: string, cluster: ClusterFile): Promise<void> {
  makePrivateFolder(folder);
  const draft = join(folder, `${FILE}.${process.pid}`);
  await writeFile(draft, `${JSON.stringify(cluster, null, 2)}\n`, { mode: 0o600 });
  await rename(draft, join(folder, FILE));
}

/** Where the files of one broker lie. */
export const brokerFiles = (folder: string, id: number): BrokerFiles => ({
  properties: join(folder, `broker-${id}.properties`),
  pid: join(folder, `broker-${id}.pid`),
  log: join(folder, `broker-${id}.log`),
});
