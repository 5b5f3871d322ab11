/** Faults of instances: killed, frozen, joining, leaving, without or with a broken local store. */
import { readdir, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import type { Instance, LiveWorld } from '../live-world.ts';
import { Load, type Say, type Shown, settle, sleep } from './promise.ts';

interface Rounds {
  readonly rounds: number;
  readonly say: Say;
}

const LOAD = { perSecond: 600, users: 200 };

/** Two instances under load, one of them killed at a random moment and started again, round after round. */
export async function nothingLostOrDoubledAfterKill9(world: LiveWorld, { rounds, say }: Rounds): Promise<Shown> {
  const names = ['a', 'b'];
  const instances: Instance[] = await Promise.all(names.map((name) => world.start(name)));
  await Promise.all(instances.map((instance) => instance.untilRunning()));
  const load = new Load(world).start(LOAD);
  for (let round = 0; round < rounds; round++) {
    await sleep(300 + Math.random() * 2_500);
    const victim = round % 2;
    say(`round ${round + 1} of ${rounds}: kill -9 of ${names[victim]}`);
    await instances[victim]!.kill();
    await sleep(Math.random() * 500);
    instances[victim] = await world.start(names[victim]!);
    await instances[victim]!.untilRunning(60_000);
  }
  const shown = await settle(world, await load.stop());
  return { ...shown, facts: { rounds, ...shown.facts } };
}

/** A third instance joins and leaves under load. */
export async function nothingLostOrDoubledByRebalances(world: LiveWorld, { rounds, say }: Rounds): Promise<Shown> {
  const [first] = await Promise.all([world.start('a'), world.start('b')]);
  await first!.untilRunning();
  const load = new Load(world).start(LOAD);
  const problems: string[] = [];
  for (let round = 0; round < rounds; round++) {
    say(`round ${round + 1} of ${rounds}: c joins and leaves`);
    const third = await world.start('c');
    await third.untilLogged(/"state":"RUNNING"/, 60_000);
    await sleep(500 + Math.random() * 1_500);
    const code = await third.stop();
    if (code !== 0) problems.push(`an instance that was asked to leave ended with ${code}:\n${third.log.slice(-1500)}`);
  }
  const shown = await settle(world, await load.stop());
  return { facts: { rounds, ...shown.facts }, problems: [...problems, ...shown.problems] };
}

/** Killed, and its local store gone: all of it comes back from the changelog. */
export async function stateSurvivesTheLossOfTheStore(world: LiveWorld): Promise<Shown> {
  const first = await world.start('a');
  await first.untilRunning();
  const load = new Load(world).start(LOAD);
  await sleep(3_000);
  await first.kill();
  await rm(join(world.folder, 'a'), { recursive: true, force: true });
  const again = await world.start('a');
  await again.untilRunning();
  await sleep(1_000);
  const shown = await settle(world, await load.stop());
  return again.log.includes('changelog records')
    ? shown
    : { ...shown, problems: [...shown.problems, 'it said nothing of a restore'] };
}

/** A store whose files are cut short is found out, said, and rebuilt. */
export async function aDamagedStoreIsFoundAndRebuilt(world: LiveWorld): Promise<Shown> {
  const first = await world.start('a');
  await first.untilRunning();
  const load = new Load(world).start(LOAD);
  await sleep(2_500);
  await first.stop();
  const stores = (await readdir(join(world.folder, 'a'), { recursive: true })).filter((file) => file.endsWith('data.mdb'));
  for (const file of stores) await truncate(join(world.folder, 'a', file), 5_000);
  const again = await world.start('a');
  await again.untilRunning();
  await sleep(1_000);
  const shown = await settle(world, await load.stop());
  const problems = [...shown.problems];
  if (stores.length === 0) problems.push('there was no store to damage');
  if (!again.log.includes('the local store is restored from the changelog')) problems.push('the damage was not said');
  return { facts: { 'stores damaged': stores.length, ...shown.facts }, problems };
}

/** Frozen past its session, then awake again: its partitions are another's, and it changes nothing of them. */
export async function aZombieIsFenced(world: LiveWorld): Promise<Shown> {
  const [zombie, other] = await Promise.all([world.start('a'), world.start('b')]);
  // Each has its half: the group is at rest. Whoever came first runs already, with all four, and only gives two of them up.
  const half = [/"state":"RUNNING"/, /"msg":"owns 2 partition/];
  await Promise.all([zombie!, other!].flatMap((instance) => half.map((said) => instance.untilLogged(said, 60_000))));
  const load = new Load(world).start(LOAD);
  await sleep(2_000);
  const frozen = other!.log.length;
  zombie!.signal('SIGSTOP');
  await other!.untilLogged(/"msg":"owns 4 partition[\s\S]*"state":"RUNNING"/, 60_000, frozen);
  await sleep(1_500);
  const asleep = zombie!.log.length;
  zombie!.signal('SIGCONT');
  await sleep(6_000);
  const shown = await settle(world, await load.stop());
  const woken = zombie!.log.slice(asleep);
  const problems = [...shown.problems];
  if (!woken.includes('PRODUCER_FENCED')) problems.push(`no commit of the zombie was refused:\n${woken.slice(-1500)}`);
  if (!/"msg":"owns 2 partition/.test(woken)) problems.push('the zombie did not come back into the group');
  return { facts: shown.facts, problems };
}

/** With a standby, taking over a dead instance's partitions reads the end of their changelogs only. */
export async function aStandbyTakesOverWarm(world: LiveWorld): Promise<Shown> {
  const [first, second] = await Promise.all([world.start('a'), world.start('b')]);
  await Promise.all([first!.untilRunning(), second!.untilRunning()]);
  const load = new Load(world).start({ perSecond: 300, users: 200 });
  await sleep(6_000);
  const actions = await load.stop();
  await world.untilConsumed(actions.length);
  // Two looks at the changelogs: the standby has all there is.
  await sleep(2_500);
  await first!.kill();
  const before = second!.log.length;
  await second!.untilLogged(/"msg":"owns 4 partition[\s\S]*"state":"RUNNING"/, 30_000, before);
  const read = [...second!.log.slice(before).matchAll(/"total":(\d+)/g)].reduce((sum, [, total]) => sum + Number(total), 0);
  const shown = await settle(world, actions);
  const problems = read <= 40 ? shown.problems : [...shown.problems, `${read} changelog records were read in taking over`];
  return { facts: { 'changelog records read': read, ...shown.facts }, problems };
}
