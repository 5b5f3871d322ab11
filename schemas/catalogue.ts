/** What is said of a catalogue's entities after the model was trained: new ones by their content, retired ones, how popular they are. */
import { messageOf } from './errors.ts';

/** The whole of what is known of an entity: a later update takes the place of an earlier one. */
export interface EntityUpdate {
  readonly entity: string;
  /** Embedding of its content, by the text or image model that the bundle's projection was fitted to. */
  readonly content?: Float32Array;
  /** For orders without a history: more is more popular. */
  readonly popularity?: number;
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

const FIELDS = new Set(['entity', 'content', 'popularity', 'retired', 'removed']);
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
  const { entity, content, popularity, retired, removed } = value as Record<string, unknown>;
  const unknown = Object.keys(value).find((field) => !FIELDS.has(field));
  if (unknown !== undefined) return malformed(`field ${unknown}; allowed: ${[...FIELDS].join(', ')}`);
  if (typeof entity !== 'string' || entity === '' || entity.length > MAX_ENTITY_LENGTH || /[\r\n]/.test(entity))
    return malformed(`entity ${shown(entity)}; must be a text of 1 to ${MAX_ENTITY_LENGTH} characters on one line`);
  if (popularity !== undefined && !Number.isFinite(popularity))
    return malformed(`popularity ${shown(popularity)}; must be a number`);
  for (const [field, flag] of Object.entries({ retired, removed }))
    if (flag !== undefined && typeof flag !== 'boolean') return malformed(`${field} ${shown(flag)}; must be true or false`);
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
      ...(retired === true && { retired }),
      ...(removed === true && { removed }),
    },
  };
}

const shown = (value: unknown): string => (value === undefined ? 'missing' : JSON.stringify(value).slice(0, 80));
const malformed = (message: string): EntityUpdateResult => refused('malformed', message);
const refused = (reason: EntityReject, message: string): EntityUpdateResult => ({ ok: false, reason, message });
