/** A disk of a stated size, which can be filled and emptied: a tmpfs, so the operating system itself says ENOSPC. */
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { until } from './clickhouse-store.ts';

const run = promisify(execFile);
const CHUNK_BYTES = 2 ** 20;

export class SmallDisk {
  readonly folder: string;

  /** @throws where this user may not mount */
  static async mount(mebibytes: number): Promise<SmallDisk> {
    const folder = await mkdtemp(join(tmpdir(), 'hstu-disk-'));
    try {
      await run('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', folder]);
    } catch (error) {
      await rmdir(folder);
      throw error;
    }
    return new SmallDisk(folder);
  }

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Takes all the room that is left, to the last page. */
  async fill(): Promise<void> {
    const file = await open(this.#filler, 'a');
    try {
      // A short write takes the last pages; the one after it is refused.
      for (const zeros = Buffer.alloc(CHUNK_BYTES); ; ) await file.write(zeros);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    } finally {
      await file.close();
    }
  }

  makeRoom(): Promise<void> {
    return rm(this.#filler, { force: true });
  }

  /** Once nobody has a file open on it any more. */
  async unmount(): Promise<void> {
    const unmounted = () =>
      run('umount', [this.folder]).then(
        () => true,
        () => false,
      );
    await until(unmounted, 30_000);
    await rmdir(this.folder);
  }

  get #filler(): string {
    return join(this.folder, 'filler');
  }
}
