/** Ranges of offsets as they are written on a command line: `0:100-2000,1:-500,2:70-`. */
import type { RangeBounds } from '../../infra/kafka/range-reader.ts';
import { PipelineError } from '../../schemas/errors.ts';

/** @throws PipelineError `CONFIG_INVALID` naming the part that is no range */
export function parseBounds(text: string | undefined): ReadonlyMap<number, RangeBounds> {
  const bounds = new Map<number, RangeBounds>();
  for (const part of text === undefined || text === '' ? [] : text.split(',')) {
    const [, partition, from, to] = /^(\d+):(\d*)-(\d*)$/.exec(part.trim()) ?? [];
    if (partition === undefined || bounds.has(Number(partition)))
      throw new PipelineError(
        'CONFIG_INVALID',
        `--offsets ${part}: expected PARTITION:FROM-TO once a partition, such as 0:100-2000 (TO not included; either may be left out)`,
      );
    bounds.set(Number(partition), {
      fromOffset: from === '' ? undefined : Number(from),
      toOffset: to === '' ? undefined : Number(to),
    });
  }
  return bounds;
}
