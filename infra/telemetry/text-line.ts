/** A JSON log line as a person reads it: time, level, who, what, the rest as `key=value`, an error's stack and causes below. */
import colors from 'picocolors';
import { printable, printableLines } from '../console/printable.ts';

const PAINT: Readonly<Record<string, (text: string) => string>> = {
  fatal: colors.inverse,
  error: colors.red,
  warn: colors.yellow,
  info: colors.green,
};

interface LoggedError {
  readonly code?: unknown;
  readonly message?: unknown;
  readonly stack?: unknown;
  readonly cause?: LoggedError;
}

/** The line itself if it is not JSON; what others wrote is without control characters. */
export function toText(line: string): string {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return printable(line.trimEnd()).concat('\n');
  }
  const { level, time, name, pid: _pid, msg, err, ...rest } = fields;
  const clock = String(time).slice(11, 23);
  const label = (PAINT[String(level)] ?? colors.dim)(String(level).toUpperCase().padEnd(5));
  const facts = Object.entries(rest).map(
    ([key, value]) =>
      ` ${colors.dim(`${printable(key)}=`)}${printable(typeof value === 'string' ? value : JSON.stringify(value))}`,
  );
  const causes = err === undefined ? '' : describe(err as LoggedError, '');
  return `${colors.dim(clock)} ${label} ${colors.cyan(printable(String(name)))} ${msg === undefined ? '' : printable(String(msg))}${facts.join('')}\n${causes}`;
}

function describe(error: LoggedError, prefix: string): string {
  const code = error.code === undefined ? '' : `${printable(String(error.code))} `;
  const text = printableLines(String(error.stack ?? error.message ?? JSON.stringify(error)));
  const cause = error.cause === undefined ? '' : describe(error.cause, 'caused by ');
  return `    ${colors.red(prefix + code)}${colors.dim(text)}\n${cause}`;
}
