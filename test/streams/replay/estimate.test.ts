/** A dry run counts what a backfill would do, and stores nothing. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { loadBundle } from '../../../models/hstu/bundle.ts';
import { loadConfig } from '../../../streams/load-config.ts';
import { estimate } from '../../../streams/replay/estimate.ts';
import { fileBackfill } from '../../../streams/replay/source.ts';

describe('estimate', () => {
  it('counts MovieLens, extrapolates its embeddings, and leaves nothing on disk', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hstu-estimate-'));
    try {
      const given = await loadConfig({
        file: fileURLToPath(new URL('../../../examples/movielens/replay.yaml', import.meta.url)),
      });
      const config = { ...given, state: { ...given.state, path: folder } };
      const bundle = await loadBundle(config.bundle);
      const common = { config, bundle, source: fileBackfill(config), memoryBytes: 4 * 2 ** 20 };
      const result = await estimate({ ...common, mode: 'every-event' });
      expect(result).toMatchObject({ records: 104_519, events: 104_519, ignored: 0 });
      expect(result.refusals.count).toBe(0);
      expect(Math.abs(result.embeddings - 100_836)).toBeLessThan(5_000);
      expect(result.embeddingBytes).toBe(4 * bundle.config.dimension * result.embeddings);
      expect(result.sortBytes).toBeGreaterThan(5e6);
      const ends = await estimate({ ...common, mode: 'state' });
      expect(Math.abs(ends.embeddings - 610)).toBeLessThan(200);
      expect(await readdir(join(folder, 'backfill'))).toEqual([]);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
