/** The errors a user of the system can meet: one class, a closed set of codes, each with its class of fault. */

/**
 * What can go wrong, by code.
 *
 * - `data`: the record is at fault. Never thrown past the decoder: the record becomes a dead letter.
 * - `config`: the operator's settings, files or machine are at fault. The process exits with 2.
 * - `runtime`: the world is at fault (a worker died, a disk is full). `retriable` says whether trying again can help.
 */
export const ERROR_CODES = {
  RECORD_MALFORMED: { fault: 'data', retriable: false },
  FIELD_MISSING: { fault: 'data', retriable: false },
  FIELD_INVALID: { fault: 'data', retriable: false },
  TIME_INVALID: { fault: 'data', retriable: false },
  ACTION_UNKNOWN: { fault: 'data', retriable: false },
  ENTITY_UNKNOWN: { fault: 'data', retriable: false },
  RECORD_MISPLACED: { fault: 'data', retriable: false },
  RECORD_TOO_LARGE: { fault: 'data', retriable: false },
  SCHEMA_UNKNOWN: { fault: 'data', retriable: false },
  SCHEMA_INCOMPATIBLE: { fault: 'data', retriable: false },
  CONFIG_INVALID: { fault: 'config', retriable: false },
  BUNDLE_INVALID: { fault: 'config', retriable: false },
  SOURCE_UNREADABLE: { fault: 'config', retriable: false },
  STORE_UNAVAILABLE: { fault: 'config', retriable: false },
  KAFKA_AUTHENTICATION: { fault: 'config', retriable: false },
  KAFKA_AUTHORIZATION: { fault: 'config', retriable: false },
  KAFKA_REFUSED: { fault: 'config', retriable: false },
  TOPICS_INVALID: { fault: 'config', retriable: false },
  STATE_INCOMPATIBLE: { fault: 'config', retriable: false },
  STATE_LOST: { fault: 'config', retriable: false },
  CLOCK_OFF: { fault: 'config', retriable: false },
  KAFKA_UNAVAILABLE: { fault: 'runtime', retriable: true },
  KAFKA_FAILED: { fault: 'runtime', retriable: true },
  PRODUCER_FENCED: { fault: 'runtime', retriable: true },
  BATCH_UNREADABLE: { fault: 'runtime', retriable: true },
  STATE_CORRUPTED: { fault: 'runtime', retriable: true },
  STORE_FAILED: { fault: 'runtime', retriable: true },
  WORKER_CRASHED: { fault: 'runtime', retriable: true },
  ENCODER_FAILED: { fault: 'runtime', retriable: false },
  ENCODER_BUSY: { fault: 'runtime', retriable: true },
  DEADLINE_PASSED: { fault: 'runtime', retriable: false },
  ENCODER_CLOSED: { fault: 'runtime', retriable: false },
  SHADOW_MISMATCH: { fault: 'runtime', retriable: false },
} as const satisfies Record<string, { readonly fault: 'data' | 'config' | 'runtime'; readonly retriable: boolean }>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Every error this library throws on purpose. `message` says what was wrong, where, the value, and what is allowed. */
export class PipelineError extends Error {
  override readonly name = 'PipelineError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  get retriable(): boolean {
    return ERROR_CODES[this.code].retriable;
  }

  /** Exit code of a command that ends with this error: 2 for a fault of configuration, else 1. */
  get exitCode(): number {
    return ERROR_CODES[this.code].fault === 'config' ? 2 : 1;
  }
}

/** The message of anything thrown. */
export const messageOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown));
