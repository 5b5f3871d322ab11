/** The configuration file: every setting with its unit, default and bounds, validated whole. */
import { z } from 'zod';
import { PipelineError } from './errors.ts';

const MIB = 1024 * 1024;
const positive = z.int().positive();

/** `movie:{movieId}`: text with `{path.to.field}` parts; without braces a constant. */
const template = z.string().min(1).describe('text with {path.to.field} parts; without braces a constant');

export const recordMappingSchema = z.strictObject({
  /** @default the record's own position, `topic/partition/offset` */
  eventId: template.optional(),
  userId: template,
  action: template,
  entity: template,
  /** Path of a numeric field; a record without it has no value. */
  value: z.string().min(1).optional(),
  eventTime: z.strictObject({ field: z.string().min(1), unit: z.enum(['s', 'ms', 'us', 'iso']) }),
  /** Context entries: name → path. */
  context: z.record(z.string(), z.string().min(1)).optional(),
});

const fileSourceSchema = z.strictObject({
  path: z.string().min(1),
  format: z.enum(['csv', 'jsonl']),
  mapping: recordMappingSchema,
});

export const configSchema = z.strictObject({
  /** Folder of the model bundle; relative paths count from the configuration file. */
  bundle: z.string().min(1),
  source: z
    .strictObject({
      /** Merged in event-time order. */
      files: z.array(fileSourceSchema).min(1),
      /** Events per batch: what is decoded, encoded and committed as one. */
      batchEvents: positive.max(100_000).default(64),
      /** Batches between being read and being committed. */
      maxInFlightBatches: positive.max(1_000).default(8),
      /** Records of all files together that may be held and sorted by event time. */
      maxSortRecords: positive.default(5_000_000),
      /** Largest record, bytes; a larger one becomes a dead letter. */
      maxRecordBytes: positive.default(MIB),
    })
    .optional(),
  time: z
    .strictObject({
      /** Earliest credible event time, ms since the epoch. */
      minMs: z.int().nonnegative().default(0),
      /** How far ahead of this machine's clock an event may lie, ms. */
      maxFutureMs: z.int().nonnegative().default(86_400_000),
    })
    .prefault({}),
  sequence: z
    .strictObject({
      /** Distinct entities remembered per user for the seen filter. */
      seenLimit: positive.default(4_096),
      /** An action of this kind erases its user: sequence, cache, and all that the run has stored. */
      erasureAction: z.string().min(1).default('erase'),
    })
    .prefault({}),
  publish: z.enum(['every-batch', 'every-event']).default('every-batch'),
  scores: z
    .strictObject({
      /** Entities published with every embedding; 0 for none. */
      topK: z.int().nonnegative().max(1_000).default(10),
      /** Leave out what the user has already seen. */
      seenFilter: z.boolean().default(true),
    })
    .prefault({}),
  encoder: z
    .strictObject({
      /** Encoder threads; users are sharded over them. */
      workers: positive.max(256).default(1),
      /** KV cache of all workers together, bytes. */
      kvBudgetBytes: positive.min(MIB).default(256 * MIB),
      /** Tokens a KV page holds. @default chosen by the model's shape */
      pageLength: positive.max(1_024).optional(),
      /** Users per micro-batch. */
      maxBatchUsers: positive.max(4_096).default(64),
      /** How long a micro-batch waits for more users, ms. */
      maxDelayMs: z.number().nonnegative().default(2),
      /** Micro-batches in the encoder at once. */
      maxInFlight: positive.max(64).default(4),
    })
    .prefault({}),
  /** What this process may hold in memory in all, bytes; reported against, and warned about. */
  memoryBudgetBytes: positive.min(64 * MIB).default(1_024 * MIB),
  clickhouse: z
    .strictObject({
      /** A server; without it the embedded engine on `path`. */
      url: z.url().optional(),
      path: z.string().min(1).default('.hstu/clickhouse'),
      database: z
        .string()
        .regex(/^[A-Za-z_][A-Za-z0-9_]*$/)
        .default('hstu'),
      username: z.string().optional(),
      password: z.string().optional(),
    })
    .prefault({}),
});

/** As written by the user. */
export type ConfigInput = z.input<typeof configSchema>;
/** With every default filled in. */
export type Config = z.infer<typeof configSchema>;
export type RecordMapping = z.infer<typeof recordMappingSchema>;
export type FileSource = z.infer<typeof fileSourceSchema>;

/**
 * Checks a whole configuration and fills in the defaults.
 *
 * @param origin where it came from, for the message
 * @throws PipelineError `CONFIG_INVALID` that lists every problem: the key, the value, what is allowed
 */
export function parseConfig(input: unknown, origin: string): Config {
  const parsed = configSchema.safeParse(input);
  if (parsed.success) return parsed.data;
  throw new PipelineError(
    'CONFIG_INVALID',
    [`${origin} has ${parsed.error.issues.length} problem(s):`, ...describeIssues(parsed.error, input)].join('\n'),
  );
}

/** One line an issue: key, value found, what is allowed. */
export function describeIssues(error: z.ZodError, input: unknown): string[] {
  return error.issues.map((issue) => {
    const found = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], input);
    const shown = found === undefined ? 'missing' : JSON.stringify(found)?.slice(0, 80);
    return `  ${issue.path.join('.') || '(root)'}: ${issue.message} (found: ${shown})`;
  });
}
