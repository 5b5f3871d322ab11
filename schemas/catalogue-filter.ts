/** What lists may hold by the fields of the catalogue: in the configuration, and in a request. */
import { z } from 'zod';

/** What the catalogue says of an entity beside the model: `{ inStock: true, category: ['tea', 'gift'], price: 4.5 }`. */
export type EntityFields = Readonly<Record<string, FieldValue>>;
export type FieldValue = boolean | number | string | readonly string[];

export const MAX_FIELDS = 64;
export const MAX_FIELD_VALUES = 64;
export const MAX_FIELD_TEXT = 256;
export const FIELD_NAME = /^[A-Za-z_][\w.-]{0,99}$/;

/** A record may hold keys that every object has by its kind: they are no fields. */
export const isFieldName = (name: string): boolean => FIELD_NAME.test(name) && !(name in Object.prototype);

const scalar = z.union([z.boolean(), z.number(), z.string().max(MAX_FIELD_TEXT)]);
const oneOrMore = z.union([scalar, z.array(scalar).min(1).max(1_000)]);

const condition = z.union([
  oneOrMore,
  z
    .strictObject({ min: z.number().optional(), max: z.number().optional() })
    .refine(({ min, max }) => min !== undefined || max !== undefined, 'needs min or max'),
  z.strictObject({ not: oneOrMore }),
]);

const fieldName = z.string().refine(isFieldName, 'a name of letters, digits, _, . and -, at most 100');

/** Fields and what they must be; an entity must meet all of them. */
export const catalogueFilterSchema = z
  .record(fieldName, condition)
  .refine((filter) => Object.keys(filter).length >= 1 && Object.keys(filter).length <= 16, '1 to 16 fields');

export type CatalogueFilter = z.infer<typeof catalogueFilterSchema>;

/** At most so many of a list with one value of a field. */
export const capsSchema = z
  .record(fieldName, z.int().positive().max(1_000))
  .refine((caps) => Object.keys(caps).length >= 1 && Object.keys(caps).length <= 8, '1 to 8 fields');

/**
 * Whether an entity of these fields meets the filter: a value or one of several, a range of numbers, or `not`. Of a field of several
 * values one must do, and none for `not`. A field that the catalogue does not say of the entity meets `not` alone.
 */
export function meets(fields: EntityFields | undefined, filter: CatalogueFilter): boolean {
  for (const [name, wanted] of Object.entries(filter)) {
    const found = fields !== undefined && Object.hasOwn(fields, name) ? valuesOf(fields[name]!) : [];
    if (!meetsCondition(found, wanted)) return false;
  }
  return true;
}

export const valuesOf = (value: FieldValue): readonly (boolean | number | string)[] =>
  typeof value === 'object' ? value : [value];

function meetsCondition(found: readonly (boolean | number | string)[], wanted: CatalogueFilter[string]): boolean {
  if (typeof wanted !== 'object' || Array.isArray(wanted)) return isAmong(found, wanted);
  if ('not' in wanted) return !isAmong(found, wanted.not);
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = wanted;
  return found.some((value) => typeof value === 'number' && value >= min && value <= max);
}

const isAmong = (found: readonly (boolean | number | string)[], wanted: z.infer<typeof oneOrMore>): boolean =>
  found.some((value) => (Array.isArray(wanted) ? wanted.includes(value) : wanted === value));
