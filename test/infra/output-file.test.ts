import {
  chmodSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { openOutputFile, requireOtherFile } from '../../infra/files/output-file.ts';

const root = mkdtempSync(join(tmpdir(), 'hstu-output-'));
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(root, 'f-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('an output file', () => {
  it('has its name only when it is whole; what was there before stays until then', async () => {
    const path = join(folder, 'out.jsonl');
    writeFileSync(path, 'before');
    chmodSync(path, 0o640);
    const out = await openOutputFile(path);
    expect(await out.write('one\n')).toBe(true);
    expect(readFileSync(path, 'utf8')).toBe('before');
    expect(await out.write('two\n')).toBe(true);
    await out.finish();
    await out.discard();
    expect(readFileSync(path, 'utf8')).toBe('one\ntwo\n');
    expect(statSync(path).mode & 0o777).toBe(0o640);
    expect(readdirSync(folder)).toEqual(['out.jsonl']);
  });

  it('leaves nothing when the work is given up', async () => {
    const path = join(folder, 'out.jsonl');
    const out = await openOutputFile(path);
    await out.write('half');
    await out.discard();
    await out.discard();
    expect(readdirSync(folder)).toEqual([]);
  });

  it('replaces what a link leads to, not the link', async () => {
    const [target, link] = [join(folder, 'target'), join(folder, 'link')];
    writeFileSync(target, 'before');
    symlinkSync('target', link);
    const out = await openOutputFile(link);
    await out.write('after');
    await out.finish();
    expect(readFileSync(target, 'utf8')).toBe('after');
    expect(existsSync(link) && statSync(link).ino === statSync(target).ino).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(['link', 'target']);
  });

  it('says where it cannot be written', async () => {
    await expect(openOutputFile(join(folder, 'none', 'out'))).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('none/out'),
    });
    await expect(openOutputFile(folder)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('it is a folder'),
    });
    const full = await openOutputFile('/dev/full');
    await expect(full.write('x')).rejects.toMatchObject({
      code: 'STORE_FAILED',
      message: expect.stringMatching(/\/dev\/full: ENOSPC/),
    });
    await full.discard();
    const nothing = await openOutputFile('/dev/null');
    expect(await nothing.write('x')).toBe(true);
    await nothing.finish();
  });
});

describe('an output that is an input', () => {
  it('is refused by device and inode: the same path, another spelling, links of both kinds', () => {
    const path = join(folder, 'users.jsonl');
    writeFileSync(path, 'x');
    symlinkSync(path, join(folder, 'symbolic'));
    linkSync(path, join(folder, 'hard'));
    for (const output of [path, join(folder, '.', 'users.jsonl'), join(folder, 'symbolic'), join(folder, 'hard')]) {
      expect(() => requireOtherFile([output], [join(folder, 'other'), path])).toThrow(/which would be lost/);
      expect(() => requireOtherFile([path], [output])).toThrow(/which would be lost/);
    }
    writeFileSync(join(folder, 'copy'), 'x');
    expect(() => requireOtherFile([join(folder, 'copy'), join(folder, 'new')], [path])).not.toThrow();
    expect(() => requireOtherFile(['/dev/null'], ['/dev/null'])).not.toThrow();
    expect(() => requireOtherFile([join(path, 'below')], [path])).not.toThrow();
  });
});
