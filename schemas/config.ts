/** The configuration file: every setting with its unit, default and bounds, validated whole. */
import { z } from 'zod';
import { describeIssues, dotted } from './describe-issues.ts';
import { PipelineError } from './errors.ts';
import { saslSchema } from './kafka-sasl.ts';
import { mappingSchema } from './mapping-config.ts';
import { scoresSchema } from './scores-config.ts';
import { pathText, patternText, secretsIn, secretText } from './settings.ts';

const MIB = 1024 * 1024;
const positive = z.int().positive();
const isEncoding = (label: string): boolean => {
  try {
    return new TextDecoder(label).encoding !== '';
  } catch {
    return false;
  }
};
const path = pathText();
const secret = secretText();

const fileSourceSchema = z
  .strictObject({
    /** A file, or several by wildcards: `*`, `?`, `**`, `{a,b}`. Text may be packed with gzip or zstd. */
    path: patternText(),
    format: z.enum(['csv', 'jsonl', 'avro', 'parquet']),
    /** Of text: a label of the Encoding Standard, `windows-1252`. @default UTF-8; UTF-16 by its byte-order mark */
    encoding: z
      .string()
      .refine(isEncoding, { error: ({ input }) => `${JSON.stringify(input)} is no encoding: utf-8, utf-16le, windows-1252, …` })
      .optional(),
    /** Of `format: csv`: how it is written. */
    csv: z
      .strictObject({
        /** Between two fields: `;`, `"\t"`, `::`. */
        separator: z
          .string()
          .min(1)
          .max(8)
          .regex(/^[^"\r\n]+$/, 'neither quotes nor line breaks')
          .default(','),
        /** Names of the columns, of a file without a header row. */
        columns: z.array(z.string().min(1)).min(1).optional(),
        /** Lines before the header row, or before the first row. */
        skipLines: z.int().min(0).max(10_000).default(0),
        /** Lines that begin so are left out. */
        comment: z.string().min(1).max(8).optional(),
        /** Texts that mean no value, beside the empty one: `NA`, `NULL`, `\\N`. */
        nullTexts: z.array(z.string().max(64)).max(100).default([]),
      })
      .optional(),
    mapping: mappingSchema,
  })
  .refine(({ format, csv }) => csv === undefined || format === 'csv', { path: ['csv'], error: 'is for format: csv' })
  .refine(({ format, encoding }) => encoding === undefined || format === 'csv' || format === 'jsonl', {
    path: ['encoding'],
    error: 'is for format: csv or jsonl',
  });

const tableSourceSchema = z
  .strictObject({
    /** The topic of its rows' positions. */
    name: z.string().regex(/^[A-Za-z0-9._-]{1,100}$/, 'letters, digits, dots, underscores and dashes, at most 100'),
    /** All rows of it, ordered by all columns. */
    table: z
      .string()
      .regex(/^[A-Za-z_]\w*(\.[A-Za-z_]\w*)?$/, 'a name, or database.name')
      .optional(),
    /** One SELECT; its ORDER BY decides between rows of equal event time. */
    query: z.string().min(1).optional(),
    /** A server. @default as `clickhouse` */
    url: z.url().optional(),
    /** An embedded engine's folder. @default as `clickhouse` */
    path: path.optional(),
    database: z.string().min(1).optional(),
    username: z.string().optional(),
    password: secret.optional(),
    mapping: mappingSchema,
  })
  .refine(({ table, query }) => (table === undefined) !== (query === undefined), 'needs either table or query')
  .refine(({ url, path }) => url === undefined || path === undefined, 'url and path: one of them');

const topicName = z.string().regex(/^[A-Za-z0-9._-]{1,249}$/, 'letters, digits, dots, underscores and dashes, at most 249');

/** IPv6 in brackets: `[::1]:9092`. */
const broker = z
  .string()
  .regex(/^(\[[\da-fA-F:.%\w]+\]|[^\s:[\],]+):\d{1,5}$/, 'host:port, an IPv6 address in brackets')
  .refine((text) => {
    const port = Number(text.slice(text.lastIndexOf(':') + 1));
    return port >= 1 && port <= 65_535;
  }, 'port: 1 to 65535');

const kafkaSchema = z.strictObject({
  /** `host:port` of some brokers; the others are found through them. */
  brokers: z.array(broker).min(1),
  /** Consumer group, and prefix of the transactional ids and of the changelog topic: one name a deployment. */
  applicationId: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,100}$/)
    .default('hstu-streams'),
  clientId: z.string().min(1).default('hstu-streams'),
  /** `exactly-once`: outputs, state and offsets in one transaction. `at-least-once`: faster; outputs may repeat with the same version. */
  delivery: z.enum(['exactly-once', 'at-least-once']).default('exactly-once'),
  /** Where a partition without a committed position begins. */
  startFrom: z.enum(['earliest', 'latest']).default('earliest'),
  topics: z
    .strictObject({
      userActions: topicName.default('user-actions'),
      /** With `misplaced: repartition`, where actions come from. @default `userActions`, which is then `<applicationId>-repartition` */
      source: topicName.optional(),
      candidateRequests: topicName.default('candidate-requests'),
      erasures: topicName.default('erasures'),
      userEmbeddings: topicName.default('user-embeddings'),
      candidateScores: topicName.default('candidate-scores'),
      deadLetters: topicName.default('dead-letters'),
      /** What became of each action, and its prequential rank, for analytics. @default none is written */
      actionOutcomes: topicName.optional(),
      /** What comes, goes and becomes popular while `run` runs, compacted, by entity: over `catalogue.file`. @default none is read */
      entities: topicName.optional(),
      /** @default `<applicationId>-changelog` */
      changelog: topicName.optional(),
    })
    .prefault({}),
  /** Partitions that `topics create` gives every topic: they must be equal. @default as many as those that are there have, else 4 */
  partitions: positive.max(10_000).optional(),
  /** Replicas that `topics create` asks for; at most the brokers there are. */
  replicationFactor: positive.max(16).default(1),
  /**
   * What becomes of actions and requests that do not lie on their user's partition: that of the user's id by murmur2, as Java's clients and
   * kafkajs choose for a key. `warn`: they are processed where they lie, counted and told; a user that lies on several has a history on
   * each. `refuse`: they become dead letters. `repartition`: actions are keyed by anything or nothing; `run` writes them to a topic of
   * the deployment by user, exactly once, and processes that.
   */
  misplaced: z.enum(['warn', 'refuse', 'repartition']).default('warn'),
  /** How values of `userActions` are written: Avro in the Confluent wire format, or JSON. */
  valueFormat: z.enum(['avro', 'json']).default('avro'),
  /** How a record becomes an action. @default the fields of `UserAction` */
  mapping: mappingSchema.optional(),
  schemaRegistry: z.strictObject({ url: z.url(), username: z.string().optional(), password: secret.optional() }).optional(),
  /**
   * Of what is produced. `none` and `gzip` are what every client reads; others need a codec that some do not bring (kafkajs: lz4, snappy,
   * zstd). Embeddings hardly pack.
   */
  compression: z.enum(['none', 'gzip', 'snappy', 'lz4', 'zstd']).default('none'),
  /** Records of one partition that are decoded, encoded and committed as one, at most. */
  batchEvents: positive.max(100_000).default(512),
  /** Batches of one partition between being read and being committed. */
  maxInFlightBatches: positive.max(64).default(2),
  /** Fetched and not yet processed, a partition, bytes: fetching pauses above it. */
  maxBufferedBytes: positive.default(4 * MIB),
  /** Largest record, bytes; a larger one becomes a dead letter. */
  maxRecordBytes: positive.default(MIB),
  /**
   * Largest batch of a producer, unpacked, bytes; a larger one becomes one dead letter that names it (offsets, bytes, digest). A batch of
   * 1 MiB as brokers take it is some 20 MiB of JSON; 60 of them at once would be hostile. Each partition that is fetched may hold one.
   */
  maxBatchBytes: positive.default(64 * MIB),
  sessionTimeoutMs: positive.default(30_000),
  heartbeatIntervalMs: positive.default(3_000),
  rebalanceTimeoutMs: positive.default(60_000),
  /** How long the broker keeps an unfinished transaction open, ms. */
  transactionTimeoutMs: positive.default(60_000),
  requestTimeoutMs: positive.default(30_000),
  /** How long a shutdown or a hand-over waits for what is in flight, ms. */
  drainTimeoutMs: positive.default(20_000),
  ssl: z
    .union([
      z.boolean(),
      z.strictObject({
        /** PEM files. */
        caFile: path.optional(),
        certFile: path.optional(),
        keyFile: path.optional(),
        keyPassphrase: secret.optional(),
        serverName: z.string().optional(),
        rejectUnauthorized: z.boolean().default(true),
      }),
    ])
    .default(false),
  sasl: saslSchema.optional(),
});

export const configSchema = z
  .strictObject({
    /** Folder of the model bundle; relative paths count from the configuration file. */
    bundle: path,
    /** What came, went and became popular since the model was trained. @default as the bundle has it */
    catalogue: z
      .strictObject({
        /**
         * JSON lines `{"entity", "content"?, "popularity"?, "fields"?, "retired"?, "removed"?}`; or, by a name that ends in `.csv`, CSV of such
         * columns, the content as `content.0`, `content.1`, … The last of an entity counts.
         */
        file: path,
      })
      .optional(),
    source: z
      .strictObject({
        /** Merged in event-time order, with `clickhouse`. */
        files: z.array(fileSourceSchema).default([]),
        /** Tables and queries of ClickHouse. */
        clickhouse: z.array(tableSourceSchema).default([]),
        /** Events per batch: what is decoded, encoded and committed as one. */
        batchEvents: positive.max(100_000).default(64),
        /** Batches between being read and being committed. */
        maxInFlightBatches: positive.max(1_000).default(8),
        /** Records of all files together that may be held and sorted by event time. */
        maxSortRecords: positive.default(5_000_000),
        /** Largest record, bytes; a larger one becomes a dead letter. */
        maxRecordBytes: positive.default(MIB),
      })
      .refine(({ files, clickhouse }) => files.length + clickhouse.length > 0, 'needs files or clickhouse')
      .optional(),
    kafka: kafkaSchema
      .refine(({ misplaced, topics }) => topics.source === undefined || misplaced === 'repartition', {
        path: ['topics', 'source'],
        error: 'is for kafka.misplaced: repartition; without that, name the topic as kafka.topics.userActions',
      })
      .refine(({ topics }) => topics.source !== topics.userActions, {
        path: ['topics', 'userActions'],
        error: 'is that of kafka.topics.source: what is repartitioned needs another',
      })
      .refine(({ sasl, ssl }) => sasl?.mechanism !== 'aws-msk-iam' || ssl !== false, {
        path: ['ssl'],
        error: 'aws-msk-iam needs TLS: kafka.ssl: true',
      })
      .optional(),
    state: z
      .strictObject({
        /** Folder of the local store, one sub-folder a partition; lost, it is restored from the changelog. */
        path: path.default('.hstu/state'),
        /** Users whose sequences are held in memory, all partitions together; the others are read from the store. */
        hotUsers: positive.default(50_000),
        /** Follow the changelog of partitions that others own, so that taking one over is quick. */
        standby: z.boolean().default(false),
      })
      .prefault({}),
    telemetry: z
      .strictObject({
        /** Serves /healthz, /readyz and /metrics; 0 takes any free port. */
        port: z.int().min(0).max(65_535).default(9_464),
        host: z.string().min(1).default('127.0.0.1'),
        /** Connections at once to that port, at most; what waits longest without a request gives way. */
        maxConnections: positive.min(4).max(10_000).default(64),
        logLevel: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
        /** Share of published embeddings that are encoded anew in full and compared. */
        shadowSampleRate: z.number().min(0).max(1).default(0.001),
      })
      .prefault({}),
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
        /** Slow-changing facts of users, as tokens: of each run of equal values only the earliest. @default none */
        sideFeatures: z
          .strictObject({
            /** Namespaces of their entities: `language`, of `language:en`. */
            namespaces: z.array(z.string().min(1)).min(1),
            /** Kind of action that an entry of an action's context of such a name becomes. @default contexts are not looked at */
            contextAction: z.string().min(1).optional(),
          })
          .optional(),
      })
      .prefault({}),
    publish: z.enum(['every-batch', 'every-event']).default('every-batch'),
    scores: scoresSchema.prefault({}),
    encoder: z
      .strictObject({
        /**
         * What the encoder runs on. `auto`: a GPU that works and is faster than the CPU, else the CPU. `webgpu`: the KV cache lies on the
         * GPU. `cuda`: the runtime keeps nothing on the device, so that a step copies K and V of its users there; for trials. A GPU that
         * fails is left for the CPU, with the same answers.
         */
        provider: z.enum(['auto', 'webgpu', 'cuda', 'cpu']).default('auto'),
        /** Encoder threads; users are sharded over them. One alone owns a GPU. */
        workers: positive.max(256).default(1),
        /** KV cache of all workers together, bytes; on a GPU, of its memory. */
        kvBudgetBytes: positive.min(MIB).default(256 * MIB),
        /** Host memory for cached rows that a GPU has no room for, bytes. @default as kvBudgetBytes */
        hostBudgetBytes: z.int().nonnegative().optional(),
        /** Cached rows of users that memory has no room for: read back instead of encoded anew. */
        disk: z
          .strictObject({
            /**
             * All workers together, bytes; 0: nothing is kept on disk. While a model is changed, each of the two has as much. What waits for
             * the disk takes up to 64 MiB of memory a worker.
             */
            budgetBytes: z.int().nonnegative().default(0),
            /** Folder for it, on a local SSD. The files have no name there, and are gone with the process. */
            path: path.default('.hstu/kv'),
          })
          .prefault({}),
        /**
         * Who leaves the KV cache when room is wanted. `lru`: the least recently used. `cost-aware`: who saves least a byte (how often asked
         * for of late × cost of encoding anew); a newcomer that saves less is not let in. Answers are the same.
         */
        cachePolicy: z.enum(['lru', 'cost-aware']).default('lru'),
        /**
         * What cached K and V are held in. `float32`: as computed, answers are exact. `bfloat16`: half the bytes a user, and answers are
         * off by rounding; only with provider `cpu`, and a model whose heads are multiples of 8 wide.
         */
        kvPrecision: z.enum(['float32', 'bfloat16']).default('float32'),
        /** Tokens a KV page holds. @default chosen by the model's shape */
        pageLength: positive.max(1_024).optional(),
        /** Users per micro-batch, and of those that wait for a thread together. */
        maxBatchUsers: positive.max(4_096).default(64),
        /** How long a micro-batch waits for more users, ms; 0: it goes at once, and grows with others while the encoder is busy. */
        maxDelayMs: z.number().nonnegative().default(0),
        /** Micro-batches in the encoder at once. */
        maxInFlight: positive.max(64).default(16),
        /** Who is next where more waits for an encoder thread than it can do. */
        schedule: z
          .strictObject({
            /** Requests for candidates that wait for one thread, at most; more are refused, retriably. Updates wait for their source. */
            maxWaiting: positive.max(1_000_000).default(4_096),
            /** Shares of a thread's time while requests for candidates, updates and backfills all have work. */
            weights: z
              .strictObject({
                request: z.number().min(0.01).max(1_000).default(16),
                update: z.number().min(0.01).max(1_000).default(4),
                backfill: z.number().min(0.01).max(1_000).default(1),
              })
              .prefault({}),
          })
          .prefault({}),
      })
      .refine(({ kvPrecision, provider }) => kvPrecision === 'float32' || provider === 'cpu', {
        path: ['kvPrecision'],
        error: "'bfloat16' is for provider: cpu; a GPU keeps K and V as float32",
      })
      .prefault({}),
    model: z
      .strictObject({
        /**
         * Holds what a change of the model over HTTP is authorized by; made where there is none, for its user alone. Where telemetry.host is
         * no loopback address, a change is taken only if this is set. @default `model.token` in state.path
         */
        tokenFile: path.optional(),
        /** Bundles that a running deployment is changed to lie in here. @default the folder that holds `bundle`; `bundle` itself at the root */
        allowedFolder: path.optional(),
        /** Changing the model of a running deployment. */
        change: z
          .strictObject({
            /** KV cache that the new model may fill before it serves, beside the old one's, bytes. @default as encoder.kvBudgetBytes */
            kvCacheBytes: z.int().nonnegative().optional(),
            /** Users of the old cache that the new model encodes in the background, a second, at most. */
            usersPerSecond: positive.max(100_000).default(50),
          })
          .prefault({}),
      })
      .prefault({}),
    /** What this process may hold in memory in all, bytes; reported against, and warned about. */
    memoryBudgetBytes: positive.min(64 * MIB).default(1_024 * MIB),
    clickhouse: z
      .strictObject({
        /** A server; without it the embedded engine on `path`. */
        url: z.url().optional(),
        path: path.default('.hstu/clickhouse'),
        database: z
          .string()
          .regex(/^[A-Za-z_][A-Za-z0-9_]*$/)
          .default('hstu'),
        username: z.string().optional(),
        password: secret.optional(),
      })
      .prefault({}),
    /** Of `replay --mode`. */
    backfill: z
      .strictObject({
        /** Where outputs go. @default 'clickhouse' */
        to: z.enum(['clickhouse', 'kafka', 'parquet', 'jsonl']).default('clickhouse'),
        /** Folder of runs in files, a sub-folder each. */
        path: path.default('.hstu/runs'),
        /** Lines of a file's part, bytes: what is held of a run before it is stored. */
        partBytes: positive.default(16 * MIB),
      })
      .prefault({}),
    /** From the committed topics into ClickHouse. */
    sink: z
      .strictObject({
        /** Within every instance of `run`, rather than as `hstu-streams sink` in processes of its own. */
        inside: z.boolean().default(false),
        /** Where `hstu-streams sink` serves /healthz, /readyz and /metrics, on telemetry.host; 0 takes any free port. */
        port: z.int().min(0).max(65_535).default(9_465),
        /** Records of one commit, at most: ClickHouse takes few inserts a second, but large ones. */
        maxRecords: positive.max(1_000_000).default(20_000),
        /** How long a commit waits for more records, ms. */
        maxDelayMs: z.int().nonnegative().default(500),
        /** Fetched and not yet stored, all partitions together, bytes: fetching pauses above it. */
        maxBufferedBytes: positive.min(MIB).default(64 * MIB),
        /** Embeddings that are not a user's newest are kept this long after they were published. */
        embeddingHistoryDays: positive.max(36_500).default(30),
      })
      .prefault({}),
  })
  .superRefine(({ scores, catalogue, kafka }, context) => {
    if (catalogue !== undefined || kafka?.topics.entities !== undefined) return;
    const error = 'goes by the fields of a catalogue: needs catalogue.file or kafka.topics.entities';
    for (const key of ['filter', 'caps'] as const)
      if (scores[key] !== undefined)
        context.addIssue({ code: 'custom', path: ['scores', key], message: error, input: scores[key] });
  });

/** As written by the user. */
export type ConfigInput = z.input<typeof configSchema>;
/** With every default filled in. */
export type Config = z.infer<typeof configSchema>;
export type FileSource = z.infer<typeof fileSourceSchema>;
export type TableSource = z.infer<typeof tableSourceSchema>;
export type KafkaConfig = z.infer<typeof kafkaSchema>;

/**
 * Checks a whole configuration and fills in the defaults.
 *
 * @param origin where it came from, for the message
 * @param nameOf how the path of a setting is told. @default its keys, with dots between
 * @throws PipelineError `CONFIG_INVALID` that lists every problem: the key, the value, what is allowed
 */
export function parseConfig(input: unknown, origin: string, nameOf = dotted): Config {
  const parsed = configSchema.safeParse(input);
  if (parsed.success) return withSource(parsed.data);
  const problems = describeIssues(parsed.error, input, configSchema, nameOf);
  throw new PipelineError('CONFIG_INVALID', [`${origin} has ${problems.length} problem(s):`, ...problems].join('\n'));
}

/** What is repartitioned has two topics: the one that is named holds what comes. */
function withSource(config: Config): Config {
  const { kafka } = config;
  if (kafka?.misplaced !== 'repartition' || kafka.topics.source !== undefined) return config;
  const topics = { ...kafka.topics, source: kafka.topics.userActions, userActions: repartitionGroup(kafka.applicationId) };
  return { ...config, kafka: { ...kafka, topics } };
}

/** Consumer group of the repartitioning, and name of its topic unless that is configured. */
export const repartitionGroup = (applicationId: string): string => `${applicationId}-repartition`;

/** What may stand in no log and no message: passwords, passphrases, credentials in URLs. */
export const secretsOf = (config: Config): string[] => secretsIn(configSchema, config);
