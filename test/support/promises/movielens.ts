/** Real data at full speed: every user's last embedding equals a full encode of the user's events. */
import { fileURLToPath } from 'node:url';
import { openFileSource } from '../../../infra/files/merge-by-time.ts';
import type { UserAction } from '../../../schemas/action.ts';
import { loadConfig } from '../../../streams/load-config.ts';
import type { LiveWorld } from '../live-world.ts';
import { type Shown, settle } from './promise.ts';

export const MOVIELENS_CONFIG = fileURLToPath(new URL('../../../examples/movielens/live.yaml', import.meta.url));

/** Two instances; the world has the demo's bundle. @param events of the 104,519 */
export async function everyLastEmbeddingEqualsAFullEncode(world: LiveWorld, events: number): Promise<Shown> {
  const actions = await movielens(events);
  const instances = await Promise.all([world.start('a'), world.start('b')]);
  await Promise.all(instances.map((instance) => instance.untilRunning()));
  const began = performance.now();
  await world.produce(actions, 1_000);
  await world.untilConsumed(actions.length, 300_000);
  const seconds = (performance.now() - began) / 1000;
  const shown = await settle(world, actions);
  return { facts: { 'events a second': Math.round(actions.length / seconds), ...shown.facts }, problems: shown.problems };
}

/** The first `events` of MovieLens in event-time order, as `produce` writes them. */
export async function movielens(events: number): Promise<UserAction[]> {
  const config = await loadConfig({ file: MOVIELENS_CONFIG });
  const files = await openFileSource(config.source!.files, { ...config.time, ...config.source! });
  const mappings = new Map(files.topics.map((topic, i) => [topic, files.mappings[i]!]));
  const actions: UserAction[] = [];
  for (const { record } of files.records(0, Math.min(events, files.total))) {
    const decoded = mappings.get(record.position.topic)!.decode(record);
    if (!decoded.ok) continue;
    for (const { position: _, ...action } of decoded.actions) actions.push(action);
  }
  return actions;
}
