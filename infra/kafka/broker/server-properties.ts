/** The settings of one broker: small enough for a laptop, strict enough that a client's faults show. */
import { join } from 'node:path';
import { type Certificates, KEYSTORE_PASSWORD } from './certificates.ts';
import type { ClusterFile } from './cluster-file.ts';
import { ADMIN } from './users.ts';

const HOST = '127.0.0.1';
/** Of topics that say nothing, and of Kafka's own: few, since every one costs files and memory. */
const PARTITIONS = 4;

export interface PropertiesOptions {
  readonly folder: string;
  readonly cluster: ClusterFile;
  readonly brokerId: number;
  /** Of a `sasl-ssl` cluster. */
  readonly certificates?: Certificates | undefined;
  /** Settings of the caller's, over these. @default {} */
  readonly overrides?: Readonly<Record<string, string>>;
}

/** The text of a `server.properties` file. */
export function serverProperties({ folder, cluster, brokerId, certificates, overrides = {} }: PropertiesOptions): string {
  const ports = cluster.brokers.find(({ id }) => id === brokerId)!;
  const replicas = cluster.brokers.length;
  // A majority must have a record before it counts as written: one broker of three may die.
  const inSync = Math.floor(replicas / 2) + 1;
  const clients = cluster.security === 'plaintext' ? 'PLAINTEXT' : 'SASL_SSL';
  const listeners = `CLIENTS://${HOST}:${ports.clientPort},INTERNAL://${HOST}:${ports.internalPort}`;
  const settings: Record<string, string | number | boolean> = {
    'process.roles': 'broker,controller',
    'node.id': brokerId,
    'controller.quorum.voters': cluster.brokers.map(({ id, controllerPort }) => `${id}@${HOST}:${controllerPort}`).join(','),
    listeners: `${listeners},CONTROLLER://${HOST}:${ports.controllerPort}`,
    'advertised.listeners': listeners,
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'INTERNAL',
    'listener.security.protocol.map': `CLIENTS:${clients},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT`,
    'log.dirs': join(folder, `broker-${brokerId}`),
    'num.partitions': PARTITIONS,
    'default.replication.factor': replicas,
    'min.insync.replicas': inSync,
    'auto.create.topics.enable': false,
    'group.initial.rebalance.delay.ms': 0,
    'group.min.session.timeout.ms': 1_000,
    'num.network.threads': 2,
    'num.io.threads': 4,
    'log.cleaner.dedupe.buffer.size': 16 * 2 ** 20,
    ...internalTopic('offsets.topic', replicas),
    ...internalTopic('transaction.state.log', replicas),
    'transaction.state.log.min.isr': inSync,
    ...internalTopic('share.coordinator.state.topic', replicas),
    'share.coordinator.state.topic.min.isr': inSync,
    // A dead broker is noticed after 6 s instead of 9.
    'broker.session.timeout.ms': 6_000,
    'broker.heartbeat.interval.ms': 1_000,
    ...(certificates !== undefined && security(certificates)),
    ...overrides,
  };
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
}

const internalTopic = (name: string, replicas: number) => ({
  [`${name}.replication.factor`]: replicas,
  [`${name}.num.partitions`]: PARTITIONS,
});

/** Clients log in over TLS and may do what an ACL grants. Who gets at the internal ports is on this machine, and may do all. */
const security = ({ keystore }: Certificates) => ({
  'sasl.enabled.mechanisms': 'SCRAM-SHA-512',
  'listener.name.clients.sasl.enabled.mechanisms': 'SCRAM-SHA-512',
  'listener.name.clients.scram-sha-512.sasl.jaas.config': 'org.apache.kafka.common.security.scram.ScramLoginModule required;',
  'ssl.keystore.type': 'PKCS12',
  'ssl.keystore.location': keystore,
  'ssl.keystore.password': KEYSTORE_PASSWORD,
  'ssl.key.password': KEYSTORE_PASSWORD,
  'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
  'allow.everyone.if.no.acl.found': false,
  'super.users': `User:${ADMIN};User:ANONYMOUS`,
});

/** Warnings and worse, with the time: what a person looks for when a broker does not start. */
export const LOG4J_PROPERTIES = `status=error
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d] %p %m (%c)%n
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
`;
