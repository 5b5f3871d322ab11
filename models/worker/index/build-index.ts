/** A thread that builds the index of a vocabulary and leaves it in a file. */
import { mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { basename, dirname, extname, join } from 'node:path';
import { parentPort, threadId, workerData } from 'node:worker_threads';
import { CandidateIndex, type EntityTable } from '../../catalogue/candidate-index.ts';

export interface IndexBuildStart {
  readonly table: EntityTable;
  readonly file: string;
}

/** Files of other models that are left: one is served, one is loaded beside it, one may be gone back to. */
const KEPT = 3;

const { table, file } = (workerData as { start: IndexBuildStart }).start;
// On Linux a priority is a thread's own; elsewhere it would be that of the whole process.
if (process.platform === 'linux') setPriority(constants.priority.PRIORITY_LOW);
const index = CandidateIndex.build(table);
mkdirSync(dirname(file), { recursive: true });
const unfinished = `${file}.${process.pid}-${threadId}`;
index.save(unfinished);
// Whole or not at all: another process may look for it.
renameSync(unfinished, file);
removeOldest();
parentPort!.postMessage(null);

/** Of the others; who has one of them mapped keeps it. */
function removeOldest(): void {
  const folder = dirname(file);
  const others = readdirSync(folder)
    .filter((name) => extname(name) === extname(file) && name !== basename(file))
    .map((name) => ({ path: join(folder, name), writtenAt: statSync(join(folder, name)).mtimeMs }))
    .sort((a, b) => b.writtenAt - a.writtenAt);
  for (const { path } of others.slice(KEPT)) rmSync(path, { force: true });
}
