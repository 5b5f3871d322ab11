/** Logins against a real broker with TLS, SCRAM and ACLs: what is right works, and each fault says what it is, once. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import { startKafka } from '../../infra/kafka/broker/start-kafka.ts';
import { ADMIN, OUTSIDER } from '../../infra/kafka/broker/users.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, privateKafka, randomName } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

let broker: LocalKafka;
let bundle: { readonly bundle: Bundle; readonly path: string };
let world: LiveWorld;

describe.skipIf(!kafkaIsPossible)('live, over TLS and SASL', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    [bundle, broker] = await Promise.all([liveBundle(), privateKafka({ security: 'sasl-ssl' })]);
    world = await LiveWorld.create({ broker, name: randomName('secure'), bundlePath: bundle.path, bundle: bundle.bundle });
  }, 180_000);
  afterAll(async () => {
    await world?.close();
    await broker?.destroy();
  });

  /** Runs an instance that must fail, and what it said. */
  const runWith = async (connection: ReturnType<LocalKafka['connection']>) => {
    const file = join(world.folder, `${randomName('run')}.yaml`);
    await writeFile(
      file,
      stringify({
        ...world.config,
        state: { path: join(world.folder, 'none') },
        kafka: { ...world.config.kafka, ...connection },
      }),
    );
    const began = performance.now();
    const { code, stderr } = await runCommand(['run', '-c', file]);
    return { code, stderr, seconds: (performance.now() - began) / 1000 };
  };

  it('streams-with-a-login: exactly once, over TLS and SCRAM-SHA-512', async () => {
    const actions = liveEvents({ events: 1_000, users: 50 });
    await world.produce(actions);
    const instance = await world.start('a');
    await world.untilConsumed(actions.length);
    const { problems, maxDelta } = await world.verify(actions);
    expect(problems).toEqual([]);
    expect(maxDelta).toBeLessThanOrEqual(1e-4);
    expect(await instance.stop()).toBe(0);
    expect(instance.log).not.toContain(world.config.kafka.sasl!.password);
  });

  it('a-wrong-password-is-said-and-not-tried-for-ever', async () => {
    const { code, stderr, seconds } = await runWith(broker.connection(ADMIN, 'not-the-password'));
    expect(code).toBe(2);
    expect(stderr).toMatch(/KAFKA_AUTHENTICATION .*check kafka\.sasl/);
    expect(stderr).not.toContain('not-the-password');
    expect(seconds).toBeLessThan(15);
  });

  it('a-missing-acl-is-said-and-not-tried-for-ever', async () => {
    const { code, stderr, seconds } = await runWith(broker.connection(OUTSIDER));
    expect(code).toBe(2);
    expect(stderr).toMatch(/KAFKA_AUTHORIZATION .*ACL: TOPIC_AUTHORIZATION_FAILED/);
    expect(seconds).toBeLessThan(15);
  });

  it('an-expired-certificate-is-said-and-not-tried-for-ever', async () => {
    await broker.stop();
    broker = await startKafka({ folder: broker.folder, certificate: 'expired' });
    const { code, stderr, seconds } = await runWith(broker.connection());
    expect(code).toBe(2);
    expect(stderr).toMatch(/KAFKA_AUTHENTICATION .*certificate.*expired/);
    expect(seconds).toBeLessThan(15);
  });
});
