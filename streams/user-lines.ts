/** Users as JSON lines give them: each line read, checked, and its events made tokens. */
import { z } from 'zod';
import type { Tokenizer } from '../operators/index.ts';
import { describeIssues } from '../schemas/describe-issues.ts';
import { type ErrorCode, messageOf } from '../schemas/errors.ts';

/** Why a line, or one of its events, was not used. */
export interface LineFault {
  readonly code: ErrorCode;
  readonly step: 'decode' | 'sequence' | 'encode';
  readonly message: string;
  /** Index in `events`; absent when the whole line is at fault. */
  readonly event?: number;
}

/** Longest line of a user, characters: some 40,000 events. */
export const MAX_LINE = 4 * 2 ** 20;
/** Stands in the place of a longer one, of which nothing is held. */
export const TOO_LONG = '\0a line that is too long';

/** What every line says of its user. */
export const userLine = z.object({
  userId: z.string().min(1),
  events: z.array(
    z.object({
      entity: z.string().min(1),
      eventTimeMs: z.number().int().nonnegative(),
      action: z.string().min(1).optional(),
      value: z.number().optional(),
    }),
  ),
  queryTimeMs: z.number().int().nonnegative().optional(),
});

/** An event's token, or its two. */
export interface LineToken {
  readonly entity: number;
  readonly second?: number;
  readonly timeMs: number;
}

/** A line of this shape, or why it is none. */
export function readLine<T>(
  schema: z.ZodType<T>,
  line: string,
): { readonly value: T } | { readonly fault: readonly LineFault[] } {
  if (line === TOO_LONG)
    return { fault: [{ code: 'RECORD_TOO_LARGE', step: 'decode', message: `the line is longer than ${MAX_LINE} characters` }] };
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    return { fault: [{ code: 'RECORD_MALFORMED', step: 'decode', message: `not JSON: ${messageOf(cause)}` }] };
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return { value: parsed.data };
  const message = describeIssues(parsed.error, json).map((issue) => issue.trim());
  return { fault: [{ code: 'FIELD_INVALID', step: 'decode', message: message.join('; ') }] };
}

/** Tokens of a line's events, by time, ties in the order of the line; and what the tokenizer refused. */
export function lineTokens(events: z.infer<typeof userLine>['events'], tokenizer: Tokenizer, defaultAction: string) {
  const faults: LineFault[] = [];
  const tokens: LineToken[] = [];
  for (const [event, { entity, eventTimeMs, action = defaultAction, value }] of events.entries()) {
    const position = { topic: 'line', partition: 0, offset: event };
    const read = { eventId: `${event}`, userId: '', action, entity, eventTimeMs, position };
    const token = tokenizer.token(value === undefined ? read : { ...read, value });
    if (token.kind === 'refuse') faults.push({ code: token.code, step: 'sequence', message: token.message, event });
    if (token.kind !== 'token') continue;
    tokens.push({ entity: token.entity, ...('tokens' in token && { second: token.tokens[1] }), timeMs: eventTimeMs });
  }
  tokens.sort((a, b) => a.timeMs - b.timeMs);
  return { tokens, faults };
}
