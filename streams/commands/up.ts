/** `hstu-streams up`: a real Kafka on this machine, for development. */
import { type Command, Option } from 'commander';
import { type Progress, startProgress } from '../../infra/console/progress.ts';
import { FETCHED_JARS, KAFKA_VERSION } from '../../infra/kafka/broker/libs.ts';
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import { DEFAULT_PORT, openKafka, type StartStep, startKafka } from '../../infra/kafka/broker/start-kafka.ts';
import { clusterFolder, clusterName, describeCluster } from './local-kafka-options.ts';
import { positiveInteger } from './options.ts';

interface UpOptions {
  readonly name: string;
  readonly brokers?: '1' | '3';
  readonly port?: number;
  readonly security?: 'plaintext' | 'sasl-ssl';
}

export function addUp(program: Command): void {
  program
    .command('up')
    .description(
      `start Apache Kafka ${KAFKA_VERSION} on this machine (needs Java 17; Maven fetches it once); it runs until \`down\``,
    )
    .addOption(clusterName())
    .addOption(new Option('--brokers <n>', '3 survive the loss of one; 1 unless the cluster has 3').choices(['1', '3']))
    .option(
      '--port <n>',
      `first of the ports it takes, three a broker; ${DEFAULT_PORT} unless the cluster has others`,
      positiveInteger,
    )
    .addOption(
      new Option('--security <kind>', 'sasl-ssl: TLS, logins and ACLs; plaintext unless the cluster has it').choices([
        'plaintext',
        'sasl-ssl',
      ]),
    )
    .action(async ({ name, brokers, port, security }: UpOptions) => {
      const folder = clusterFolder(name);
      const before = await openKafka(folder);
      const already = before !== undefined && before.pids.size === before.bootstrapServers.length;
      const show = showSteps();
      let kafka: LocalKafka;
      try {
        kafka = await startKafka({
          folder,
          onStep: show.step,
          ...(brokers !== undefined && { brokers: brokers === '3' ? 3 : 1 }),
          ...(port !== undefined && { basePort: port }),
          ...(security !== undefined && { security }),
        });
      } finally {
        show.stop();
      }
      const headline = already ? 'Kafka is already running.' : `Apache Kafka ${KAFKA_VERSION} is running; \`down\` stops it.`;
      console.log(`${headline}\n${await describeCluster(kafka)}\n\n${configurationOf(kafka)}`);
    });
}

const SAYS: Readonly<Record<Exclude<StartStep, 'jars'>, string>> = {
  certificates: 'making certificates',
  format: 'formatting storage',
  start: 'starting',
};

/** Each step once, and a bar while jars are fetched. */
function showSteps(): { step: (step: StartStep, done?: number) => void; stop: () => void } {
  let bar: Progress | undefined;
  let last: StartStep | undefined;
  const stop = () => {
    bar?.stop();
    bar = undefined;
  };
  return {
    stop,
    step: (step, done = 0) => {
      if (step === 'jars') {
        bar ??= startProgress(`fetching Kafka ${KAFKA_VERSION}, once`, FETCHED_JARS);
        bar.update(done, 'jars');
      } else if (step !== last) {
        stop();
        process.stderr.write(`${SAYS[step]} …\n`);
      }
      last = step;
    },
  };
}

/** What a configuration says to use it. */
function configurationOf(kafka: LocalKafka): string {
  const { brokers, ssl, sasl } = kafka.connection();
  const lines = ['kafka:', `  brokers: [${brokers.map((address) => `'${address}'`).join(', ')}]`];
  if (ssl !== undefined) lines.push(`  ssl: { caFile: '${ssl.caFile}' }`);
  if (sasl === undefined) return lines.join('\n');
  lines.push(`  sasl: { mechanism: ${sasl.mechanism}, username: ${sasl.username} }`);
  return `${lines.join('\n')}\n\nexport HSTU_KAFKA__SASL__PASSWORD='${sasl.password}'`;
}
