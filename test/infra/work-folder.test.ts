import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { makeWorkFolder, removeWorkFolder } from '../../infra/files/work-folder.ts';

let parent: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'work-folder-'));
});
afterEach(() => rmSync(parent, { recursive: true }));

it('sweeps what ended processes left of its kind on this machine, and nothing else', () => {
  const ended = spawnSync(process.execPath, ['-e', '0']).pid;
  const left = `sort-${hostname()}-${ended}-abcdef`;
  // A container's process often has the pid of the one before it.
  const before = `sort-${hostname()}-${process.pid}-abcdef`;
  const others = [`rows-${hostname()}-${ended}-abcdef`, `sort-elsewhere-${ended}-abcdef`, `sort-${hostname()}-1-abcdef`];
  for (const name of [left, before, ...others]) mkdirSync(join(parent, name));
  const first = makeWorkFolder(parent, 'sort');
  const second = makeWorkFolder(parent, 'sort');
  expect(readdirSync(parent).sort()).toEqual([...others, basename(first), basename(second)].sort());
  removeWorkFolder(first);
  expect([existsSync(first), existsSync(second)]).toEqual([false, true]);
});
