/** The settings that decide what a history becomes: of two runs, or of a run and live, they must be the same. */
import type { Config } from '../../schemas/config.ts';

export const settingsOf = ({ sequence, time }: Config) => ({ sequence, time });
