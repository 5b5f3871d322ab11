/** The log: one JSON object a line on stderr for machines, one line of text for a person at a terminal; never a secret in either. */
import pino from 'pino';
import { lineMask, scrub } from './redact.ts';
import { RepeatGate } from './repeat-gate.ts';
import { toText } from './text-line.ts';

export type Logger = pino.Logger;

export interface LoggerOptions {
  readonly level: pino.LevelWithSilent;
  /** Which program or part speaks. */
  readonly name: string;
  /** Where lines go. @default stderr: text when it is a terminal, else JSON */
  readonly destination?: { write(line: string): unknown };
  /** Values that must not appear in any line, in whatever field: the passwords of the configuration. @default [] */
  readonly secrets?: readonly string[];
  /** A warning that repeats itself is written once, and then as a count this often, ms; 0 writes all. @default 10000 */
  readonly repeatEveryMs?: number;
}

const WARN = 40;

/**
 * Every line has `level` (as a word), `time` (ISO 8601), `name`, `pid` and `msg`; an error, given first or as `err`, is told
 * with its `type`, `code`, `stack` and the chain of its causes.
 */
export function createLogger(options: LoggerOptions): Logger {
  const { level, name, secrets, repeatEveryMs = 10_000 } = options;
  const mask = lineMask(secrets);
  const gate = new RepeatGate(repeatEveryMs);
  return pino(
    {
      level,
      base: { name, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      // Errors are told by `scrub`, wherever they are in the fields.
      serializers: { err: (value: unknown) => value },
      formatters: {
        level: (label) => ({ level: label }),
        log: (fields) => scrub(fields) as Record<string, unknown>,
      },
      hooks: {
        logMethod(args, method, lineLevel) {
          if (lineLevel !== WARN) return method.apply(this, args);
          gate.pass(keyOf(this, args), (repeated) => {
            if (repeated === 0) return method.apply(this, args);
            const [first, ...rest] = args as unknown as [unknown, ...unknown[]];
            const count = { repeated, repeatedInMs: repeatEveryMs };
            if (first instanceof Error) return method.apply(this, [{ ...count, err: first }, ...rest] as never);
            if (typeof first === 'object') return method.apply(this, [{ ...first, ...count }, ...rest] as never);
            return method.apply(this, [count, first, ...rest] as never);
          });
        },
        streamWrite: mask,
      },
    },
    options.destination ?? standardError(),
  );
}

/** Written at once: what a process says before it dies must not be lost in a buffer. */
function standardError(): { write(line: string): unknown } {
  if (process.stderr.isTTY) return { write: (line) => process.stderr.write(toText(line)) };
  const destination = pino.destination({ dest: 2, sync: true });
  // A log that cannot be written ends nothing.
  destination.on('error', () => undefined);
  return destination;
}

/** Warnings are the same when logger and text are: the numbers beside them may differ. */
function keyOf(logger: Logger, args: readonly unknown[]): string {
  const [first, second] = args;
  const text =
    typeof first === 'string' ? first : (second ?? (first instanceof Error ? first.message : JSON.stringify(scrub(first))));
  return `${JSON.stringify(logger.bindings())} ${String(text)}`;
}
