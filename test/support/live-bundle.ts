/** A small model on disk, and events for it: what tests of a deployment run with. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Bundle, loadBundle, writeBundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import type { UserAction } from '../../schemas/action.ts';

const FOLDER = fileURLToPath(new URL('../../.hstu/live-tests/bundle', import.meta.url));

/** 16 dimensions, 2 layers, a window of 40 that slides by 10: users slide within a test. */
const small = (): Bundle => randomBundle({ dimension: 16, layers: 2, heads: 2, maxSequenceLength: 40, vocabularySize: 300 });

/** A bundle written to disk, and as it is read from there. */
export async function liveBundle(bundle = small()): Promise<{ readonly bundle: Bundle; readonly path: string }> {
  const path = join(FOLDER, String(process.pid));
  await mkdir(path, { recursive: true });
  await writeBundle(path, bundle);
  return { bundle: await loadBundle(path), path };
}

export interface EventsOptions {
  readonly events: number;
  readonly users: number;
  /** Share of events that come late, within their user's recent past. @default 0.03 */
  readonly late?: number;
  readonly seed?: number;
  /** First event number: goes on where an earlier call ended. @default 0 */
  readonly from?: number;
}

/** Seeded events, users by a heavy tail; times grow by a few seconds an event. */
export function liveEvents({ events, users, late = 0.03, seed = 1, from = 0 }: EventsOptions): UserAction[] {
  const random = mulberry(seed * 1_000_003 + from);
  return Array.from({ length: events }, (_, i) => {
    const n = from + i;
    const user = Math.floor(users * random() ** 2);
    const lateMs = random() < late ? Math.floor(random() * 200_000) : 0;
    return {
      eventId: `e${n}`,
      userId: `user-${user}`,
      action: 'view',
      entity: `item:${1 + Math.floor(300 * random())}`,
      eventTimeMs: 1_700_000_000_000 + n * 5_000 - lateMs,
    };
  });
}

/** Mulberry32, public domain. */
function mulberry(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
