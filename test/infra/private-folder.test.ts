import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { makePrivateFolder } from '../../infra/files/private-folder.ts';
import { openStateStore } from '../../infra/store/lmdb-state-store.ts';

const root = mkdtempSync(join(tmpdir(), 'hstu-private-'));
afterAll(() => rmSync(root, { recursive: true }));
const modeOf = (...parts: string[]): string => (statSync(join(root, ...parts)).mode & 0o777).toString(8);

describe('what users did is for the own user only', () => {
  it('in folders that are made, and in ones that were open to all', () => {
    makePrivateFolder(join(root, 'a/b'));
    expect([modeOf('a'), modeOf('a/b')]).toEqual(['700', '700']);
    mkdirSync(join(root, 'old'));
    writeFileSync(join(root, 'old/file'), '');
    chmodSync(join(root, 'old'), 0o755);
    chmodSync(join(root, 'old/file'), 0o644);
    makePrivateFolder(join(root, 'old'));
    expect([modeOf('old'), modeOf('old/file')]).toEqual(['700', '600']);
  });

  it('in the local store, made or cleared', async () => {
    const { store } = await openStateStore({ path: join(root, 'state/0') });
    const modes = () => [modeOf('state'), modeOf('state/0'), modeOf('state/0/data.mdb')];
    expect(existsSync(join(root, 'state/0/data.mdb'))).toBe(true);
    expect(modes()).toEqual(['700', '700', '600']);
    await store.clear();
    expect(modes()).toEqual(['700', '700', '600']);
    await store.close();
  });
});
