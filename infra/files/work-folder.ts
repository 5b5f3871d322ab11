/** Folders of files that only their process reads. A killed process leaves its own behind; the next one on this machine sweeps it. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { isAlive } from './is-alive.ts';

/** Of this process. A process of before may have had its pid: in containers it often does. */
const own = new Set<string>();

/** A new folder within `parent`, `kind` and its owner in its name. Removes those of the kind whose owner ended on this machine. */
export function makeWorkFolder(parent: string, kind: string): string {
  mkdirSync(parent, { recursive: true, mode: 0o700 });
  const ofMachine = `${kind}-${hostname()}-`;
  for (const name of readdirSync(parent)) {
    if (!name.startsWith(ofMachine) || own.has(join(parent, name))) continue;
    const pid = Number(/^\d+/.exec(name.slice(ofMachine.length))?.[0]);
    if (pid === process.pid || !isAlive(pid)) rmSync(join(parent, name), { recursive: true, force: true });
  }
  const folder = mkdtempSync(join(parent, `${ofMachine}${process.pid}-`));
  own.add(folder);
  return folder;
}

export function removeWorkFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  own.delete(folder);
}
