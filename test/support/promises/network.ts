/** A network that cuts connections: starts succeed, nothing is lost or doubled, and most of the throughput stays. */
import { cuttingProxy } from '../cutting-proxy.ts';
import { liveEvents } from '../live-bundle.ts';
import type { LiveWorld } from '../live-world.ts';
import type { Say, Shown } from './promise.ts';

export interface CutOptions {
  /** Of answers, cut in the middle. */
  readonly share: number;
  readonly starts: number;
  /** A start and a measurement. */
  readonly events: number;
  readonly say: Say;
}

/** One instance behind a proxy, started again and again, first undisturbed and then with connections cut. */
export async function cutConnectionsCostRetries(world: LiveWorld, { share, starts, events, say }: CutOptions): Promise<Shown> {
  const proxy = await cuttingProxy(world.config.kafka.brokers[0]!);
  const problems: string[] = [];
  let produced = 0;
  const seconds = { undisturbed: 0, cut: 0 };
  let startSeconds = 0;
  const round = async (name: keyof typeof seconds) => {
    const startedMs = performance.now();
    const instance = await world.start('a', { brokers: [proxy.address] });
    await instance.untilRunning(60_000);
    startSeconds = Math.max(startSeconds, (performance.now() - startedMs) / 1000);
    const actions = liveEvents({ events, users: 200, from: produced });
    await world.produce(actions);
    produced += events;
    const beganMs = performance.now();
    await world.untilConsumed(produced, 120_000);
    seconds[name] += (performance.now() - beganMs) / 1000;
    const again = instance.log.split('looking whether it was done').length - 1;
    const recovered = instance.log.split('going on from the last commit').length - 1;
    say(
      `${name}: ${events} events in ${((performance.now() - beganMs) / 1000).toFixed(1)} s; ${again} commits again, ${recovered} recoveries`,
    );
    const code = await instance.stop();
    if (code !== 0) problems.push(`ended with ${code}: ${instance.log.slice(-1500)}`);
  };
  try {
    for (let i = 0; i < starts; i++) await round('undisturbed');
    proxy.cut(share);
    for (let i = 0; i < starts; i++) await round('cut');
  } finally {
    proxy.cut(0);
    await proxy.close();
  }
  const ratio = seconds.undisturbed / seconds.cut;
  if (ratio < 0.5) problems.push(`${Math.round(100 * ratio)} % of the undisturbed throughput; expected: half at least`);
  const all = Array.from({ length: 2 * starts }, (_, i) => liveEvents({ events, users: 200, from: i * events })).flat();
  const verified = await world.verify(all);
  return {
    facts: {
      events: produced,
      starts: 2 * starts,
      cuts: proxy.cuts,
      'slowest start, s': startSeconds.toFixed(1),
      'undisturbed, s': seconds.undisturbed.toFixed(1),
      'cut, s': seconds.cut.toFixed(1),
      throughput: `${Math.round(100 * ratio)} %`,
    },
    problems: [...problems, ...verified.problems, ...(await world.verifyState(all))],
  };
}
