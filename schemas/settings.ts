/** What the schema knows of a setting: where it lies, whether it is text, a path, a secret. Read from the schema itself, so that none is forgotten. */
import { z } from 'zod';

/** `secret`: its value is told to nobody. `path`: a relative one counts from the folder of the configuration file; so does a `pattern`, which may have wildcards. */
export type SettingKind = 'secret' | 'path' | 'pattern';

const kinds = z.registry<{ kind: SettingKind }>();

export const secretText = (): z.ZodString => z.string().register(kinds, { kind: 'secret' });
export const pathText = (): z.ZodString => z.string().min(1).register(kinds, { kind: 'path' });
export const patternText = (): z.ZodString => z.string().min(1).register(kinds, { kind: 'pattern' });

/** Stands for the index of a list's item, or the name of a record's entry. */
export const ANY = '*';

export interface Setting {
  /** Keys from the root; `*` for any item of a list and any entry of a record. */
  readonly path: readonly string[];
  readonly schema: z.ZodType;
}

/** The schemas that a value may follow: optional and default taken off, unions taken apart. */
function formsOf(schema: z.ZodType): z.ZodType[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable) return formsOf(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) return formsOf(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodUnion) return (schema.options as z.ZodType[]).flatMap(formsOf);
  return [schema];
}

/** Own keys of a group of settings, of a union those of all forms; undefined where the schema is none. */
export function keysOf(schema: z.ZodType): string[] | undefined {
  const objects = formsOf(schema).filter((form) => form instanceof z.ZodObject);
  return objects.length === 0 ? undefined : [...new Set(objects.flatMap((form) => Object.keys(form.shape)))];
}

function inner(schema: z.ZodType, key: string): z.ZodType | undefined {
  for (const form of formsOf(schema)) {
    if (form instanceof z.ZodObject && Object.hasOwn(form.shape, key)) return form.shape[key] as z.ZodType;
    if (form instanceof z.ZodArray && (key === ANY || /^\d{1,6}$/.test(key))) return form.element as z.ZodType;
    if (form instanceof z.ZodRecord) return form.valueType as z.ZodType;
  }
  return undefined;
}

/** The schema of what lies at a path; undefined where there is no such setting. */
export function settingAt(schema: z.ZodType, path: readonly PropertyKey[]): z.ZodType | undefined {
  return path.reduce<z.ZodType | undefined>((at, key) => at && inner(at, String(key)), schema);
}

/** All settings that hold no others. */
export function settingsOf(schema: z.ZodType, path: readonly string[] = []): Setting[] {
  const keys = keysOf(schema) ?? (inner(schema, ANY) ? [ANY] : []);
  if (keys.length === 0) return [{ path, schema }];
  return keys.flatMap((key) => settingsOf(inner(schema, key)!, [...path, key]));
}

export const kindOf = (schema: z.ZodType): SettingKind | undefined =>
  formsOf(schema)
    .map((form) => kinds.get(form)?.kind)
    .find((kind) => kind !== undefined);

export const isText = (schema: z.ZodType): boolean => formsOf(schema).every((form) => form.def.type === 'string');

export const isUrl = (schema: z.ZodType): boolean => formsOf(schema).some((form) => form instanceof z.ZodURL);

/** A list of texts, which may also be written with commas between. */
export const isTexts = (schema: z.ZodType): boolean =>
  formsOf(schema).every((form) => form instanceof z.ZodArray && isText(form.element as z.ZodType));

/** Whether it holds other settings, or items. */
export const isGroup = (schema: z.ZodType): boolean => keysOf(schema) !== undefined || inner(schema, ANY) !== undefined;

/** A copy with every setting that is there replaced by what `change` makes of it. */
export function mapSettings(schema: z.ZodType, value: unknown, change: (value: unknown, schema: z.ZodType) => unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => mapSettings(inner(schema, ANY) ?? schema, item, change));
  if (typeof value !== 'object' || value === null) return change(value, schema);
  const entries = Object.entries(value).map(([key, item]) => {
    const below = inner(schema, key);
    return [key, below === undefined ? item : mapSettings(below, item, change)] as const;
  });
  return Object.fromEntries(entries);
}

/** Every secret that a value holds, those in its URLs among them: `user:password@`, as written and decoded. */
export function secretsIn(schema: z.ZodType, value: unknown): string[] {
  const secrets = new Set<string>();
  mapSettings(schema, value, (found, at) => {
    if (typeof found === 'string' && kindOf(at) === 'secret') secrets.add(found);
    if (typeof found === 'string' && isUrl(at)) for (const secret of secretsOfUrl(found)) secrets.add(secret);
    return found;
  });
  secrets.delete('');
  return [...secrets];
}

function secretsOfUrl(text: string): string[] {
  const userInfo = /^[^:]*:\/\/([^/?#]*)@/.exec(text)?.[1] ?? '';
  const at = userInfo.indexOf(':');
  const password = at < 0 ? userInfo : userInfo.slice(at + 1);
  try {
    return [password, decodeURIComponent(password)];
  } catch {
    return [password];
  }
}
