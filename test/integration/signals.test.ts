/** What an instance says of itself while the world fails it, and that it ends when it has failed. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withAdmin } from '../../infra/kafka/topics.ts';
import { ALERT_RULES } from '../../infra/telemetry/alerts/alert-rules.ts';
import { pagesWithinAMinute } from '../support/alerts.ts';
import { kafkaIsPossible, privateKafka, randomName } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { type Instance, LiveWorld } from '../support/live-world.ts';

const WITHIN_MS = 10_000;

describe.skipIf(!kafkaIsPossible)('signals', { timeout: 60_000 }, () => {
  let broker: Awaited<ReturnType<typeof privateKafka>>;
  let world: LiveWorld;
  let instance: Instance;

  beforeAll(async () => {
    const [{ bundle, path: bundlePath }, cluster] = await Promise.all([liveBundle(), privateKafka()]);
    broker = cluster;
    world = await LiveWorld.create({ broker, name: randomName('signals'), bundlePath, bundle });
  }, 180_000);
  afterAll(async () => {
    await world?.close();
    await broker?.destroy();
  });

  const ready = async () => {
    const { status, body } = await instance.ask('/readyz');
    return { status, ...(JSON.parse(body) as { state: string; reason?: string; reasons?: { code: string; topic?: string }[] }) };
  };
  const metric = async (name: string) =>
    [...(await instance.ask('/metrics')).body.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'))].map(([, value]) =>
      Number(value),
    );
  /** What somebody would be woken by, were it to stay as it is now for a minute. */
  const pages = async () => pagesWithinAMinute(ALERT_RULES, healthy, (await instance.ask('/metrics')).body);
  let healthy = '';
  const soon = { timeout: WITHIN_MS, interval: 200 };

  it('a start without a broker waits, says why, and goes on when it comes', async () => {
    await broker.kill(1);
    instance = await world.start('a');
    await expect.poll(async () => (await ready()).reasons?.[0]?.code, soon).toMatch(/KAFKA_/);
    expect(await ready()).toMatchObject({ status: 503, state: 'STARTING' });
    expect((await instance.ask('/healthz')).status).toBe(200);
    await broker.restart(1);
    await instance.untilRunning();
    await expect.poll(async () => (await ready()).status, soon).toBe(200);
  });

  it('lag is told from the end of the log, of every input partition, and comes to nothing', async () => {
    await world.produce(liveEvents({ events: 200, users: 20 }));
    await world.untilConsumed(200, 15_000);
    await expect.poll(() => metric('hstu_consumer_lag_records'), soon).toEqual(Array(12).fill(0));
    expect(await metric('hstu_position_stalled_seconds')).toEqual(Array(12).fill(0));
    expect((await metric('hstu_log_ends_age_seconds'))[0]).toBeLessThan(5);
    expect(await metric('hstu_ready')).toEqual([1]);
    healthy = (await instance.ask('/metrics')).body;
    expect(await pages()).toEqual([]);
  });

  it('a broker that does not answer: alive, not ready within 10 s, with the reason; ready again after', async () => {
    const pid = broker.pids.get(1)!;
    process.kill(pid, 'SIGSTOP');
    await expect.poll(async () => (await ready()).status, soon).toBe(503);
    expect((await ready()).reasons).toContainEqual(
      expect.objectContaining({ topic: world.config.kafka.topics.userActions, code: 'KAFKA_FAILED' }),
    );
    expect((await instance.ask('/healthz')).status).toBe(200);
    expect((await metric('hstu_brokers_away'))[0]).toBeGreaterThan(0);
    expect(await metric('hstu_ready')).toEqual([0]);
    expect(await pages()).toEqual(expect.arrayContaining(['HstuNotReady', 'HstuBrokerAway', 'HstuTopicUnavailable']));
    process.kill(pid, 'SIGCONT');
    await expect.poll(async () => (await ready()).status, { ...soon, timeout: 30_000 }).toBe(200);
    expect(await metric('hstu_brokers_away')).toEqual([0]);
  });

  it('an input topic that is deleted: not ready within 10 s, with its name', async () => {
    const { erasures } = world.config.kafka.topics;
    await withAdmin(world.kafka, 'deleting', (admin) => admin.deleteTopics({ topics: [erasures] }));
    await expect
      .poll(async () => (await ready()).reasons ?? [], soon)
      .toContainEqual(
        expect.objectContaining({ topic: erasures, code: 'TOPICS_INVALID', message: expect.stringContaining('is not there') }),
      );
    expect((await ready()).status).toBe(503);
    expect(await pages()).toEqual(expect.arrayContaining(['HstuNotReady', 'HstuTopicUnavailable']));
    await instance.kill();
  });

  it('what has failed for good ends with exit code 2 within 10 s, whatever is open', async () => {
    const [{ bundle, path: bundlePath }] = await Promise.all([liveBundle()]);
    const other = await LiveWorld.create({ broker, name: randomName('ends'), bundlePath, bundle });
    try {
      const failing = await other.start('a');
      await failing.untilRunning();
      const name = other.config.kafka.topics.userEmbeddings;
      await withAdmin(other.kafka, 'altering', (admin) =>
        admin.alterConfigs({
          validateOnly: false,
          resources: [{ type: 2, name, configEntries: [{ name: 'max.message.bytes', value: '100' }] }],
        }),
      );
      await other.produce(liveEvents({ events: 50, users: 10 }));
      await failing.untilLogged(/"state":"FAILED"/);
      const failedMs = performance.now();
      expect(await failing.ended()).toBe(2);
      expect(performance.now() - failedMs).toBeLessThan(WITHIN_MS);
      expect(failing.log).toMatch(/KAFKA_REFUSED .*max\.message\.bytes/);
    } finally {
      await other.close();
    }
  });

  it.each([
    ['behind', -25, /CLOCK_OFF .*says .* and is about 25 h 0 min behind the brokers'.*None of them was committed/],
    ['ahead', 25, /CLOCK_OFF .*the clock of this machine, \d{4}-/],
  ])('a machine whose clock is %s is named: the records are good, and none becomes a dead letter', async (_, hours, said) => {
    const { bundle, path: bundlePath } = await liveBundle();
    const other = await LiveWorld.create({ broker, name: randomName('clock'), bundlePath, bundle });
    try {
      const failing = await other.start('a', { clockMs: hours * 3_600_000 });
      await failing.untilRunning();
      await other.produce(liveEvents({ events: 100, users: 10 }).map((event) => ({ ...event, eventTimeMs: Date.now() })));
      expect(await failing.ended()).toBe(2);
      expect(failing.log).toMatch(said);
      expect(await other.consumed()).toBe(0);
      expect(await other.read(other.config.kafka.topics.deadLetters)).toEqual([]);
    } finally {
      await other.close();
    }
  });
});
