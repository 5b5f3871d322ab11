/** The settings that decide what a run is made of. */
import type { Config } from '../../schemas/config.ts';

/** Of two runs, or of a run and live, they must be the same for a history to become the same. */
export const settingsOf = ({ sequence, time }: Config) => ({ sequence, time });

/** What decides which entities a replay lists: it always scans, so how `run` lists is none of it. */
export const listingOf = ({ scores }: Config) => ({
  ...scores,
  index: undefined,
  // Where there is none as before there could be any, so that runs keep their names.
  ownHistory: scores.ownHistory || undefined,
});
