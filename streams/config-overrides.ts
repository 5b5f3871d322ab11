/** Settings from outside the file: environment variables and `--set`. */
import type { z } from 'zod';
import { plainKey } from '../schemas/describe-issues.ts';
import { PipelineError } from '../schemas/errors.ts';
import { nearest } from '../schemas/nearest.ts';
import { isText, isTexts, settingAt, settingsOf } from '../schemas/settings.ts';
import { parseSettings } from './config-file.ts';

const ENVIRONMENT_PREFIX = 'HSTU_';

export interface Override {
  /** As the user wrote it: `HSTU_ENCODER__WORKERS`, `--set encoder.workers`. */
  readonly name: string;
  readonly path: readonly string[];
  readonly text: string;
}

/** Keys by which JavaScript reaches what all objects share. */
const FORBIDDEN = new Set(['__proto__', 'constructor', 'prototype']);

/**
 * What Kubernetes puts into every pod for each Service of its namespace, also for one named `hstu` or `hstu-…`: no settings.
 *
 * Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
 */
const SERVICE_LINK = /^HSTU_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/;
const isServiceLink = (name: string, value: string): boolean =>
  SERVICE_LINK.test(name) || (/^HSTU_(\w+_)?PORT$/.test(name) && /^(tcp|udp|sctp):\/\//i.test(value));

/** `HSTU_ENCODER__KV_BUDGET_BYTES` sets `encoder.kvBudgetBytes`. */
export function overridesOfEnvironment(environment: Readonly<Record<string, string | undefined>>, schema: z.ZodType): Override[] {
  return Object.entries(environment).flatMap(([name, text]) => {
    if (!name.startsWith(ENVIRONMENT_PREFIX) || text === undefined) return [];
    const path = pathOfVariable(name);
    return settingAt(schema, path) === undefined && isServiceLink(name, text) ? [] : [{ name, path, text }];
  });
}

/** @throws PipelineError `CONFIG_INVALID` for one without a key; what there is of it is not told: it may be the value */
export function overrideOfAssignment(assignment: string): Override {
  const at = assignment.indexOf('=');
  if (at < 1) throw new PipelineError('CONFIG_INVALID', '--set: expected KEY=VALUE, such as encoder.workers=2');
  const key = assignment.slice(0, at);
  return { name: `--set ${plainKey(key)}`, path: key.split('.'), text: assignment.slice(at + 1) };
}

/**
 * Lays one over the tree.
 *
 * @returns what is wrong with it; undefined where it was laid over
 */
export function applyOverride(tree: Record<string, unknown>, override: Override, schema: z.ZodType): string | undefined {
  const { name, path } = override;
  const forbidden = path.find((key) => FORBIDDEN.has(key));
  if (forbidden !== undefined) return `${name}: ${forbidden} is no key of a setting`;
  const setting = settingAt(schema, path);
  if (setting === undefined) return `${name}: no such setting${meant(override, schema)}`;
  return assign(tree, path, settingFrom(override, setting), name);
}

/** Text is taken as it is, a list of texts with commas between, all else as YAML. */
function settingFrom({ name, text }: Override, setting: z.ZodType): unknown {
  if (isText(setting)) return text;
  if (isTexts(setting) && !/^\s*\[(?!.*\]:\d)|^\s*\[\s*["'[]/.test(text)) return text.split(',').map((item) => item.trim());
  return parseSettings(text, name, setting);
}

function meant({ name, path }: Override, schema: z.ZodType): string {
  const known = settingsOf(schema).map((setting) => setting.path.map((key, place) => (key === '*' ? (path[place] ?? '0') : key)));
  const names = known.map((keys) => (name.startsWith('--set') ? keys.join('.') : variableOf(keys)));
  const near = nearest(name.replace(/^--set /, ''), names);
  return near === undefined ? '' : ` (did you mean ${near}?)`;
}

/** Copies what it goes through: of a mapping that stands in several places by an alias, only the one place is set. */
function assign(tree: Record<string, unknown>, path: readonly string[], value: unknown, name: string): string | undefined {
  let node: Record<string, unknown> = tree;
  for (const [place, key] of path.entries()) {
    if (Array.isArray(node) && Number(key) > node.length)
      return `${name}: there is no item ${key}: ${path.slice(0, place).join('.')} has ${node.length}, counted from 0`;
    if (place === path.length - 1) {
      node[key] = value;
      return undefined;
    }
    const inner = Object.hasOwn(node, key) ? node[key] : undefined;
    const next = Array.isArray(inner) ? [...inner] : { ...(typeof inner === 'object' ? inner : undefined) };
    node[key] = next;
    node = next as Record<string, unknown>;
  }
  return undefined;
}

/** `HSTU_ENCODER__KV_BUDGET_BYTES` → `['encoder', 'kvBudgetBytes']`. */
const pathOfVariable = (name: string): string[] =>
  name
    .slice(ENVIRONMENT_PREFIX.length)
    .split('__')
    .map((part) => part.toLowerCase().replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()));

const variableOf = (path: readonly string[]): string =>
  ENVIRONMENT_PREFIX + path.map((key) => key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()).join('__');
