import { afterEach, describe, expect, it } from 'vitest';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import { shadowCheck } from '../../streams/shadow-check.ts';
import { TopologyDriver } from '../../streams/topology-driver.ts';

const bundle = randomBundle({ dimension: 16, layers: 2, heads: 2, maxSequenceLength: 12 });
const mapping = {
  eventId: '{id}',
  userId: '{user}',
  action: '{kind}',
  entity: 'item:{item}',
  eventTime: { field: 'time', unit: 's' as const },
};
const start = 1_500_000_000;
const event = (user: string, item: number, minute: number, id = `${user}-${item}-${minute}`, kind = 'view') =>
  JSON.stringify({ id, user, kind, item, time: start + 60 * minute });

const drivers: TopologyDriver[] = [];
function driver(publish: 'every-batch' | 'every-event' = 'every-batch'): TopologyDriver {
  const made = new TopologyDriver({ bundle, mapping, settings: { publish } });
  drivers.push(made);
  return made;
}
afterEach(async () => {
  for (const made of drivers.splice(0)) await made.close();
});

const history = Array.from({ length: 40 }, (_, i) => event(i % 3 === 0 ? 'ann' : 'bob', 1 + ((i * 7) % 90), i));
const last = (outputs: readonly OutputBatch[], user: string) =>
  outputs
    .flatMap((output) => output.embeddings)
    .filter((embedding) => embedding.userId === user)
    .at(-1)!;
const deviation = (a: Float32Array, b: Float32Array) => Math.max(...a.map((value, d) => Math.abs(value - b[d]!)));

async function run(
  target: TopologyDriver,
  values: readonly string[],
  size: number,
  between: (i: number) => Promise<void> = async () => {},
) {
  const outputs: OutputBatch[] = [];
  for (let i = 0; i < values.length; i += size) {
    outputs.push(await target.pipe(values.slice(i, i + size)));
    await between(i);
  }
  return outputs;
}

describe('the topology', () => {
  it('gives the same embeddings and ranks whatever the batches', async () => {
    const single = await run(driver(), history, 1);
    const whole = await run(driver(), history, 40);
    const events = await run(driver('every-event'), history, 7);
    for (const user of ['ann', 'bob']) {
      expect(deviation(last(single, user).embedding, last(whole, user).embedding)).toBeLessThan(1e-5);
      expect(deviation(last(single, user).embedding, last(events, user).embedding)).toBeLessThan(1e-5);
      expect(last(whole, user).lineage).toEqual(last(single, user).lineage);
    }
    const ranks = (outputs: readonly OutputBatch[]) =>
      outputs.flatMap((output) => output.quality.map(({ eventId, rank }) => `${eventId}=${rank}`)).sort();
    expect(ranks(whole)).toEqual(ranks(single));
    expect(ranks(events)).toEqual(ranks(single));
    expect(ranks(single)).toHaveLength(38);
  });

  it('goes on after a crash as if there had been none', async () => {
    const crashing = driver();
    const disturbed = await run(crashing, history, 4, async (i) => {
      if (i % 12 === 0) await crashing.crash();
    });
    const undisturbed = await run(driver(), history, 4);
    expect(disturbed.map((output) => output.embeddings.map(({ userId, version }) => `${userId}@${version}`))).toEqual(
      undisturbed.map((output) => output.embeddings.map(({ userId, version }) => `${userId}@${version}`)),
    );
    for (const user of ['ann', 'bob'])
      expect(deviation(last(disturbed, user).embedding, last(undisturbed, user).embedding)).toBeLessThan(1e-5);
  });

  it('takes in late events, drops duplicates, and stays equal to a full encode', async () => {
    const target = driver();
    const outputs = await run(target, [event('ann', 1, 10), event('ann', 2, 30), event('ann', 3, 20), event('ann', 2, 30)], 1);
    expect(outputs.flatMap((output) => output.processed.map(({ disposition }) => disposition))).toEqual([
      'appended',
      'appended',
      'inserted',
      'duplicate',
    ]);
    const { embedding, lineage, queryTimeMs } = last(outputs, 'ann');
    const check = await shadowCheck(
      bundle,
      target.store,
      new Map([['ann', { embedding, sequenceDigest: lineage.sequenceDigest, queryTimeMs }]]),
    );
    expect(check.digestMismatches).toBe(0);
    expect(check.maxDelta).toBeLessThan(1e-5);
  });

  it('notices by the shadow check an embedding that is not the full encode', async () => {
    const target = driver();
    const { embedding, lineage, queryTimeMs } = last(await run(target, history, 8), 'bob');
    embedding[3]! += 1e-3;
    const published = new Map([['bob', { embedding, sequenceDigest: lineage.sequenceDigest, queryTimeMs }]]);
    expect((await shadowCheck(bundle, target.store, published)).maxDelta).toBeGreaterThan(9e-4);
  });

  it('forgets an erased user: the next event is a first one', async () => {
    const target = driver();
    await run(target, history, 8);
    expect(target.erase('bob')).toBe(true);
    expect(target.erase('bob')).toBe(false);
    const again = await target.pipe([event('bob', 5, 100)]);
    expect(again.embeddings.map(({ version, sequenceLength, outcome }) => ({ version, sequenceLength, outcome }))).toEqual([
      { version: 1, sequenceLength: 1, outcome: 'cold' },
    ]);
  });

  it('ends a history at an erasure in the stream, in any batching and after a crash', async () => {
    const values = [
      event('bob', 1, 1),
      event('ann', 2, 2),
      event('bob', 3, 3),
      event('bob', 1, 4, 'e', 'erase'),
      event('bob', 4, 5),
    ];
    for (const size of [1, 2, 5]) {
      const target = driver();
      const outputs = await run(target, values, size);
      expect(outputs.flatMap((output) => output.erased ?? [])).toEqual(['bob']);
      expect(last(outputs, 'bob')).toMatchObject({ version: 1, sequenceLength: 1 });
      expect(last(outputs, 'ann')).toMatchObject({ version: 1 });
      await target.crash();
      expect(target.store.get('bob')?.version).toBe(1);
      if (size === 5)
        expect(outputs[0]!.processed.map(({ action }) => `${action.userId} ${action.entity}`)).toEqual([
          'ann item:2',
          'bob item:4',
        ]);
    }
  });

  it('makes a dead letter of every record that it cannot use, and lets the good ones by', async () => {
    const output = await driver().pipe([
      'not json',
      event('ann', 1, 1),
      JSON.stringify({ id: 'x', user: 'ann', kind: 'view', time: start }),
      event('ann', 5000, 2),
      event('ann', 2, 3, 'y', 'dance'),
      JSON.stringify({ id: 'z', user: 'ann', kind: 'view', item: 3, time: 9e12 }),
      JSON.stringify({ id: 'z', user: 'ann', kind: 'view', item: 3, time: -5 }),
      event('ann', 4, 4),
    ]);
    expect(output.deadLetters.map(({ code, step, position }) => `${position.offset} ${step} ${code}`).sort()).toEqual([
      '0 decode RECORD_MALFORMED',
      '2 decode FIELD_MISSING',
      '3 sequence ENTITY_UNKNOWN',
      '4 sequence ACTION_UNKNOWN',
      '5 decode TIME_INVALID',
      '6 decode TIME_INVALID',
    ]);
    expect(output.processed).toHaveLength(2);
    expect(output.embeddings).toHaveLength(1);
  });

  it('commits a batch of nothing', async () => {
    const output = await driver().pipe(['', '[]']);
    expect(output.deadLetters).toHaveLength(2);
    expect(output.embeddings).toEqual([]);
  });
});
