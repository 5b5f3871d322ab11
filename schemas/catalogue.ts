/** What is said of a catalogue's entities after the model was trained: new ones by their content, retired ones, how popular they are. */
import {
  type EntityFields,
  type FieldValue,
  isFieldName,
  MAX_FIELD_TEXT,
  MAX_FIELD_VALUES,
  MAX_FIELDS,
} from './catalogue-filter.ts';
import { messageOf } from './errors.ts';

/** The whole of what is known of an entity: a later update takes the place of an earlier one. */
export interface EntityUpdate {
  readonly entity: string;
  /** Embedding of its content, by the text or image model that the bundle's projection was fitted to. */
  readonly content?: Float32Array;
  /** For orders without a history: more is more popular. */
  readonly popularity?: number;
  /** What filters and caps of lists go by. */
  readonly fields?: EntityFields;
  /** Not to be offered any more. */
  readonly retired?: boolean;
  /** What was said before is void. */
  readonly removed?: boolean;
}

/** Why an update was not taken. */
export type EntityReject = 'malformed' | 'content-not-finite' | 'content-dimension' | 'content-without-projection' | 'no-content';

export type EntityUpdateResult =
  | { readonly ok: true; readonly update: EntityUpdate }
  | { readonly ok: false; readonly reason: EntityReject; readonly message: string };

const FIELDS = new Set(['entity', 'content', 'popularity', 'fields', 'retired', 'removed']);
const MAX_ENTITY_LENGTH = 1_024;

/** Reads a JSON object of the fields of `EntityUpdate`, `content` as an array of numbers. Never throws. */
export function parseEntityUpdate(text: string): EntityUpdateResult {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (thrown) {
    return malformed(`not JSON: ${messageOf(thrown)}`);
  }
  return toEntityUpdate(value);
}

/** The same of an object. Never throws. */
export function toEntityUpdate(value: unknown): EntityUpdateResult {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return malformed('not an object');
  const { entity, content, popularity, fields, retired, removed } = value as Record<string, unknown>;
  const unknown = Object.keys(value).find((field) => !FIELDS.has(field));
  if (unknown !== undefined) return malformed(`field ${unknown}; allowed: ${[...FIELDS].join(', ')}`);
  if (typeof entity !== 'string' || entity === '' || entity.length > MAX_ENTITY_LENGTH || /[\r\n]/.test(entity))
    return malformed(`entity ${shown(entity)}; must be a text of 1 to ${MAX_ENTITY_LENGTH} characters on one line`);
  if (popularity !== undefined && !Number.isFinite(popularity))
    return malformed(`popularity ${shown(popularity)}; must be a number`);
  for (const [field, flag] of Object.entries({ retired, removed }))
    if (flag !== undefined && typeof flag !== 'boolean') return malformed(`${field} ${shown(flag)}; must be true or false`);
  const unfit = fields === undefined ? undefined : unfitField(fields);
  if (unfit !== undefined) return malformed(unfit);
  if (content !== undefined && !Array.isArray(content))
    return malformed(`content ${shown(content)}; must be an array of numbers`);
  const vector = content && Float32Array.from(content as unknown[], (one) => (typeof one === 'number' ? one : Number.NaN));
  const bad = vector?.findIndex((one) => !Number.isFinite(one)) ?? -1;
  if (bad >= 0)
    return refused('content-not-finite', `content of '${entity}' holds ${shown((content as unknown[])[bad])} at index ${bad}`);
  return {
    ok: true,
    update: {
      entity,
      ...(vector !== undefined && { content: vector }),
      ...(popularity !== undefined && { popularity: popularity as number }),
      ...(fields !== undefined && { fields: fields as EntityFields }),
      ...(retired === true && { retired }),
      ...(removed === true && { removed }),
    },
  };
}

/** What is wrong with an entity's fields; undefined where nothing is. */
function unfitField(fields: unknown): string | undefined {
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) return `fields ${shown(fields)}; must be an object`;
  const entries = Object.entries(fields);
  if (entries.length > MAX_FIELDS) return `${entries.length} fields; at most ${MAX_FIELDS}`;
  for (const [name, value] of entries) {
    if (!isFieldName(name)) return `fields.${shown(name)}; a name has letters, digits, _, . and -, at most 100`;
    if (!isFieldValue(value))
      return `fields.${name} ${shown(value)}; must be true, false, a number, a text of at most ${MAX_FIELD_TEXT}, or at most ${MAX_FIELD_VALUES} texts`;
  }
  return undefined;
}

function isFieldValue(value: unknown): value is FieldValue {
  if (Array.isArray(value)) return value.length <= MAX_FIELD_VALUES && value.every(isFieldText);
  return typeof value === 'boolean' || Number.isFinite(value) || isFieldText(value);
}

const isFieldText = (value: unknown): boolean => typeof value === 'string' && value.length <= MAX_FIELD_TEXT;

const shown = (value: unknown): string => (value === undefined ? 'missing' : JSON.stringify(value).slice(0, 80));
const malformed = (message: string): EntityUpdateResult => refused('malformed', message);
const refused = (reason: EntityReject, message: string): EntityUpdateResult => ({ ok: false, reason, message });
