/** One writer a run: two processes on the same would each count what the other wrote. */
import { join } from 'node:path';
import { makePrivateFolder } from '../../infra/files/private-folder.ts';
import { takeFolder } from '../../infra/store/folder-owner.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';

/** @throws PipelineError `CONFIG_INVALID` while another process of this machine writes the run */
export async function holdRun({ state }: Config, runId: string): Promise<{ release(): void }> {
  const folder = join(state.path, 'backfill-runs', runId);
  makePrivateFolder(folder);
  try {
    return await takeFolder(folder);
  } catch (cause) {
    if (!(cause instanceof PipelineError)) throw cause;
    const pid = / process (\d+)/.exec(cause.message)?.[1] ?? '?';
    throw new PipelineError(
      'CONFIG_INVALID',
      `run ${runId} is being written by process ${pid}: wait for it, or stop it (Ctrl-C, or SIGTERM) and go on from where it stood`,
      { cause },
    );
  }
}
