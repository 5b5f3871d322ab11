/** A file of JSON lines through a function, some lines at a time, into another file; with progress. */
import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import { count } from '../../infra/console/format.ts';
import { startProgress } from '../../infra/console/progress.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';

export interface LinesCommand<T> {
  readonly input: string;
  readonly output: string;
  /** What is done, for the progress bar: `encoding`. */
  readonly doing: string;
  /** One result a line, in order. */
  readonly transform: (lines: readonly string[]) => Promise<readonly T[]>;
}

/** Lines together. */
const LINES_AT_ONCE = 16;

/**
 * Empty lines are passed over.
 *
 * @returns how many lines gave a user's result, and how many faults there were
 * @throws PipelineError `SOURCE_UNREADABLE`, `CONFIG_INVALID` where the output cannot be written
 */
export async function transformLines<T extends { readonly userId?: string; readonly deadLetters?: readonly unknown[] }>(
  { input, output, doing, transform }: LinesCommand<T>,
  isResult: (result: T) => boolean,
): Promise<{ readonly users: number; readonly faults: number }> {
  const total = (await stat(input)).size;
  const out = createWriteStream(output);
  const written = finished(out).catch((cause: unknown) => {
    throw new PipelineError('CONFIG_INVALID', `cannot write ${output}: ${messageOf(cause)}`, { cause });
  });
  // Whoever awaits it first sees the failure; until then it must not count as unhandled.
  written.catch(() => undefined);
  const progress = startProgress(`${doing} (bytes)`, total);
  let users = 0;
  let faults = 0;
  let bytes = 0;
  let batch: string[] = [];
  const flush = async () => {
    for (const result of await transform(batch)) {
      if (isResult(result)) users += 1;
      faults += result.deadLetters?.length ?? 0;
      if (!out.write(`${JSON.stringify(result)}\n`)) await Promise.race([once(out, 'drain'), written]);
    }
    batch = [];
    progress.update(bytes, `${count(users)} users`);
  };
  for await (const line of createInterface({ input: createReadStream(input), crlfDelay: Number.POSITIVE_INFINITY })) {
    bytes += Buffer.byteLength(line) + 1;
    if (line.trim() === '') continue;
    batch.push(line);
    if (batch.length === LINES_AT_ONCE) await flush();
  }
  if (batch.length > 0) await flush();
  progress.stop();
  out.end();
  await written;
  return { users, faults };
}

/** @throws PipelineError `SOURCE_UNREADABLE` unless `file` is one */
export async function checkInput(file: string): Promise<void> {
  const found = await stat(file).catch((cause: unknown) => {
    throw new PipelineError('SOURCE_UNREADABLE', `cannot read ${file}: ${messageOf(cause)}`, { cause });
  });
  if (!found.isFile()) throw new PipelineError('SOURCE_UNREADABLE', `cannot read ${file}: not a file`);
}
