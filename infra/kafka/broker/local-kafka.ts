/** A Kafka cluster on this machine: real brokers in processes of their own, described by a folder and found through it. */
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PipelineError } from '../../../schemas/errors.ts';
import { countTopics, waitUntilReady } from './administer.ts';
import { endBroker, findBroker, startBroker } from './broker-process.ts';
import { type BrokerPorts, brokerFiles, type ClusterFile, type KafkaSecurity } from './cluster-file.ts';
import { withLock } from './lock.ts';
import { PIPELINE_USER } from './users.ts';

const READY_MS = 90_000;
const GRACE_MS = 15_000;
/** Another process may be fetching jars, and then starting three brokers. */
export const LOCK_WAIT_MS = 720_000;

/** As the `kafka` section of a configuration writes it. */
export interface KafkaConnection {
  readonly brokers: string[];
  readonly ssl?: { readonly caFile: string; readonly rejectUnauthorized: true };
  readonly sasl?: { readonly mechanism: 'scram-sha-512'; readonly username: string; readonly password: string };
}

export interface BrokerStatus {
  readonly id: number;
  /** `host:port` for clients. */
  readonly address: string;
  /** Undefined when it does not run. */
  readonly pid: number | undefined;
  /** Since its start, ms. */
  readonly uptimeMs: number | undefined;
}

export class LocalKafka {
  readonly folder: string;
  readonly #cluster: ClusterFile;
  readonly #jars: string;

  /** Use `startKafka` or `openKafka`. */
  constructor(folder: string, cluster: ClusterFile, jars: string) {
    this.folder = folder;
    this.#cluster = cluster;
    this.#jars = jars;
  }

  get security(): KafkaSecurity {
    return this.#cluster.security;
  }

  /** `host:port` of every broker, for clients. */
  get bootstrapServers(): readonly string[] {
    return this.#cluster.brokers.map(addressOf);
  }

  /** Process id of every broker that runs, by broker id. */
  get pids(): ReadonlyMap<number, number> {
    const running = this.#cluster.brokers.map(({ id }) => [id, findBroker(this.#files(id))?.pid] as const);
    return new Map(running.filter((entry): entry is readonly [number, number] => entry[1] !== undefined));
  }

  /**
   * How a client reaches the cluster.
   *
   * @param username one of `USERS`; without meaning for a `plaintext` cluster. @default the pipeline's
   * @param password another than the user's own
   */
  connection(username: string = PIPELINE_USER, password?: string): KafkaConnection {
    const brokers = [...this.bootstrapServers];
    if (this.security === 'plaintext') return { brokers };
    const known = this.#cluster.users.find((user) => user.username === username);
    return {
      brokers,
      ssl: { caFile: caFileOf(this.folder), rejectUnauthorized: true },
      sasl: { mechanism: 'scram-sha-512', username, password: password ?? known?.password ?? '' },
    };
  }

  brokers(): BrokerStatus[] {
    return this.#cluster.brokers.map((ports) => {
      const running = findBroker(this.#files(ports.id));
      return {
        id: ports.id,
        address: addressOf(ports),
        pid: running?.pid,
        uptimeMs: running && Date.now() - running.startedAtMs,
      };
    });
  }

  /** Topics, Kafka's own left out; undefined when no broker answers. */
  async countTopics(): Promise<number | undefined> {
    for (const { id, internalPort } of this.#cluster.brokers) {
      if (!this.pids.has(id)) continue;
      const topics = await countTopics(internalPort).catch(() => undefined);
      if (topics !== undefined) return topics;
    }
    return undefined;
  }

  /** Ends a broker as a power cut does: SIGKILL, nothing flushed, nobody told. */
  async kill(brokerId: number): Promise<void> {
    await endBroker(this.#files(brokerId), 0);
  }

  /**
   * Starts a broker again, on its ports and its data; one that runs is stopped first. Settles when it serves.
   *
   * @throws PipelineError `KAFKA_UNAVAILABLE` when it does not come up, with the end of its log
   */
  async restart(brokerId: number): Promise<void> {
    await endBroker(this.#files(brokerId), GRACE_MS);
    await this.launch([brokerId]);
  }

  /**
   * Starts brokers that do not run, and waits until each of them names every broker that runs.
   *
   * @throws PipelineError `KAFKA_UNAVAILABLE` when one does not come up, with the end of its log; those started are ended
   */
  async launch(brokerIds: readonly number[]): Promise<void> {
    for (const id of brokerIds) startBroker(this.#files(id), this.#javaArguments(id));
    const expected = this.pids.size;
    const ready = await Promise.all(
      brokerIds.map((id) => {
        const { internalPort } = this.#cluster.brokers.find((one) => one.id === id)!;
        return waitUntilReady(internalPort, expected, () => findBroker(this.#files(id)) !== undefined, READY_MS);
      }),
    );
    const failed = brokerIds.find((_, i) => !ready[i]);
    if (failed === undefined) return;
    const { log } = this.#files(failed);
    const why = this.pids.has(failed) ? `is not ready after ${READY_MS / 1000} s` : 'ended while it started';
    await Promise.all(brokerIds.map((id) => endBroker(this.#files(id), 0)));
    throw new PipelineError(
      'KAFKA_UNAVAILABLE',
      `broker ${failed} ${why}; \`hstu-streams down --wipe\` and another \`up\` begin anew. The end of ${log}:\n${tail(log)}`,
    );
  }

  /**
   * Stops every broker; its data stays.
   *
   * @param graceMs between SIGTERM and SIGKILL
   * @returns ids of those that had to be killed
   */
  async stop(graceMs = GRACE_MS): Promise<number[]> {
    return withLock(`${this.folder}.lock`, LOCK_WAIT_MS, async () => {
      const ids = [...this.pids.keys()];
      const killed = await Promise.all(ids.map((id) => endBroker(this.#files(id), graceMs)));
      return ids.filter((_, i) => killed[i]);
    });
  }

  /** Stops every broker at once and deletes the folder: data, logs, certificates, users. */
  async destroy(): Promise<void> {
    await this.stop(0);
    await rm(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  #files(id: number) {
    return brokerFiles(this.folder, id);
  }

  #javaArguments(id: number): string[] {
    // One compiler tier and the serial collector: half the memory, and ready a second sooner.
    const jvm = ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1'];
    const logging = `-Dlog4j2.configurationFile=${log4jFileOf(this.folder)}`;
    return [...jvm, logging, '-cp', join(this.#jars, '*'), 'kafka.Kafka', this.#files(id).properties];
  }
}

const addressOf = ({ clientPort }: BrokerPorts): string => `127.0.0.1:${clientPort}`;

export const certificatesFolderOf = (folder: string): string => join(folder, 'certificates');
const caFileOf = (folder: string): string => join(certificatesFolderOf(folder), 'ca.pem');
export const log4jFileOf = (folder: string): string => join(folder, 'log4j2.properties');

function tail(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim().split('\n').slice(-12).join('\n');
  } catch {
    return '(no log)';
  }
}
