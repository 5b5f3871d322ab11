/** A run in files: what its list does not name is no part of it, and is made again; nothing in it says when it was made. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FileRunWriter, readManifest, runsIn } from '../../infra/files/run-folder.ts';
import { holdRun } from '../../streams/replay/hold-run.ts';
import { sampleBatch } from '../support/clickhouse-store.ts';

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'hstu-runs-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const open = (name: string) =>
  FileRunWriter.open({
    folder: join(root, name),
    format: 'jsonl',
    partBytes: 8_000,
    run: { runId: 'state-1', total: 100, facts: { mode: 'state' } },
    encode: (_, lines) => Promise.resolve(Buffer.from(`${lines.join('\n')}\n`)),
  });
const contents = async (name: string) => {
  const { parts, position, finished } = (await readManifest(join(root, name)))!;
  const texts = await Promise.all(parts.map((part) => readFile(join(root, name, part.name), 'utf8')));
  return { parts, position, finished, texts };
};

describe('a run in a folder', () => {
  it('is the same, byte for byte, when its writer was killed on the way', async () => {
    const whole = await open('whole');
    for (let n = 0; n < 5; n++) await whole.write(sampleBatch(n), { position: n + 1 });
    await whole.flush(true);

    const first = await open('killed');
    for (let n = 0; n < 3; n++) await first.write(sampleBatch(n), { position: n + 1 });
    // Killed between a part and the list that would name it.
    await writeFile(join(root, 'killed', 'embeddings-000099.jsonl'), 'of no list\n');
    await writeFile(join(root, 'killed', 'run.json.tmp'), '{"torn');
    const second = await open('killed');
    expect(second.position).toBeLessThanOrEqual(3);
    expect(second.isNew).toBe(false);
    for (let n = second.position; n < 5; n++) await second.write(sampleBatch(n), { position: n + 1 });
    await second.flush(true);

    const expected = await contents('whole');
    expect(expected.parts.length).toBeGreaterThan(4);
    expect(await contents('killed')).toEqual(expected);
    expect((await readdir(join(root, 'killed'))).sort()).toEqual(['run.json', ...expected.parts.map(({ name }) => name)].sort());
    expect((await runsIn(root, 'jsonl')).map(({ finished }) => finished)).toEqual([true, true]);
    expect(await runsIn(root, 'parquet')).toEqual([]);
  });

  it('has the lineage in every row, and numbers that are read back bit by bit', async () => {
    const { texts, parts } = await contents('whole');
    const at = parts.findIndex(({ kind }) => kind === 'embeddings');
    const row = JSON.parse(texts[at]!.split('\n')[0]!);
    const { lineage, embedding } = sampleBatch(0).embeddings[0]!;
    expect(row).toMatchObject({
      run_id: 'state-1',
      topic: lineage.topic,
      partition: lineage.partition,
      offset: lineage.offset,
      sequence_digest: lineage.sequenceDigest,
      model_digest: lineage.modelDigest,
    });
    expect(Float32Array.from(row.embedding)).toEqual(embedding);
  });

  it('has one writer at a time', async () => {
    const config = { state: { path: join(root, 'state') } } as Parameters<typeof holdRun>[0];
    const held = await holdRun(config, 'state-1');
    await expect(holdRun(config, 'state-1')).rejects.toThrow(
      `run state-1 is being written by process ${process.pid}: wait for it, or stop it`,
    );
    const other = await holdRun(config, 'state-2');
    held.release();
    (await holdRun(config, 'state-1')).release();
    other.release();
  });
});
