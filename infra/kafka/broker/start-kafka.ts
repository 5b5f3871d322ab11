/** From nothing to brokers that serve: jars, certificates, storage, processes; each step only where it is still to be done. */
import { execFile } from 'node:child_process';
import { access, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { messageOf, PipelineError } from '../../../schemas/errors.ts';
import { grantPipeline } from './administer.ts';
import { type CertificateKind, ensureCertificates } from './certificates.ts';
import {
  brokerFiles,
  type ClusterFile,
  type KafkaSecurity,
  newClusterId,
  portCount,
  portsFrom,
  readClusterFile,
  writeClusterFile,
} from './cluster-file.ts';
import { requireJava } from './java.ts';
import { ensureKafkaJars } from './libs.ts';
import { certificatesFolderOf, LOCK_WAIT_MS, LocalKafka, log4jFileOf } from './local-kafka.ts';
import { withLock } from './lock.ts';
import { busyPorts, freePorts } from './ports.ts';
import { LOG4J_PROPERTIES, serverProperties } from './server-properties.ts';
import { makeUsers } from './users.ts';

const run = promisify(execFile);

/** First port of a cluster that says nothing else: beside Kafka's own 9092, so that both can run. */
export const DEFAULT_PORT = 19_092;

export type StartStep = 'jars' | 'certificates' | 'format' | 'start';

export interface StartKafkaOptions {
  /** Folder of this cluster alone: description, data, logs. */
  readonly folder: string;
  /** Folder of Kafka's jars, shared by clusters. @default `libs` beside `folder` */
  readonly jars?: string;
  /** 3 replicates everything and survives the loss of one. @default as the folder says, else 1 */
  readonly brokers?: 1 | 3;
  /** First of `3 × brokers` ports in a row; 0 for any that are free. @default as the folder says, else 19092 */
  readonly basePort?: number;
  /** `sasl-ssl`: TLS, SCRAM-SHA-512 logins and ACLs. @default as the folder says, else `plaintext` */
  readonly security?: KafkaSecurity;
  /** What the brokers of a `sasl-ssl` cluster show their clients. @default 'valid' */
  readonly certificate?: CertificateKind;
  /** Broker settings over ours, as in `server.properties`. @default {} */
  readonly overrides?: Readonly<Record<string, string>>;
  /** @param done jars downloaded so far, at the step `jars` */
  readonly onStep?: (step: StartStep, done?: number) => void;
}

/**
 * Starts the cluster of a folder, or finds it running. Of several processes that do this at once, one starts it.
 * The brokers outlive this process: `stop()` ends them.
 *
 * @throws PipelineError `KAFKA_UNAVAILABLE` without Java or Maven, or when a broker does not come up; `CONFIG_INVALID` when
 *   Java is too old, a port is taken, or the folder holds a cluster of another shape
 */
export async function startKafka(options: StartKafkaOptions): Promise<LocalKafka> {
  const folder = resolve(options.folder);
  const jars = jarsOf(folder, options.jars);
  return withLock(`${folder}.lock`, LOCK_WAIT_MS, async () => {
    const before = await readClusterFile(folder);
    if (before !== undefined) refuseOtherShape(folder, before, options);
    const running = before && new LocalKafka(folder, before, jars);
    if (before !== undefined && running?.pids.size === before.brokers.length) return running;

    await requireJava();
    const cluster = await plan(folder, before, running?.pids.size ?? 0, options);
    await ensureKafkaJars(jars, (done) => options.onStep?.('jars', done));
    await writeClusterFile(folder, cluster);
    await configure(folder, cluster, options);
    await format(folder, cluster, jars, options);
    const kafka = new LocalKafka(folder, cluster, jars);
    options.onStep?.('start');
    await kafka.launch(cluster.brokers.map(({ id }) => id).filter((id) => !kafka.pids.has(id)));
    if (cluster.security === 'sasl-ssl') await grantPipeline(cluster.brokers[0]!.internalPort);
    return kafka;
  });
}

/** The cluster that a folder describes, running or not; undefined where there is none. */
export async function openKafka(folder: string, jars?: string): Promise<LocalKafka | undefined> {
  const path = resolve(folder);
  const cluster = await readClusterFile(path);
  return cluster && new LocalKafka(path, cluster, jarsOf(path, jars));
}

const jarsOf = (folder: string, jars: string | undefined): string => resolve(jars ?? join(dirname(folder), 'libs'));

function refuseOtherShape(folder: string, before: ClusterFile, { brokers, security }: StartKafkaOptions): void {
  const differences = [
    brokers !== undefined && brokers !== before.brokers.length && `${before.brokers.length} broker(s), not ${brokers}`,
    security !== undefined && security !== before.security && `security ${before.security}, not ${security}`,
  ].filter((text) => text !== false);
  if (differences.length > 0)
    throw new PipelineError(
      'CONFIG_INVALID',
      `the cluster in ${folder} has ${differences.join(' and ')}: \`hstu-streams down --wipe\` deletes it, --name NAME makes another`,
    );
}

/** The cluster as it shall be, on ports that nobody else has. */
async function plan(
  folder: string,
  before: ClusterFile | undefined,
  running: number,
  { brokers = 1, basePort, security = 'plaintext' }: StartKafkaOptions,
): Promise<ClusterFile> {
  const size = before?.brokers.length ?? brokers;
  const known = before?.brokers[0]?.clientPort;
  const wanted = basePort === 0 ? (known ?? (await freePorts(portCount(size)))) : (basePort ?? known ?? DEFAULT_PORT);
  if (running > 0 && wanted !== known)
    throw new PipelineError('CONFIG_INVALID', `brokers in ${folder} run on port ${known}: \`hstu-streams down\` first`);
  const last = wanted + portCount(size) - 1;
  if (!Number.isSafeInteger(wanted) || wanted < 1 || last > 65_535)
    throw new PipelineError('CONFIG_INVALID', `port ${wanted}: ${size} broker(s) take ${portCount(size)} ports, 1 to 65535`);
  const busy = running > 0 ? [] : await busyPorts(wanted, portCount(size));
  if (busy.length > 0)
    throw new PipelineError(
      'CONFIG_INVALID',
      `port ${busy.join(', ')} is in use by another process: --port N takes N to N+${portCount(size) - 1} instead of ${wanted} to ${last}`,
    );
  return {
    format: 'hstu-kafka/1',
    clusterId: before?.clusterId ?? newClusterId(),
    security: before?.security ?? security,
    brokers: portsFrom(wanted, size),
    users: before?.users ?? (security === 'sasl-ssl' ? makeUsers() : []),
  };
}

async function configure(
  folder: string,
  cluster: ClusterFile,
  { certificate = 'valid', overrides = {}, onStep }: StartKafkaOptions,
): Promise<void> {
  const secured = cluster.security === 'sasl-ssl';
  if (secured) onStep?.('certificates');
  const certificates = secured ? await ensureCertificates(certificatesFolderOf(folder), certificate) : undefined;
  await writeFile(log4jFileOf(folder), LOG4J_PROPERTIES);
  for (const { id } of cluster.brokers) {
    const text = serverProperties({ folder, cluster, brokerId: id, certificates, overrides });
    await writeFile(brokerFiles(folder, id).properties, text, { mode: 0o600 });
  }
}

/** Gives each broker's storage the cluster's id and users; one that has them stays as it is. */
async function format(folder: string, cluster: ClusterFile, jars: string, { onStep }: StartKafkaOptions): Promise<void> {
  const users = cluster.users.flatMap(({ username, password }) => [
    '--add-scram',
    `SCRAM-SHA-512=[name=${username},password=${password}]`,
  ]);
  const one = async (id: number) => {
    if (await isThere(join(folder, `broker-${id}`, 'meta.properties'))) return;
    onStep?.('format');
    const tool = ['-Xmx128m', '-XX:TieredStopAtLevel=1', '-cp', join(jars, '*'), 'kafka.tools.StorageTool', 'format'];
    const args = ['--cluster-id', cluster.clusterId, '--config', brokerFiles(folder, id).properties, ...users];
    try {
      await run('java', [...tool, ...args]);
    } catch (cause) {
      const { stderr } = cause as { stderr?: string };
      const said = stderr?.trim() || messageOf(cause);
      throw new PipelineError('KAFKA_UNAVAILABLE', `the storage of broker ${id} in ${folder} could not be formatted: ${said}`, {
        cause,
      });
    }
  };
  await Promise.all(cluster.brokers.map(({ id }) => one(id)));
}

const isThere = (file: string): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false,
  );
