/** A machine whose clock is wrong: it stops and says so, with nothing of it in what is committed. */
import { liveEvents } from '../../live-bundle.ts';
import type { LiveWorld } from '../../live-world.ts';
import { type Shown, settle } from '../promise.ts';

const HOUR_MS = 3_600_000;

/** The records are good, and of now; once the clock is right, each is processed. */
export async function aClockThatIsOffIsNamed(world: LiveWorld, { hours }: { readonly hours: number }): Promise<Shown> {
  const problems: string[] = [];
  const actions = liveEvents({ events: 50, users: 10, late: 0 });
  // Recent, as a producer writes them, in the order in which they are told apart.
  const now = Date.now();
  const recent = actions.map((action, i) => ({ ...action, eventTimeMs: now + i }));
  const instance = await world.start('a', { clockMs: hours * HOUR_MS });
  await instance.untilRunning();
  await world.produce(recent);
  if (!(await instance.endsWithin(60_000))) problems.push(`it goes on:\n${instance.log.slice(-3_000)}`);
  else if ((await instance.ended()) !== 2) problems.push(`it ended with ${await instance.ended()}, not 2`);
  if (!/CLOCK_OFF/.test(instance.log)) problems.push('the clock is not named');
  const consumed = await world.consumed();
  if (consumed > 0) problems.push(`${consumed} records were committed by a clock that is ${hours} h off`);
  await instance.kill();
  await world.start('a');
  const { facts, problems: lost } = await settle(world, recent);
  const letters = await world.outputs(world.config.kafka.topics.deadLetters, 'DeadLetter');
  if (letters.length > 0) problems.push(`${letters.length} good records are dead letters`);
  return { facts: { 'hours off': hours, ...facts }, problems: [...problems, ...lost] };
}
