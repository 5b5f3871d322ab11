/**
 * What may not stand in a log, however it got there: by the name of its key at any depth, by what it looks like (credentials
 * in a URL, a private key), and by being one of the configuration's own secrets.
 */

export const REDACTED = '[redacted]';

const SECRET_KEY = /^(password|passwd|sasl|(key)?passphrase|authorization|proxy-authorization|secret|api-?key|authbytes)$/i;
const SECRET_WORDS = 'password|passwd|(?:key)?passphrase|authorization|secret|api-?key';
/** Deeper than this a value is not looked into, and not written. */
const MAX_DEPTH = 8;
const MAX_ITEMS = 32;

const PATTERNS: readonly (readonly [RegExp, string])[] = [
  // A key and its string in JSON, and in JSON that is itself the text of a string.
  [new RegExp(`("(?:${SECRET_WORDS})"\\s*:\\s*)"(?:[^"\\\\]|\\\\.)*"`, 'gi'), `$1"${REDACTED}"`],
  [new RegExp(`(\\\\"(?:${SECRET_WORDS})\\\\"\\s*:\\s*\\\\")[^"\\\\]*`, 'gi'), `$1${REDACTED}`],
  [new RegExp(`((?:${SECRET_WORDS})\\s*=\\s*)[^\\s"',;&\\\\]+`, 'gi'), `$1${REDACTED}`],
  [/(authorization\s*:\s*(?:basic|bearer)\s+)[^\s"\\]+/gi, `$1${REDACTED}`],
  [/(:\/\/[^\s/:@"]*:)[^\s/@"]+@/g, `$1${REDACTED}@`],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*/g, REDACTED],
];

/**
 * A copy that may be logged: secrets by key are gone, errors are told with their code and causes, bytes by their length,
 * long lists by their first 32 entries.
 */
export function scrub(value: unknown, depth = 0): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Date) return value.toISOString();
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (depth >= MAX_DEPTH) return '[deeper]';
  if (value instanceof Error) return describeError(value, depth);
  if (value instanceof Map) return scrub(Object.fromEntries(value), depth);
  if (value instanceof Set) return scrub([...value], depth);
  if (Array.isArray(value)) {
    const items = value.slice(0, MAX_ITEMS).map((item) => scrub(item, depth + 1));
    return value.length > MAX_ITEMS ? [...items, `… ${value.length - MAX_ITEMS} more`] : items;
  }
  return scrubFields(value, depth);
}

function scrubFields(value: object, depth: number): Record<string, unknown> {
  const entries = Object.entries(value).map(([key, item]) => [
    key,
    SECRET_KEY.test(key) && item !== null && item !== undefined && typeof item !== 'boolean' ? REDACTED : scrub(item, depth + 1),
  ]);
  return Object.fromEntries(entries);
}

/** `type`, `message`, `stack`, a PipelineError's `code`, what else the error carries, and the same of its `cause`. */
function describeError(error: Error, depth: number): Record<string, unknown> {
  const { name, message, stack, cause, ...rest } = error as Error & Record<string, unknown>;
  return {
    type: name,
    message,
    ...scrubFields(rest, depth),
    stack,
    ...(cause !== undefined && { cause: scrub(cause, depth + 1) }),
  };
}

/**
 * Masks what looks like a secret in a finished line, and every one of `secrets`, as written and as JSON writes it.
 *
 * @param secrets values known to be secret; shorter than four characters they are left: they would mask ordinary words
 */
export function lineMask(secrets: readonly string[] = []): (line: string) => string {
  const known = secrets.filter((secret) => secret.length >= 4).flatMap((secret) => [secret, JSON.stringify(secret).slice(1, -1)]);
  return (line) => {
    let masked = line;
    for (const secret of known) masked = masked.replaceAll(secret, REDACTED);
    for (const [pattern, replacement] of PATTERNS) masked = masked.replace(pattern, replacement);
    return masked;
  };
}
