/** What happens when standard output or standard error cannot be written, and what never reaches a terminal: for all commands, in one place. */
import { fstatSync, writeSync } from 'node:fs';
import { ownSequencesOnly } from './printable.ts';

const OUTPUT_FAILED = 1;

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: 'no space is left on its device',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file would be larger than is allowed',
  EIO: 'its device fails',
};

/**
 * From here on a reader that left is no fault: what would be printed is dropped, and the program ends by its own result. Standard output
 * that cannot be written otherwise, above all for want of space, is told once on standard error, and the exit code is 1 unless it would be
 * another fault's. Text holds no control characters but this program's own; data is written as bytes, which are left as they are.
 */
export function guardOutput(): void {
  for (const [stream, fd] of [
    [process.stdout, 1],
    [process.stderr, 2],
  ] as const) {
    escapeControls(stream);
    if (isFile(fd)) writeWhole(stream, fd);
  }
  let told = false;
  const tell = (fault: NodeJS.ErrnoException) => {
    if (told || hasLeft(process.stdout, fault)) return;
    told = true;
    try {
      writeSync(process.stderr.fd, `cannot write to standard output: ${REASONS[fault.code ?? ''] ?? fault.message}\n`);
    } catch {
      // Then neither can be written; the exit code still says it.
    }
  };
  process.stdout.on('error', tell);
  process.stderr.on('error', () => undefined);
  process.on('exit', () => {
    // A program that ends at once has not heard of what it wrote last.
    if (process.stdout.errored !== null) tell(process.stdout.errored);
    if (told && !process.exitCode) process.exitCode = OUTPUT_FAILED;
  });
}

/** Of a terminal that is gone, a hung-up line is how it shows. */
const hasLeft = (stream: NodeJS.WriteStream, { code }: NodeJS.ErrnoException): boolean =>
  code === 'EPIPE' || code === 'ECONNRESET' || (code === 'EIO' && stream.isTTY);

function escapeControls(stream: NodeJS.WriteStream): void {
  const write = stream.write.bind(stream) as (...args: unknown[]) => boolean;
  stream.write = (chunk: unknown, ...rest: unknown[]) =>
    write(typeof chunk === 'string' ? ownSequencesOnly(chunk) : chunk, ...rest);
}

function isFile(fd: number): boolean {
  try {
    return fstatSync(fd).isFile();
  } catch {
    return false;
  }
}

/** Node passes over it when a disk takes only the first part of what is written to a file. */
function writeWhole(stream: NodeJS.WriteStream, fd: number): void {
  stream._write = (chunk: Buffer, _encoding, done) => {
    try {
      for (let from = 0; from < chunk.length; ) from += writeSync(fd, chunk, from);
      done();
    } catch (error) {
      done(error as Error);
    }
  };
}

/** JSON, CSV and the like on standard output: as it is, but on a terminal, where it is text. */
export function printData(text: string): void {
  process.stdout.write(process.stdout.isTTY ? `${text}\n` : Buffer.from(`${text}\n`));
}
