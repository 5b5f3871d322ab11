/**
 * Seeded events as a service would see them: users of one event to a hundred thousand, several kinds of action on several kinds of
 * entity, some late, some sent twice, some users erased. A generator: two million events take no more memory than two thousand.
 */

export interface SyntheticOptions {
  readonly events: number;
  /** @default 1 */
  readonly seed?: number;
  /** Median events a user, of a log-normal distribution. @default 40 */
  readonly medianEvents?: number;
  /** Its spread: the standard deviation of the logarithm. @default 1.3 */
  readonly spread?: number;
  /** Events of the longest histories, of which there is one in 20,000 users; at most a tenth of all. @default 100,000 */
  readonly maxEvents?: number;
  /** Share of events that arrive behind later ones of their user. @default 0.01 */
  readonly late?: number;
  /** Share of events that arrive twice. @default 0.005 */
  readonly duplicates?: number;
  /** Share of users that are erased somewhere in their history. @default 0.002 */
  readonly erasures?: number;
  /** Items, by popularity; authors are a tenth of them. @default 5,000 */
  readonly items?: number;
  /** Users active at the same time. @default 2,000 */
  readonly active?: number;
}

export interface SyntheticEvent {
  readonly eventId: string;
  readonly userId: string;
  readonly action: string;
  readonly entity: string;
  readonly value?: number;
  readonly eventTimeMs: number;
}

/** Kinds of action with their shares; `rate` and `buy` have a value, `follow` is of authors, `search` is of queries. */
const KINDS = [
  { action: 'view', share: 0.62 },
  { action: 'like', share: 0.14 },
  { action: 'rate', share: 0.08 },
  { action: 'follow', share: 0.06 },
  { action: 'search', share: 0.06 },
  { action: 'buy', share: 0.04 },
] as const;

/** Histories longer than this are the rare ones. */
const LONG = 5_000;
const START_MS = 1_700_000_000_000;

interface ActiveUser {
  readonly userId: string;
  left: number;
  sent: number;
  timeMs: number;
  readonly eraseAt: number;
  /** The event sent before, to be sent again. */
  last: SyntheticEvent | undefined;
}

/** Events in order of arrival: the same options give the same events. */
export function* synthetic(options: SyntheticOptions): Generator<SyntheticEvent> {
  const { events, seed = 1, late = 0.01, duplicates = 0.005, items = 5_000, active = 2_000 } = options;
  const random = mulberry(seed);
  const users: ActiveUser[] = [];
  const long: ActiveUser[] = [];
  let number = 0;
  for (let sent = 0; sent < events; sent++) {
    const nowMs = START_MS + sent * 400;
    while (users.length < active) {
      const user = newUser(options, random, number++, nowMs);
      (user.left > LONG ? long : users).push(user);
    }
    // The few long histories are spread over what is left of the stream.
    const ofLong = long.length > 0 && random() * (events - sent) < long.reduce((sum, { left }) => sum + left, 0);
    const pool = ofLong ? long : users;
    const at = Math.floor(random() * pool.length);
    const user = pool[at]!;
    const again = user.last !== undefined && random() < duplicates;
    const event = again ? user.last! : eventOf(user, random, nowMs, late, items);
    user.last = event;
    yield event;
    if (!again) user.left -= 1;
    if (user.left > 0) continue;
    pool[at] = pool.at(-1)!;
    pool.pop();
  }
}

function newUser(
  { events: all, medianEvents = 40, spread = 1.3, maxEvents = 100_000, erasures = 0.002 }: SyntheticOptions,
  random: () => number,
  number: number,
  nowMs: number,
): ActiveUser {
  // Every so often a machine, or a fan: as long as they come.
  const most = Math.min(maxEvents, Math.floor(all / 10));
  const events = number % 20_000 === 7 ? most : Math.min(LONG, Math.exp(Math.log(medianEvents) + spread * normal(random)));
  const left = Math.max(1, Math.min(most, Math.round(events)));
  const eraseAt = random() < erasures ? Math.floor(random() * left) : -1;
  return { userId: `user-${number}`, left, sent: 0, timeMs: nowMs, eraseAt, last: undefined };
}

function eventOf(user: ActiveUser, random: () => number, nowMs: number, late: number, items: number): SyntheticEvent {
  const eventId = `${user.userId}-${user.sent}`;
  const lateMs = user.sent > 0 && random() < late ? Math.floor(random() * (nowMs - user.timeMs) * 4) : 0;
  const eventTimeMs = nowMs - lateMs;
  if (lateMs === 0) user.timeMs = nowMs;
  const erased = user.sent === user.eraseAt;
  user.sent += 1;
  if (erased) return { eventId, userId: user.userId, action: 'erase', entity: 'user:self', eventTimeMs };
  const action = kindOf(random());
  return {
    eventId,
    userId: user.userId,
    action,
    entity: entityOf(action, random, items),
    ...amountOf(action, random),
    eventTimeMs,
  };
}

function kindOf(drawn: number): string {
  let sum = 0;
  for (const { action, share } of KINDS) {
    sum += share;
    if (drawn < sum) return action;
  }
  return KINDS[0].action;
}

/** Popular ones far more often than others. */
function entityOf(action: string, random: () => number, items: number): string {
  const popular = (count: number) => 1 + Math.floor(count * random() ** 3);
  if (action === 'follow') return `author:${popular(items / 10)}`;
  return action === 'search' ? `query:${popular(items / 10)}` : `item:${popular(items)}`;
}

function amountOf(action: string, random: () => number): { value?: number } {
  if (action === 'rate') return { value: 1 + Math.floor(5 * random()) };
  return action === 'buy' ? { value: Math.round(100 * 5 ** (3 * random())) / 100 } : {};
}

/** Box and Muller. */
const normal = (random: () => number): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** Mulberry32, public domain. */
function mulberry(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
