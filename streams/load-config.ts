/** Reads the configuration: a YAML file, environment variables over it, flags over both; then checks the whole. */
import { dirname, resolve } from 'node:path';
import { patternIn } from '../infra/files/glob.ts';
import { type Config, configSchema, parseConfig } from '../schemas/config.ts';
import { dotted } from '../schemas/describe-issues.ts';
import { PipelineError } from '../schemas/errors.ts';
import { kindOf, mapSettings } from '../schemas/settings.ts';
import { readConfigFile } from './config-file.ts';
import { applyOverride, type Override, overrideOfAssignment, overridesOfEnvironment } from './config-overrides.ts';

export interface ConfigSources {
  /** YAML file. */
  readonly file: string;
  /** `HSTU_ENCODER__KV_BUDGET_BYTES=1000000` sets `encoder.kvBudgetBytes`. @default {} */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** `encoder.workers=2`, as given with `--set`. @default [] */
  readonly assignments?: readonly string[];
}

/**
 * Relative paths count from the folder of the file.
 *
 * @throws PipelineError `CONFIG_INVALID` listing every problem at once, and no secret
 */
export async function loadConfig({ file, environment = {}, assignments = [] }: ConfigSources): Promise<Config> {
  const tree = await readConfigFile(file, configSchema);
  const overrides = [...overridesOfEnvironment(environment, configSchema), ...assignments.map(overrideOfAssignment)];
  const problems = overrides.flatMap((override) => applyOverride(tree, override, configSchema) ?? []);
  if (problems.length > 0) throw new PipelineError('CONFIG_INVALID', problems.join('\n'));
  return withAbsolutePaths(
    parseConfig(tree, file, (path) => nameOf(path, overrides)),
    dirname(resolve(file)),
  );
}

/** Of what came from outside the file, the name by which it came. */
function nameOf(path: readonly PropertyKey[], overrides: readonly Override[]): string {
  const last = overrides.findLast((override) => override.path.every((key, place) => key === String(path[place])));
  return last === undefined ? dotted(path) : `${dotted(path)} (by ${last.name})`;
}

function withAbsolutePaths(config: Config, folder: string): Config {
  const absolute = mapSettings(configSchema, config, (value, setting) => {
    if (typeof value !== 'string') return value;
    const kind = kindOf(setting);
    if (kind === 'path') return resolve(folder, value);
    return kind === 'pattern' ? patternIn(folder, value) : value;
  });
  return absolute as Config;
}
