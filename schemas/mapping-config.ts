/** How records become actions, as it is written: one mapping for all, or one for each kind of record. */
import { z } from 'zod';

const path = z.string().min(1);

/** `movie:{movieId}`: text with `{path.to.field}` parts; without braces a constant. */
const template = z.string().min(1).describe('text with {path.to.field} parts; without braces a constant');

/** Whose text must come from the record: of a constant, all records would have one. */
const variable = template.refine((text) => /\{[^{}]*\}/.test(text), {
  error: ({ input }) =>
    `has no part in braces, so that all records would have the same; if it is a field, write {${String(input)}}`,
});

const valueField = z.union([
  path,
  z.strictObject({
    field: path,
    /** Where a record has none. */
    default: z.number().optional(),
    /** What stands before the fraction of a number that is given as text. */
    decimal: z.enum(['.', ',']).default('.'),
  }),
]);

const contextField = z.union([
  path,
  z.strictObject({
    field: path,
    /** Where a record has none. */
    default: z.string().optional(),
    /** Without the white space around it. */
    trim: z.boolean().default(false),
    lower: z.boolean().default(false),
    /** A number, as its shortest text: `7.50` and `7.5` are one. */
    number: z.boolean().default(false),
  }),
]);

const keys = {
  /** @default the record's own position, `topic/partition/offset` */
  eventId: variable.optional(),
  userId: variable,
  action: template,
  entity: variable,
  /** Path of a numeric field; a record without it has no value, and one that has something else there neither. */
  value: valueField.optional(),
  eventTime: z.strictObject({ field: path, unit: z.enum(['s', 'ms', 'us', 'ns', 'iso']) }),
  /** Context entries: name → path. */
  context: z.record(z.string(), contextField).optional(),
  /**
   * Path of a list: each of its elements is an action. Paths that begin with it are the element's: of `each: order.lines`,
   * `{order.lines.sku}` is one line's. @default the record is one action
   */
  each: path.optional(),
} as const;

/** A record has one user: its partition, its state and its dead letter are that user's. */
const ONE_USER = 'is one for all elements of `each`: a record is one user’s';
const namesElement = ({
  userId = '',
  each,
}: {
  readonly userId?: string | undefined;
  readonly each?: string | undefined;
}): boolean => each !== undefined && (userId.includes(`{${each}}`) || userId.includes(`{${each}.`));

const one = z.strictObject(keys).refine((mapping) => !namesElement(mapping), { path: ['userId'], error: ONE_USER });

const scalar = z.union([z.string(), z.number(), z.boolean()]);
/** Path → what it must be, or one of several; all of them. Compared as text. */
const condition = z
  .record(path, z.union([scalar, z.array(scalar).min(1)]))
  .refine((fields) => Object.keys(fields).length > 0, 'names no field');

const entry = z.strictObject({
  /** Records that it is for. @default all that no entry before it takes: only the last may be without */
  when: condition.optional(),
  /** Records that are no actions: counted, and nothing else. `rest`: all that no entry before it takes. */
  ignore: z.union([condition, z.literal('rest')]).optional(),
  eventId: keys.eventId,
  userId: variable.optional(),
  action: template.optional(),
  entity: variable.optional(),
  value: keys.value,
  eventTime: keys.eventTime.optional(),
  context: keys.context,
  each: keys.each,
});

const REQUIRED = ['userId', 'action', 'entity', 'eventTime'] as const;
/** What an entry does not take from the first. */
const OWN = new Set(['when', 'ignore', 'each']);

const byKind = z
  .array(entry)
  .min(1)
  .superRefine((entries, context) => {
    const problem = (at: number, message: string, key?: string) =>
      context.addIssue({ code: 'custom', path: [at, ...(key === undefined ? [] : [key])], message });
    const first = entries.find(({ ignore }) => ignore === undefined);
    if (first === undefined) problem(0, 'all entries ignore: one must say what an action is');
    for (const [at, given] of entries.entries()) {
      const isLast = at === entries.length - 1;
      if (given.ignore !== undefined) {
        const others = Object.keys(given).filter((key) => key !== 'ignore' && given[key as keyof typeof given] !== undefined);
        if (others.length > 0) problem(at, `an entry that ignores has nothing else, found ${others.join(', ')}`);
        if (given.ignore === 'rest' && !isLast) problem(at, 'rest: only the last entry can take it', 'ignore');
        continue;
      }
      if (given.when === undefined && !isLast)
        problem(at, 'missing: without it the entries behind this one are never reached', 'when');
      const lacking = REQUIRED.filter((key) => (given[key] ?? first?.[key]) === undefined);
      if (namesElement({ userId: given.userId ?? first?.userId, each: given.each })) problem(at, ONE_USER, 'userId');
      if (lacking.length > 0)
        problem(at, `${lacking.join(', ')}: missing here and in the first entry, which later ones take them from`);
    }
  });

/**
 * One mapping, or a list by kind: the first entry that takes a record maps it. Entries after the first take from it what they do not say
 * themselves, but `each`. A record that no entry takes is a dead letter (`ACTION_UNKNOWN`).
 */
export const mappingSchema = z.union([one, byKind]);

/** Of one kind, complete. */
export type KindMapping = z.infer<typeof one>;
export type Condition = z.infer<typeof condition>;
/** As the configuration has it. */
export type RecordMapping = z.infer<typeof mappingSchema>;

/** An entry with what it takes from the first. */
export interface MappingEntry {
  /** Undefined: all that comes to it. */
  readonly when: Condition | undefined;
  /** Undefined: what it takes is ignored. */
  readonly mapping: KindMapping | undefined;
  /** Where it stands in the configuration: empty for a mapping of one kind, else `.2`. */
  readonly at: string;
}

/** The entries of a mapping, each whole. */
export function entriesOf(mapping: RecordMapping): readonly MappingEntry[] {
  if (!Array.isArray(mapping)) return [{ when: undefined, mapping, at: '' }];
  const first = mapping.find(({ ignore }) => ignore === undefined)!;
  const inherited = Object.fromEntries(Object.entries(first).filter(([key]) => !OWN.has(key)));
  return mapping.map(({ when, ignore, ...own }, i) => {
    const at = `.${i}`;
    if (ignore !== undefined) return { when: ignore === 'rest' ? undefined : ignore, mapping: undefined, at };
    const said = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined));
    return { when, mapping: { ...inherited, ...said } as KindMapping, at };
  });
}
