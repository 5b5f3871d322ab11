/** A command's output file: there in full under its name, or not at all; never its own input. */
import { once } from 'node:events';
import { type BigIntStats, createWriteStream, fstatSync, statSync, type WriteStream } from 'node:fs';
import { chmod, open as openFile, realpath, rename, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { messageOf, PipelineError } from '../../schemas/errors.ts';

const STANDARD_OUTPUT = 1;

/**
 * Refuses an output that is an input, whatever the two are called: by device and inode, so through links of both kinds too.
 *
 * @throws PipelineError `CONFIG_INVALID`; nothing has been opened then
 */
export function requireOtherFile(outputs: readonly string[], inputs: readonly string[]): void {
  for (const output of outputs)
    for (const input of inputs)
      if (isSameFile(output, input))
        throw new PipelineError(
          'CONFIG_INVALID',
          `the output ${output} is the input ${input}, which would be lost: name another output`,
        );
}

function isSameFile(a: string, b: string): boolean {
  const [one, other] = [found(a), found(b)];
  // A terminal or /dev/null may well be both.
  return one?.isFile() === true && one.dev === other?.dev && one.ino === other.ino;
}

/** Undefined for what cannot be looked at: who opens it says why. */
function found(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

export interface OutputFile {
  /** False when nobody reads on: the work can end. @throws PipelineError `STORE_FAILED` */
  readonly write: (text: string) => Promise<boolean>;
  /** Puts the file under its name. @throws PipelineError `STORE_FAILED` */
  readonly finish: () => Promise<void>;
  /** Leaves what was under the name before. Repeatable, and nothing after `finish`. */
  readonly discard: () => Promise<void>;
}

/**
 * Opens an output. A file is written beside its name and gets it at the end; a device, a pipe and standard output (`-` as well) are
 * written as they come.
 *
 * @throws PipelineError `CONFIG_INVALID` naming the path where it cannot be written
 */
export async function openOutputFile(path: string): Promise<OutputFile> {
  if (isStandardOutput(path)) return standardOutput();
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found?.isDirectory()) throw new Error('it is a folder');
    if (found !== undefined && !found.isFile()) return streamed(await opened(path), path);
    // A link stays one: what it leads to is replaced.
    const target = found === undefined ? resolve(path) : await realpath(path);
    return await beside(target, path, found?.mode);
  } catch (cause) {
    throw new PipelineError('CONFIG_INVALID', `cannot write ${path}: ${messageOf(cause)}`, { cause });
  }
}

function isStandardOutput(path: string): boolean {
  if (path === '-' || path === '/dev/stdout') return true;
  const [named, ours] = [found(path), fstatSync(STANDARD_OUTPUT, { bigint: true })];
  return (
    named !== undefined && !named.isDirectory() && path.startsWith('/dev/') && named.dev === ours.dev && named.ino === ours.ino
  );
}

/** What goes wrong with it is told by whoever guards it. */
function standardOutput(): OutputFile {
  return {
    // As bytes: it is data, which nothing may escape.
    write: (text) => new Promise((done) => process.stdout.write(Buffer.from(text), (error) => done(error == null))),
    finish: async () => undefined,
    discard: async () => undefined,
  };
}

async function opened(path: string): Promise<WriteStream> {
  const stream = createWriteStream(path);
  await once(stream, 'open');
  return stream;
}

function streamed(stream: WriteStream, path: string): OutputFile {
  let failed: NodeJS.ErrnoException | undefined;
  stream.on('error', (error) => {
    failed = error;
  });
  const write = (text: string) =>
    new Promise<boolean>((done, reject) =>
      stream.write(text, (error) => {
        const cause = (failed ?? error) as NodeJS.ErrnoException | null | undefined;
        if (cause == null) done(true);
        else if (cause.code === 'EPIPE') done(false);
        else reject(notWritten(path, cause));
      }),
    );
  const end = () => new Promise<void>((done) => (failed === undefined && !stream.closed ? stream.end(() => done()) : done()));
  return { write, finish: end, discard: end };
}

async function beside(target: string, path: string, mode: number | undefined): Promise<OutputFile> {
  const draft = `${target}.${process.pid}.partial`;
  const stream = await opened(draft);
  const { write, finish: close } = streamed(stream, path);
  let open = true;
  const discard = async () => {
    if (!open) return;
    open = false;
    await close();
    await rm(draft, { force: true });
  };
  const finish = async () => {
    try {
      await close();
      if (mode !== undefined) await chmod(draft, mode);
      // On the disk before it takes the place of what may be there.
      const file = await openFile(draft, 'r+');
      await file.sync().finally(() => file.close());
      await rename(draft, target);
      open = false;
    } catch (cause) {
      await discard();
      throw notWritten(path, cause);
    }
  };
  return { write, finish, discard };
}

const notWritten = (path: string, cause: unknown): PipelineError =>
  new PipelineError('STORE_FAILED', `cannot write ${path}: ${messageOf(cause)}`, { cause });
