/** Tells what is wrong with something read from outside: where, the value, what is allowed; of a secret never the value. */
import type { z } from 'zod';
import { nearest } from './nearest.ts';
import { isGroup, isUrl, keysOf, kindOf, settingAt } from './settings.ts';

type Issue = z.core.$ZodIssue;

/**
 * One line an issue: key, what is allowed, value found.
 *
 * @param schema of the input: which keys there are, and whose values are not shown. @default no key is known, values are shown
 * @param nameOf how a path is told. @default its keys, with dots between
 */
export function describeIssues(error: z.ZodError, input: unknown, schema?: z.ZodType, nameOf = dotted): string[] {
  return error.issues.flatMap((issue) => fitting(issue)).map((issue) => `  ${describe(issue, input, schema, nameOf)}`);
}

export const dotted = (path: readonly PropertyKey[]): string => path.map(String).join('.') || '(root)';

/** Of a union the issues of the form that the value comes nearest to: the one whose own type it has. */
function fitting(issue: Issue, above: readonly PropertyKey[] = []): Issue[] {
  const path = [...above, ...issue.path];
  const form =
    issue.code === 'invalid_union'
      ? issue.errors.find((issues) => !issues.some(({ code, path }) => code === 'invalid_type' && path.length === 0))
      : undefined;
  return form === undefined ? [{ ...issue, path }] : form.flatMap((below) => fitting(below, path));
}

function describe(issue: Issue, input: unknown, schema: z.ZodType | undefined, nameOf: typeof dotted): string {
  const at = schema && settingAt(schema, issue.path);
  if (issue.code === 'unrecognized_keys') {
    const known = (at && keysOf(at)) ?? [];
    return `${nameOf(issue.path)}: no such key: ${issue.keys.map((key) => unknownKey(key, known)).join(', ')}`;
  }
  const found = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], input);
  return `${nameOf(issue.path)}: ${issue.message} (found: ${shown(found, schema === undefined ? undefined : (at ?? schema))})`;
}

function unknownKey(key: string, known: readonly string[]): string {
  const near = nearest(key, known);
  return `${plainKey(key)}${near === undefined ? '' : ` (did you mean ${near}?)`}`;
}

/** What of a key is surely a key: where a colon or a quote is missing, the rest is a value. */
export const plainKey = (key: string): string => {
  const word = /^[\w.-]{0,64}/.exec(key)![0];
  return word === key ? word : `${word}…`;
};

/** `undefined` for the schema: a value of which nothing is secret. */
function shown(found: unknown, schema: z.ZodType | undefined): string {
  if (found === undefined) return 'missing';
  if (Array.isArray(found)) return `a list of ${found.length}`;
  if (typeof found === 'object' && found !== null) return 'a mapping';
  if (schema !== undefined && typeof found === 'string') {
    if (kindOf(schema) === 'secret' || isGroup(schema)) return `a text of ${found.length} characters`;
    if (isUrl(schema) && !isPlainAddress(found)) return 'a text that may hold credentials';
  }
  if (schema !== undefined && kindOf(schema) === 'secret' && found !== null) return `a ${typeof found}`;
  return JSON.stringify(found)?.slice(0, 80) ?? typeof found;
}

/** A host with or without scheme, port and path: no part of it can be a user's or a password. */
const isPlainAddress = (text: string): boolean => /^([a-z+.-]*:?\/\/)?[\w.-]*(:\d{1,5})?(\/[\w./-]*)?$/i.test(text);
