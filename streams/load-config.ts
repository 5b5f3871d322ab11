/** Reads the configuration: a YAML file, environment variables over it, flags over both; then checks the whole. */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { parse as parseYaml } from 'yaml';
import { type Config, type KafkaConfig, parseConfig } from '../schemas/config.ts';
import { messageOf, PipelineError } from '../schemas/errors.ts';

export const ENVIRONMENT_PREFIX = 'HSTU_';

/** Settings whose text is taken as it is: a password of digits is not a number, and `#` begins no comment. */
const SECRET = /(password|passphrase|username)$/i;

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
 * @throws PipelineError `CONFIG_INVALID` listing every problem at once
 */
export async function loadConfig({ file, environment = {}, assignments = [] }: ConfigSources): Promise<Config> {
  const tree = await readYaml(file);
  for (const [name, value] of Object.entries(environment)) {
    if (name.startsWith(ENVIRONMENT_PREFIX) && value !== undefined) {
      const path = pathOfVariable(name);
      assign(tree, path, SECRET.test(path.at(-1)!) ? value : parseYaml(value));
    }
  }
  for (const assignment of assignments) {
    const at = assignment.indexOf('=');
    if (at < 1) throw new PipelineError('CONFIG_INVALID', `--set ${assignment}: expected KEY=VALUE, such as encoder.workers=2`);
    assign(tree, assignment.slice(0, at).split('.'), parseYaml(assignment.slice(at + 1)));
  }
  return withAbsolutePaths(parseConfig(tree, file), dirname(resolve(file)));
}

async function readYaml(file: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new PipelineError('CONFIG_INVALID', `cannot read the configuration ${file}: ${messageOf(cause)}`, { cause });
  }
  let tree: unknown;
  try {
    tree = parseYaml(text);
  } catch (cause) {
    throw new PipelineError('CONFIG_INVALID', `${file} is not YAML: ${messageOf(cause)}`, { cause });
  }
  if (typeof tree !== 'object' || tree === null || Array.isArray(tree))
    throw new PipelineError('CONFIG_INVALID', `${file} must hold a mapping of settings`);
  return tree as Record<string, unknown>;
}

/** `HSTU_ENCODER__KV_BUDGET_BYTES` → `['encoder', 'kvBudgetBytes']`. */
const pathOfVariable = (name: string): string[] =>
  name
    .slice(ENVIRONMENT_PREFIX.length)
    .split('__')
    .map((part) => part.toLowerCase().replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()));

function assign(tree: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let node = tree;
  for (const key of path.slice(0, -1)) {
    const inner = node[key];
    const next = typeof inner === 'object' && inner !== null ? (inner as Record<string, unknown>) : {};
    node[key] = next;
    node = next;
  }
  node[path.at(-1)!] = value;
}

function withAbsolutePaths(config: Config, folder: string): Config {
  const source = config.source && {
    ...config.source,
    files: config.source.files.map((file) => ({ ...file, path: resolve(folder, file.path) })),
    clickhouse: config.source.clickhouse.map((table) => ({
      ...table,
      ...(table.path !== undefined && { path: resolve(folder, table.path) }),
    })),
  };
  return {
    ...config,
    bundle: resolve(folder, config.bundle),
    clickhouse: { ...config.clickhouse, path: resolve(folder, config.clickhouse.path) },
    state: { ...config.state, path: resolve(folder, config.state.path) },
    backfill: { ...config.backfill, path: resolve(folder, config.backfill.path) },
    ...(config.catalogue !== undefined && { catalogue: { file: resolve(folder, config.catalogue.file) } }),
    ...(source !== undefined && { source }),
    ...(config.kafka !== undefined && { kafka: withAbsoluteFiles(config.kafka, folder) }),
  };
}

/** The certificates' paths. */
function withAbsoluteFiles(kafka: KafkaConfig, folder: string): KafkaConfig {
  if (typeof kafka.ssl === 'boolean') return kafka;
  const { caFile, certFile, keyFile } = kafka.ssl;
  return {
    ...kafka,
    ssl: {
      ...kafka.ssl,
      ...(caFile !== undefined && { caFile: resolve(folder, caFile) }),
      ...(certFile !== undefined && { certFile: resolve(folder, certFile) }),
      ...(keyFile !== undefined && { keyFile: resolve(folder, keyFile) }),
    },
  };
}
