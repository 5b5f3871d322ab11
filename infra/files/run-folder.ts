/** A run in a folder: parts that are written aside and renamed, and a list of those that count, which is replaced last. */
import { open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { OutputBatch } from '../../schemas/batch.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import type { RunRecord } from '../../schemas/run-record.ts';
import { makePrivateFolder } from './private-folder.ts';
import { RUN_FILES, type RunFile, type RunLines, runLines } from './run-rows.ts';

export type RunFormat = 'jsonl' | 'parquet';

interface Part {
  readonly name: string;
  readonly kind: RunFile;
  readonly rows: number;
  readonly bytes: number;
}

/** `run.json`: what is not listed in it is no part of the run. */
export interface RunManifest extends RunRecord {
  readonly format: RunFormat;
  readonly parts: readonly Part[];
}

const MANIFEST = 'run.json';

/** Runs in the sub-folders of `path`, of one format or of all. */
export async function runsIn(path: string, format?: RunFormat): Promise<RunManifest[]> {
  const names = await readdir(path).catch(() => []);
  const found = await Promise.all(names.map((name) => readManifest(join(path, name))));
  return found.filter((one) => one !== undefined && (format === undefined || one.format === format)) as RunManifest[];
}

/** @throws PipelineError `STORE_FAILED` for one that is there and cannot be read */
export async function readManifest(folder: string): Promise<RunManifest | undefined> {
  let text: string;
  try {
    text = await readFile(join(folder, MANIFEST), 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new PipelineError('STORE_FAILED', `${join(folder, MANIFEST)}: ${messageOf(cause)}`, { cause });
  }
  try {
    return JSON.parse(text) as RunManifest;
  } catch (cause) {
    throw new PipelineError('STORE_FAILED', `${join(folder, MANIFEST)} is no JSON: ${messageOf(cause)}`, { cause });
  }
}

export interface FileRunOptions {
  readonly folder: string;
  readonly format: RunFormat;
  readonly run: Pick<RunRecord, 'runId' | 'total' | 'facts'>;
  /** A part is written when its lines come to this: what the writer holds in memory. */
  readonly partBytes: number;
  /** The bytes of a part. */
  readonly encode: (kind: RunFile, lines: readonly string[]) => Promise<Uint8Array>;
}

/**
 * Writes a run's parts. A killed writer leaves parts that no list names: the next one removes them and makes them again, of the
 * same rows under the same names.
 */
export class FileRunWriter {
  readonly #options: FileRunOptions;
  #manifest: RunManifest;
  #lines: RunLines = emptyLines();
  #bytes = 0;
  /** Where the run goes on after the lines held. */
  #next: Pick<RunRecord, 'position' | 'batchesDone'>;
  #queue: Promise<void> = Promise.resolve();

  /** @throws PipelineError `STORE_FAILED` */
  static async open(options: FileRunOptions): Promise<FileRunWriter> {
    const { folder, format, run } = options;
    return onDisk(folder, async () => {
      makePrivateFolder(folder);
      const found = await readManifest(folder);
      const listed = new Set([MANIFEST, ...(found?.parts ?? []).map(({ name }) => name)]);
      for (const name of await readdir(folder)) if (!listed.has(name)) await rm(join(folder, name), { force: true });
      return new FileRunWriter(options, found ?? { ...run, format, position: 0, finished: false, updatedAtMs: 0, parts: [] });
    });
  }

  private constructor(options: FileRunOptions, manifest: RunManifest) {
    this.#options = options;
    this.#manifest = manifest;
    this.#next = manifest;
  }

  get position(): number {
    return this.#manifest.position;
  }

  get batchesDone(): number {
    return this.#manifest.batchesDone ?? 0;
  }

  /** Whether nothing was stored before. */
  get isNew(): boolean {
    return this.#manifest.updatedAtMs === 0;
  }

  get isFinished(): boolean {
    return this.#manifest.finished;
  }

  /** Takes a batch; stores what it has when that is a part. */
  write(batch: OutputBatch, next: Pick<RunRecord, 'position' | 'batchesDone'>): Promise<void> {
    return this.#inTurn(async () => {
      const lines = runLines(this.#options.run.runId, batch);
      for (const kind of RUN_FILES)
        for (const line of lines[kind]) {
          this.#lines[kind].push(line);
          this.#bytes += line.length;
        }
      this.#next = next;
      if (this.#bytes >= this.#options.partBytes) await this.#commit(false);
    });
  }

  /** Stores what it has, and says of the run whether it is finished. */
  flush(finished: boolean): Promise<void> {
    return this.#inTurn(() => this.#commit(finished));
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#queue = this.#queue.then(() => onDisk(this.#options.folder, work));
    return this.#queue;
  }

  async #commit(finished: boolean): Promise<void> {
    const { folder, format, encode } = this.#options;
    const parts = [...this.#manifest.parts];
    for (const kind of RUN_FILES) {
      const lines = this.#lines[kind];
      if (lines.length === 0) continue;
      const number = parts.filter((part) => part.kind === kind).length;
      const name = `${kind}-${String(number).padStart(6, '0')}.${format}`;
      const bytes = await encode(kind, lines);
      await writeWhole(folder, name, bytes);
      parts.push({ name, kind, rows: lines.length, bytes: bytes.byteLength });
    }
    const manifest = { ...this.#manifest, ...this.#next, finished, parts, updatedAtMs: Date.now() };
    await writeWhole(folder, MANIFEST, Buffer.from(`${JSON.stringify(manifest, null, 1)}\n`));
    this.#manifest = manifest;
    this.#lines = emptyLines();
    this.#bytes = 0;
  }
}

const emptyLines = (): RunLines => ({ embeddings: [], scores: [], quality: [], dead_letters: [] });

/** There in full, or not at all, whatever happens meanwhile. */
async function writeWhole(folder: string, name: string, bytes: Uint8Array): Promise<void> {
  const path = join(folder, name);
  const file = await open(`${path}.tmp`, 'w');
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.tmp`, path);
  const directory = await open(folder, 'r');
  await directory.sync().finally(() => directory.close());
}

async function onDisk<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof PipelineError) throw cause;
    throw new PipelineError('STORE_FAILED', `writing the run in ${folder} failed: ${messageOf(cause)}`, { cause });
  }
}
