import { readFileSync } from 'node:fs';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Kafka, logLevel } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findBroker } from '../../infra/kafka/broker/broker-process.ts';
import { brokerFiles } from '../../infra/kafka/broker/cluster-file.ts';
import { ensureKafkaJars } from '../../infra/kafka/broker/libs.ts';
import type { KafkaConnection, LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import { freePorts } from '../../infra/kafka/broker/ports.ts';
import { openKafka, startKafka } from '../../infra/kafka/broker/start-kafka.ts';
import { ADMIN, OUTSIDER } from '../../infra/kafka/broker/users.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { kafkaError } from '../../infra/kafka/kafka-errors.ts';
import { parseConfig } from '../../schemas/config.ts';
import { checkBrokers, checkKafkaTopics } from '../../streams/commands/doctor-kafka.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaConfigOf, kafkaIsPossible, privateKafka, randomName, sharedKafka } from '../support/kafka-broker.ts';

/** A topic of its own, one record in, and what comes out of it. */
async function roundTrip(kafka: LocalKafka, topic: string): Promise<string> {
  const client = kafkaClient(kafkaConfigOf(kafka.connection()));
  const admin = client.admin();
  const producer = client.producer();
  const consumer = client.consumer({ groupId: topic });
  try {
    await Promise.all([admin.connect(), producer.connect(), consumer.connect()]);
    await admin.createTopics({ waitForLeaders: true, topics: [{ topic }] });
    await producer.send({ topic, messages: [{ key: 'user-1', value: 'rating' }] });
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    return await new Promise((resolve, reject) => {
      consumer
        .run({ eachMessage: async ({ message }) => resolve(`${message.key?.toString()} ${message.value?.toString()}`) })
        .catch(reject);
    });
  } finally {
    await Promise.all([admin.disconnect(), producer.disconnect(), consumer.disconnect()]);
  }
}

describe.skipIf(!kafkaIsPossible)('up, status, down', () => {
  const name = randomName('cli');
  const of = (command: string, ...args: string[]) => runCommand([command, '--name', name, ...args]);
  let blocker: Server;
  let port: number;
  beforeAll(async () => {
    blocker = createServer();
    await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
    port = (blocker.address() as { port: number }).port;
  });
  afterAll(async () => {
    blocker.close();
    await of('down', '--wipe');
  });

  it('names the port that is taken, and how to choose another', async () => {
    const { code, stderr } = await of('up', '--port', String(port));
    expect(code).toBe(2);
    // The two ports after it may be taken as well, by whatever else runs here: they are named too.
    expect(stderr).toMatch(new RegExp(`port ${port}(, \\d+)* is in use`));
    expect(stderr).toContain('--port N takes N to N+2');
  });

  it('starts a broker that outlives the command, says so the second time, and stops it', async () => {
    const up = await of('up', '--port', String(await freePorts(3)));
    expect(up.stderr).toContain('starting');
    expect(up.code).toBe(0);
    const [, address, pid] = /broker 1 {2}(127\.0\.0\.1:\d+) {2}pid (\d+)/.exec(up.stdout)!;
    expect(up.stdout).toContain(`brokers: ['${address}']`);
    const kafka = (await openKafka(join('.hstu', 'kafka', name)))!;
    expect(kafka.bootstrapServers).toEqual([address]);
    expect(await roundTrip(kafka, randomName('up'))).toBe('user-1 rating');

    const again = await of('up');
    expect(again.code).toBe(0);
    expect(again.stdout).toContain('already running');
    expect(again.stdout).toContain(`pid ${pid}`);
    const status = await of('status');
    expect(status.code).toBe(0);
    expect(status.stdout).toMatch(/topics +1\n/);
    const other = await of('up', '--brokers', '3');
    expect(other.code).toBe(2);
    expect(other.stderr).toContain('has 1 broker(s), not 3');

    const down = await of('down');
    expect(down.stdout).toContain('Stopped 1 broker(s); the data stays');
    expect(kafka.pids.size).toBe(0);
  });

  it('is not fooled by a pid file whose process is another one now', async () => {
    const files = brokerFiles(join('.hstu', 'kafka', name), 1);
    await writeFile(files.pid, JSON.stringify({ pid: process.pid, startedAtMs: 0 }));
    expect(findBroker(files)).toBeUndefined();
    expect(await of('status')).toMatchObject({ code: 1, stdout: expect.stringContaining('stopped') });
  });

  it('says what to install where Java or Maven is missing, or Java too old', async () => {
    const path = await mkdtemp(join(tmpdir(), 'hstu-path-'));
    const ours = process.env['PATH'];
    try {
      await symlink(process.execPath, join(path, 'node'));
      const missing = await runCommand(['up', '--name', randomName('missing')], { path });
      expect(missing.code).toBe(1);
      expect(missing.stderr).toContain('KAFKA_UNAVAILABLE `java` is not on the PATH: install Java 17 or newer');
      await writeFile(join(path, 'java'), '#!/bin/sh\necho \'openjdk version "11.0.22" 2024-01-16\' >&2\n', { mode: 0o755 });
      const old = await runCommand(['up', '--name', randomName('old')], { path });
      expect(old.code).toBe(2);
      expect(old.stderr).toContain('CONFIG_INVALID Java 11.0.22 is too old for Kafka 4, which needs 17 or newer: install');
      process.env['PATH'] = path;
      await expect(ensureKafkaJars(join(path, 'libs'), () => undefined)).rejects.toThrow(
        /`mvn` is not on the PATH: install Maven/,
      );
    } finally {
      process.env['PATH'] = ours;
      await rm(path, { recursive: true });
    }
  });
});

describe.skipIf(!kafkaIsPossible)('the cluster that a test run shares', () => {
  it('is one and the same for all who ask at once', async () => {
    const [a, b] = await Promise.all([sharedKafka(), sharedKafka()]);
    expect([...a!.pids]).toEqual([...b!.pids]);
    expect(await roundTrip(a!, randomName('shared'))).toBe('user-1 rating');
  });

  it('is what doctor asks; without a kafka section doctor says that it could start one', async () => {
    const kafka = await sharedKafka();
    const config = parseConfig({ bundle: 'none', kafka: kafka.connection() }, 'this test');
    expect(await checkBrokers(config)).toBe(`1 broker(s) answer: ${kafka.bootstrapServers[0]}`);
    await expect(checkKafkaTopics({ ...config.kafka!, applicationId: randomName('none') })).rejects.toThrow('topics create');
    expect(await checkBrokers(parseConfig({ bundle: 'none' }, 'this test'))).toMatch(
      /^not configured; `hstu-streams up` can (start|fetch) /,
    );
  });
});

describe.skipIf(!kafkaIsPossible)('a cluster of three', () => {
  it('answers while one of them is dead, and takes it back', async () => {
    const kafka = await privateKafka({
      brokers: 3,
      // A dead broker's place is free for it again when its session ends.
      overrides: { 'broker.session.timeout.ms': '2000', 'broker.heartbeat.interval.ms': '500' },
    });
    try {
      expect(await roundTrip(kafka, randomName('three'))).toBe('user-1 rating');
      await kafka.kill(2);
      expect([...kafka.pids.keys()]).toEqual([1, 3]);
      expect(await kafka.countTopics()).toBe(1);
      await kafka.restart(2);
      expect([...kafka.pids.keys()]).toEqual([1, 2, 3]);
    } finally {
      await kafka.destroy();
    }
  });
});

describe.skipIf(!kafkaIsPossible)('a secured cluster', () => {
  let kafka: LocalKafka;
  beforeAll(async () => {
    kafka = await privateKafka({ security: 'sasl-ssl' });
  });
  afterAll(() => kafka.destroy());

  /** What creating a topic ends with; once, for a refusal is final. */
  const outcome = async ({ brokers, ssl, sasl }: KafkaConnection) => {
    const client = new Kafka({
      brokers,
      ssl: ssl === undefined ? true : { ca: readFileSync(ssl.caFile) },
      ...(sasl !== undefined && { sasl }),
      retry: { retries: 0 },
      logLevel: logLevel.NOTHING,
    });
    const admin = client.admin();
    try {
      await admin.connect();
      await admin.createTopics({ topics: [{ topic: randomName('secured') }] });
      return 'created';
    } catch (thrown) {
      return kafkaError(thrown, 'creating a topic').code;
    } finally {
      await admin.disconnect();
    }
  };

  it('serves the pipeline and the administrator', async () => {
    expect(await outcome(kafka.connection())).toBe('created');
    expect(await outcome(kafka.connection(ADMIN))).toBe('created');
    expect(await roundTrip(kafka, randomName('secured'))).toBe('user-1 rating');
  });

  it('refuses a wrong password, a user without an ACL, and a client that does not know its CA', async () => {
    expect(await outcome(kafka.connection(ADMIN, 'wrong'))).toBe('KAFKA_AUTHENTICATION');
    expect(await outcome(kafka.connection(OUTSIDER))).toBe('KAFKA_AUTHORIZATION');
    const { ssl: _, ...withoutCa } = kafka.connection();
    expect(await outcome(withoutCa)).toBe('KAFKA_AUTHENTICATION');
  });

  it('shows an expired certificate when asked to', async () => {
    await kafka.stop();
    const expired = await startKafka({ folder: kafka.folder, certificate: 'expired' });
    expect(await outcome(expired.connection())).toBe('KAFKA_AUTHENTICATION');
  });
});
