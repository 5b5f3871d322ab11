/** The loads of all threads as one. */
import type { ClassLoad, EncoderLoad, WorkClass } from '../../schemas/encoding.ts';

export function joinLoads(all: readonly EncoderLoad[]): EncoderLoad {
  const sum = (workClass: WorkClass, field: keyof ClassLoad) => all.reduce((total, load) => total + load[workClass][field], 0);
  const join = (each: WorkClass) => ({ waiting: sum(each, 'waiting'), busy: sum(each, 'busy'), late: sum(each, 'late') });
  return { request: join('request'), update: join('update'), backfill: join('backfill') };
}
