/** A store of its own for a test file, and batches of made-up output to put into it. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ClickHouseConfig, connect } from '../../infra/clickhouse/connect.ts';
import type { UserAction } from '../../schemas/action.ts';
import type { OutputBatch } from '../../schemas/batch.ts';

export const embeddedIn = (folder: string, database = 'hstu'): ClickHouseConfig => ({ path: folder, database });

export interface TestStore {
  readonly folder: string;
  readonly connect: typeof connect;
  /** Waits for the engine to end, then removes the folder. */
  readonly remove: () => Promise<void>;
}

export function makeStore(): TestStore {
  const parent = mkdtempSync(join(tmpdir(), 'hstu-store-'));
  const folder = join(parent, 'clickhouse');
  return {
    folder,
    connect,
    remove: async () => {
      await until(() => !existsSync(join(folder, '.engine.json')), 5_000).catch(() => undefined);
      rmSync(parent, { recursive: true, force: true });
    },
  };
}

/** @throws when the condition does not come true in time */
export async function until(condition: () => boolean | Promise<boolean>, timeoutMs = 5_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not true within ${timeoutMs} ms: ${condition}`);
    await sleep(20);
  }
}

export const DIMENSION = 8;

/** Batch number `n`: `events` actions, each with an embedding, scores and a rank, and one dead letter. Same `n`, same rows. */
export function sampleBatch(n: number, events = 16): OutputBatch {
  const at = { topic: 'events.csv', partition: 0 };
  const lineage = (offset: number) => ({ ...at, offset, sequenceDigest: '0123456789abcdef', modelDigest: 'model-1' });
  const numbers = Array.from({ length: events }, (_, i) => n * (events + 1) + i);
  const action = (offset: number): UserAction => ({
    eventId: `event-${offset}`,
    userId: `user-${offset % 7}`,
    action: 'rating',
    entity: `movie:${(offset * 13) % 50}`,
    value: (offset % 10) / 2,
    eventTimeMs: Date.UTC(1996 + (offset % 4), 5, 1) + offset,
  });
  const deadOffset = n * (events + 1) + events;
  return {
    source: { ...at, records: [], nextOffset: deadOffset + 1, readAtMs: 0, ack: () => undefined },
    processed: numbers.map((offset) => ({
      action: { ...action(offset), position: { ...at, offset } },
      disposition: offset % 5 === 0 ? 'inserted' : 'appended',
    })),
    deadLetters: [
      {
        position: { ...at, offset: deadOffset },
        code: 'FIELD_MISSING',
        step: 'decode',
        message: "field 'x' is missing",
        original: 'a,b',
      },
    ],
    embeddings: numbers.map((offset) => ({
      userId: `user-${offset % 7}`,
      version: offset + 1,
      embedding: Float32Array.from({ length: DIMENSION }, (_, i) => Math.sin(offset * 31 + i)),
      sequenceLength: offset + 1,
      lastEventTimeMs: action(offset).eventTimeMs,
      queryTimeMs: action(offset).eventTimeMs,
      lineage: lineage(offset),
      computedAtMs: 1_700_000_000_000 + offset,
      latencyMs: 1 + ((offset * 7) % 100) / 10,
      rowsComputed: 1 + (offset % 3),
      outcome: offset % 4 === 0 ? 'cold' : 'hit',
    })),
    scores: numbers.map((offset) => ({
      userId: `user-${offset % 7}`,
      version: offset + 1,
      candidates: Array.from({ length: 5 }, (_, i) => ({ entity: `movie:${(offset + i) % 50}`, score: 1 - i / 8 })),
      lineage: lineage(offset),
      computedAtMs: 1_700_000_000_000 + offset,
    })),
    quality: numbers.map((offset) => ({
      ...action(offset),
      priorEvents: offset % 12,
      rank: 1 + ((offset * 17) % 80),
      lineage: lineage(offset),
    })),
  };
}
