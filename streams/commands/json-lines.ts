/** A file of JSON lines through a function, some lines at a time, into another file; with progress. */
import { stat } from 'node:fs/promises';
import { count } from '../../infra/console/format.ts';
import { startProgress } from '../../infra/console/progress.ts';
import { type OutputFile, openOutputFile } from '../../infra/files/output-file.ts';
import { readLines } from '../../infra/files/read-lines.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { MAX_LINE, TOO_LONG } from '../user-lines.ts';
import { INTERRUPTED, onInterrupt } from './interrupt.ts';

export interface LinesCommand<T> {
  readonly input: string;
  readonly output: string;
  /** What is done, for the progress bar: `encoding`. */
  readonly doing: string;
  /** One result a line, in order. */
  readonly transform: (lines: readonly string[]) => Promise<readonly T[]>;
}

interface LineResult {
  readonly userId?: string;
  readonly deadLetters?: readonly unknown[];
}

/** Lines together. */
const LINES_AT_ONCE = 16;

/**
 * Empty lines are passed over. The output is there once all of it is; interrupted, the exit code is set, and nothing of it stays.
 *
 * @returns how many lines gave a user's result, and how many faults there were; undefined where it ended early: interrupted, or because
 * nobody reads the output any more
 * @throws PipelineError `SOURCE_UNREADABLE`, `CONFIG_INVALID` where the output cannot be opened, `STORE_FAILED` where it cannot be written
 */
export async function transformLines<T extends LineResult>(
  command: LinesCommand<T>,
  isResult: (result: T) => boolean,
): Promise<{ readonly users: number; readonly faults: number } | undefined> {
  const { size } = await stat(command.input);
  const out = await openOutputFile(command.output);
  const progress = startProgress(`${command.doing} (bytes)`, size);
  const interrupt = onInterrupt(() => undefined);
  try {
    const done = await transformAll(command, isResult, out, interrupt.signal, (bytes, users) =>
      progress.update(bytes, `${count(users)} users`),
    );
    if (interrupt.signal.aborted) process.exitCode = INTERRUPTED;
    if (done !== undefined) await out.finish();
    return done;
  } finally {
    progress.stop();
    interrupt.dispose();
    await out.discard();
  }
}

async function transformAll<T extends LineResult>(
  { input, transform }: LinesCommand<T>,
  isResult: (result: T) => boolean,
  out: OutputFile,
  signal: AbortSignal,
  tell: (bytes: number, users: number) => void,
): Promise<{ readonly users: number; readonly faults: number } | undefined> {
  let users = 0;
  let faults = 0;
  let bytes = 0;
  let batch: string[] = [];
  const flush = async (): Promise<boolean> => {
    const results = await transform(batch);
    batch = [];
    users += results.filter(isResult).length;
    faults += results.reduce((sum, { deadLetters }) => sum + (deadLetters?.length ?? 0), 0);
    const goesOn = await out.write(results.map((result) => `${JSON.stringify(result)}\n`).join(''));
    tell(bytes, users);
    return goesOn && !signal.aborted;
  };
  for await (const { line = TOO_LONG } of readLines(input, MAX_LINE)) {
    bytes += Buffer.byteLength(line) + 1;
    batch.push(line);
    if (batch.length === LINES_AT_ONCE && !(await flush())) return undefined;
  }
  if (batch.length > 0 && !(await flush())) return undefined;
  return { users, faults };
}

/** @throws PipelineError `SOURCE_UNREADABLE` unless `file` is one */
export async function checkInput(file: string): Promise<void> {
  const found = await stat(file).catch((cause: unknown) => {
    throw new PipelineError('SOURCE_UNREADABLE', `cannot read ${file}: ${messageOf(cause)}`, { cause });
  });
  if (!found.isFile()) throw new PipelineError('SOURCE_UNREADABLE', `cannot read ${file}: not a file`);
}
