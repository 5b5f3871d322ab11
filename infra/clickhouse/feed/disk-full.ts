/** Whether ClickHouse has no room left: waiting fills no disk, and retrying would only hide it. */
import { ClickHouseError } from '@clickhouse/client';
import { messageOf } from '../../../schemas/errors.ts';

const NOT_ENOUGH_SPACE = '243';

export function isDiskFull(error: unknown): boolean {
  if (error instanceof ClickHouseError && error.code === NOT_ENOUGH_SPACE) return true;
  // The operating system's own words (ENOSPC, EDQUOT), whichever of ClickHouse's codes carries them.
  return /No space left on device|NOT_ENOUGH_SPACE|Disk quota exceeded|errno: (28|122)\b/.test(messageOf(error));
}
