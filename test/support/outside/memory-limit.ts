/** A bound on the memory of a process and its children, as a container has it: the kernel kills what goes above. */
import { readFileSync } from 'node:fs';
import { access, constants, mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const CGROUPS = '/sys/fs/cgroup';

export class MemoryLimit {
  readonly #folder: string;

  /**
   * @returns why this machine has none, where this user may not make a control group with a memory limit
   */
  static async create(bytes: number): Promise<MemoryLimit | { readonly impossible: string }> {
    const places = placesFor(readFileSync('/proc/self/cgroup', 'utf8'));
    let impossible = 'no control group of memory is mounted';
    for (const { parent, limit } of places) {
      const folder = join(parent, `hstu-${process.pid}-${Date.now()}`);
      try {
        await access(join(parent, 'cgroup.procs'), constants.W_OK);
        await mkdir(folder);
        await writeFile(join(folder, limit), String(bytes));
        return new MemoryLimit(folder);
      } catch (error) {
        await rmdir(folder).catch(() => undefined);
        impossible = `no control group with a memory limit can be made: ${(error as Error).message}`;
      }
    }
    return { impossible };
  }

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Words to put before a command: the group is entered before the command is there. */
  get prefix(): readonly string[] {
    return ['sh', '-c', `echo $$ > ${join(this.#folder, 'cgroup.procs')} && exec "$@"`, 'sh'];
  }

  /** Once its processes have ended. */
  async remove(): Promise<void> {
    for (let tries = 0; tries < 50; tries++) {
      if ((await readFile(join(this.#folder, 'cgroup.procs'), 'utf8')).trim() === '') break;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await rmdir(this.#folder);
  }
}

/** Version 1: below our own group. Version 2: beside it, since a group with processes has no children with limits. */
function placesFor(own: string): { readonly parent: string; readonly limit: string }[] {
  return own
    .trim()
    .split('\n')
    .flatMap((line) => {
      const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
      if (controllers?.split(',').includes('memory'))
        return [{ parent: join(CGROUPS, 'memory', path!), limit: 'memory.limit_in_bytes' }];
      return controllers === '' ? [{ parent: join(CGROUPS, path!, '..'), limit: 'memory.max' }] : [];
    });
}

/** The most that a process has held in memory so far, bytes. */
export function peakRssBytes(pid: number): number {
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) * 1024;
}
