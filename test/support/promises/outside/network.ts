/** Faults of the network between an instance and its broker: late, cut, with a bit changed, requests that come too late, nobody there. */
import { liveEvents } from '../../live-bundle.ts';
import type { Instance, LiveWorld } from '../../live-world.ts';
import { API, KafkaProxy } from '../../outside/kafka-proxy.ts';
import { Load, type Say, type Shown, settle, sleep } from '../promise.ts';
import { until } from './until.ts';

export interface NetworkOptions {
  /** `host:port` of the real broker. */
  readonly broker: string;
  readonly say: Say;
}

async function throughProxy<T>(broker: string, use: (proxy: KafkaProxy) => Promise<T>): Promise<T> {
  const proxy = await KafkaProxy.open(broker);
  try {
    return await use(proxy);
  } finally {
    await proxy.close();
  }
}

export interface CutOptions extends NetworkOptions {
  /** Chance that an answer is cut. */
  readonly share: number;
  /** Of each of the two runs. */
  readonly events: number;
  readonly starts: number;
  /** Of the undisturbed throughput, at least. */
  readonly minShare: number;
}

/** Answers are lost with their connections: every start succeeds, and what is processed is processed once. */
export function aCutNetworkCostsRetriesOnly(world: LiveWorld, options: CutOptions): Promise<Shown> {
  const { broker, share, events, starts, minShare, say } = options;
  return throughProxy(broker, async (proxy) => {
    const kafka = { brokers: proxy.brokers };
    const problems: string[] = [];
    const run = async (from: number) => {
      const actions = liveEvents({ events, users: 200, from });
      await world.produce(actions);
      const instance = await world.start('a', { kafka });
      await instance.untilRunning(60_000);
      const began = performance.now();
      await world.untilConsumed(from + events, 300_000);
      return { actions, instance, perSecond: (1000 * events) / (performance.now() - began) };
    };
    const calm = await run(0);
    await calm.instance.stop();

    proxy.cutShare = share;
    for (let start = 1; start < starts; start++) {
      const instance = await world.start('a', { kafka });
      await instance
        .untilRunning(60_000)
        .catch((error: Error) => problems.push(`start ${start}: ${error.message.slice(0, 3_000)}`));
      say(`start ${start} of ${starts}: ${proxy.done.cut} answers cut`);
      await instance.kill();
    }
    const cut = await run(events);
    const code = await cut.instance.stop();
    if (code !== 0) problems.push(`asked to end, it ended with ${code}:\n${cut.instance.log.slice(-1_500)}`);
    const { facts, problems: lost } = await settle(world, [...calm.actions, ...cut.actions]);
    const ratio = cut.perSecond / calm.perSecond;
    if (!(ratio >= minShare)) problems.push(`${ratio.toFixed(2)} of the undisturbed throughput, ${minShare} wanted`);
    if (proxy.done.cut === 0) problems.push('nothing was cut');
    return {
      facts: {
        starts,
        'answers cut': `${proxy.done.cut} of ${proxy.done.answers}`,
        'events/s undisturbed': Math.round(calm.perSecond),
        'events/s cut': Math.round(cut.perSecond),
        ...facts,
      },
      problems: [...problems, ...lost],
    };
  });
}

/** Records uncompressed: a bit of one is changed on its way to us. Never committed, told, and read again. */
export function aFlippedBitIsNeverCommitted(world: LiveWorld, { broker, say }: NetworkOptions): Promise<Shown> {
  return throughProxy(broker, async (proxy) => {
    const problems: string[] = [];
    const actions = liveEvents({ events: 2_000, users: 100 });
    proxy.flipAfter = Buffer.from('item:110');
    proxy.flips = 1;
    const instance = await world.start('a', { kafka: { brokers: proxy.brokers } });
    await instance.untilRunning();
    await world.produce(actions.slice(0, 1_000));
    await world.untilConsumed(1_000);
    if (proxy.done.flipped !== 1) problems.push(`${proxy.done.flipped} bits were flipped`);
    if (!/CRC|checksum/i.test(instance.log)) problems.push(`a flipped bit was not told:\n${instance.log.slice(-3_000)}`);

    say('every answer with that item is spoilt');
    proxy.flips = Number.POSITIVE_INFINITY;
    await world.produce(actions.slice(1_000));
    const told = await until(15_000, async () => {
      const { status, body } = await instance.ask('/readyz');
      return status === 503 && /CRC|checksum/i.test(body) ? body : undefined;
    });
    if (told === undefined) problems.push('a partition stands, and /readyz does not name it within 15 s');
    const stood = await world.consumed();
    if (stood >= actions.length) problems.push('spoilt records were committed as consumed');
    proxy.flips = 0;
    const { facts, problems: lost } = await settle(world, actions);
    return {
      facts: { 'bits flipped': proxy.done.flipped, 'processed beside': stood - 1_000, ...facts },
      problems: [...problems, ...lost],
    };
  });
}

export interface HeldOptions extends NetworkOptions {
  readonly seconds: number;
  readonly holdMs: number;
}

/**
 * The ends of some transactions reach the broker only after the client has given up on them (KAFKA-17754): a producer that was
 * used on would have them end its next transaction.
 */
export function aLateEndOfATransactionEndsNoOther(world: LiveWorld, { broker, seconds, holdMs }: HeldOptions): Promise<Shown> {
  return throughProxy(broker, async (proxy) => {
    const nth = [2, 4, 5];
    proxy.hold = { api: API.endTxn, nth, ms: holdMs };
    const kafka = { brokers: proxy.brokers, requestTimeoutMs: Math.round(holdMs / 2), transactionTimeoutMs: 60_000 };
    const instance = await world.start('a', { kafka });
    await instance.untilRunning();
    const load = new Load(world).start({ perSecond: 100, users: 60 });
    await sleep(1000 * seconds);
    const { facts, problems } = await settle(world, await load.stop());
    await sleep(holdMs);
    const { held, delivered } = proxy.done;
    const late = held === nth.length && delivered === held;
    return {
      facts: { 'ends held': held, 'delivered late': delivered, ...facts },
      problems: late
        ? problems
        : [...problems, `${held} ends of transactions were held and ${delivered} delivered, ${nth.length} wanted`],
    };
  });
}

/** Nobody answers for a while: not ready within 10 s, alive, and all goes on where it was. */
export function aBrokerThatIsAwayIsSaid(world: LiveWorld, { broker }: NetworkOptions): Promise<Shown> {
  return throughProxy(broker, async (proxy) => {
    const problems: string[] = [];
    const instance = await world.start('a', { kafka: { brokers: proxy.brokers } });
    await instance.untilRunning();
    const load = new Load(world).start({ perSecond: 200, users: 60 });
    await sleep(1_500);
    if (!(await untilReady(instance, 200, 10_000))) problems.push('not ready under load');
    const wentAway = performance.now();
    proxy.goAway();
    if (!(await untilReady(instance, 503, 10_000))) problems.push('/readyz still says yes 10 s after the broker went away');
    const toldMs = performance.now() - wentAway;
    if ((await instance.ask('/healthz')).status !== 200) problems.push('/healthz says that a restart would help');
    await sleep(3_000);
    proxy.comeBack();
    if (!(await untilReady(instance, 200, 30_000))) problems.push('not ready again within 30 s');
    const { facts, problems: lost } = await settle(world, await load.stop());
    return { facts: { 'not ready after, ms': Math.round(toldMs), ...facts }, problems: [...problems, ...lost] };
  });
}

/** Every answer comes late: slower, and nothing else. */
export function aSlowNetworkIsOnlySlow(
  world: LiveWorld,
  { broker, delayMs, events }: NetworkOptions & { readonly delayMs: number; readonly events: number },
): Promise<Shown> {
  return throughProxy(broker, async (proxy) => {
    proxy.delayMs = delayMs;
    const instance = await world.start('a', { kafka: { brokers: proxy.brokers } });
    await instance.untilRunning(120_000);
    const actions = liveEvents({ events, users: 60 });
    await world.produce(actions);
    const { facts, problems } = await settle(world, actions, 240_000);
    const recoveries = instance.log.match(/going on from the last commit/g)?.length ?? 0;
    return {
      facts: { 'answers late by, ms': delayMs, recoveries, ...facts },
      problems: recoveries === 0 ? problems : [...problems, `${recoveries} recoveries for answers that only came late`],
    };
  });
}

async function untilReady(instance: Instance, status: number, withinMs: number): Promise<boolean> {
  const seen = await until(withinMs, async () => ((await instance.ask('/readyz')).status === status ? true : undefined));
  return seen === true;
}
