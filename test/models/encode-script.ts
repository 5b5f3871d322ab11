/**
 * What can happen to users' sequences, as data: a script of calls to the encoder, with the window that each segment shows.
 * The laws run scripts against one engine and compare every row with a full encode and with the float64 reference.
 */
import fc from 'fast-check';
import type { EncodeRequest, EncodeSegment } from '../../schemas/encoding.ts';
import { segmentOf, type Window } from '../support/encode-segments.ts';

/** Something that happens to one user. Numbers in `[0, 1)` choose a place in whatever the sequence is by then. */
export type Happening =
  | { readonly kind: 'append'; readonly events: readonly { readonly entity: number; readonly gapS: number }[] }
  | { readonly kind: 'query'; readonly laterS: number }
  | { readonly kind: 'repeat' }
  /** A late event, between two that are there. */
  | { readonly kind: 'insert'; readonly where: number; readonly entity: number }
  | { readonly kind: 'replace'; readonly where: number; readonly entity: number }
  /** The same token at another time, order kept. */
  | { readonly kind: 'retime'; readonly where: number }
  | { readonly kind: 'erase'; readonly where: number; readonly count: number }
  /** The newest tokens go. */
  | { readonly kind: 'shorten'; readonly count: number }
  /** The window drops its oldest tokens. */
  | { readonly kind: 'slide'; readonly where: number }
  | { readonly kind: 'forget' };

export interface Step {
  readonly user: number;
  readonly happening: Happening;
  /** First wanted row, from none computed needlessly (0: the old tail on) to all of them (1). */
  readonly wanted: number;
  /** How it is asked for: in a call of its own, as one more request of the last call, as one more segment of the last request. */
  readonly asked: 'call' | 'request' | 'segment';
}

/** One call to the encoder. */
export interface Call {
  /** Users whose rows are dropped before the call. */
  readonly forget: readonly string[];
  readonly requests: readonly EncodeRequest[];
}

type Kind = Happening['kind'];

/** Scripts in which only the named kinds of things happen, `append` always among them. */
export function stepsArbitrary(
  kinds: readonly Kind[],
  {
    vocabulary,
    users = 1,
    maxSteps = 14,
    maxEvents = 6,
  }: { vocabulary: number; users?: number; maxSteps?: number; maxEvents?: number },
): fc.Arbitrary<Step[]> {
  const where = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  const entity = fc.integer({ min: 1, max: vocabulary });
  const gapS = fc.oneof(fc.constantFrom(0, 0, 1, 60, 3_600, 86_400), fc.integer({ min: 0, max: 2_000_000 }));
  const byKind: Record<Kind, fc.Arbitrary<Happening>> = {
    append: fc.record({
      kind: fc.constant('append'),
      events: fc.array(fc.record({ entity, gapS }), { minLength: 1, maxLength: maxEvents }),
    }),
    query: fc.record({ kind: fc.constant('query'), laterS: gapS }),
    repeat: fc.record({ kind: fc.constant('repeat') }),
    insert: fc.record({ kind: fc.constant('insert'), where: fc.oneof(where, fc.constant(0.999)), entity }),
    replace: fc.record({ kind: fc.constant('replace'), where, entity }),
    retime: fc.record({ kind: fc.constant('retime'), where }),
    erase: fc.record({ kind: fc.constant('erase'), where, count: fc.integer({ min: 1, max: 3 }) }),
    shorten: fc.record({ kind: fc.constant('shorten'), count: fc.integer({ min: 1, max: 4 }) }),
    slide: fc.record({ kind: fc.constant('slide'), where }),
    forget: fc.record({ kind: fc.constant('forget') }),
  };
  const append = { arbitrary: byKind.append, weight: 2 * Math.max(1, kinds.length) };
  const happening = fc.oneof(
    append,
    ...kinds.filter((kind) => kind !== 'append').map((kind) => ({ arbitrary: byKind[kind], weight: 3 })),
  );
  return fc.array(
    fc.record({
      user: fc.nat(users - 1),
      happening,
      wanted: fc.oneof(fc.constant(0), where),
      asked: fc.constantFrom('call' as const, 'request' as const, 'segment' as const),
    }),
    { minLength: 1, maxLength: maxSteps },
  );
}

/** A history before the script begins: long ones cross the pages of the digest and of the pool. */
export const historyArbitrary = (vocabulary: number, maxLength: number): fc.Arbitrary<Window> =>
  fc
    .array(fc.tuple(fc.integer({ min: 1, max: vocabulary }), fc.constantFrom(0, 0, 5, 600, 90_000)), { maxLength, size: 'max' })
    .map((tokens) => {
      let at = 978_300_000;
      return {
        entities: tokens.map(([entity]) => entity),
        timesS: tokens.map(([, gap]) => {
          at += gap;
          return at;
        }),
      };
    });

/** Plays the script on plain arrays; the result is what the encoder is asked, call by call. */
export function callsOf(steps: readonly Step[], histories: readonly Window[], maxLength: number): Call[] {
  const users = new Map<number, User>();
  const calls: { forget: string[]; requests: { userId: string; segments: EncodeSegment[] }[] }[] = [];
  for (const { user, happening, wanted, asked } of steps) {
    const state = users.get(user) ?? new User(histories[user], maxLength);
    users.set(user, state);
    const userId = `user ${user}`;
    if (happening.kind === 'forget') calls.push({ forget: [userId], requests: [] });
    const segment = state.show(happening, wanted);
    if (segment === undefined) continue;
    const call = calls.at(-1);
    const request = call?.requests.at(-1);
    if (call === undefined || asked === 'call') calls.push({ forget: [], requests: [{ userId, segments: [segment] }] });
    else if (asked === 'segment' && request?.userId === userId) request.segments.push(segment);
    else call.requests.push({ userId, segments: [segment] });
  }
  return calls;
}

class User {
  #start = 0;
  #entities: number[];
  #timesS: number[];
  #queryTimeS: number | undefined;
  #last: EncodeSegment | undefined;
  /** Rows that any call has shown and that nothing has changed since. */
  #shown = 0;
  readonly #maxLength: number;

  constructor(history: Window | undefined, maxLength: number) {
    this.#entities = [...(history?.entities ?? [])];
    this.#timesS = [...(history?.timesS ?? [])];
    this.#maxLength = maxLength;
  }

  show(happening: Happening, wanted: number): EncodeSegment | undefined {
    if (happening.kind === 'repeat' && this.#last !== undefined) return this.#last;
    this.#queryTimeS = undefined;
    this.#change(happening);
    const n = this.#entities.length;
    if (n === 0) return undefined;
    const tail = Math.max(0, Math.min(this.#shown, n) - 1);
    const from = Math.round(tail * (1 - wanted));
    this.#shown = n;
    const window = { windowStart: this.#start, entities: this.#entities, timesS: this.#timesS };
    this.#last = segmentOf(window, { from, queryTimeS: this.#queryTimeS ?? this.#timesS.at(-1)! });
    return this.#last;
  }

  #change(happening: Happening): void {
    const n = this.#entities.length;
    const place = 'where' in happening ? Math.floor(happening.where * n) : 0;
    switch (happening.kind) {
      case 'append':
        for (const { entity, gapS } of happening.events) {
          this.#splice(this.#entities.length, 0, entity, (this.#timesS.at(-1) ?? 978_300_000) + gapS);
          if (this.#entities.length > this.#maxLength) this.#slide(Math.ceil(this.#maxLength / 4));
        }
        return;
      case 'query':
        this.#queryTimeS = (this.#timesS.at(-1) ?? 0) + happening.laterS;
        return;
      case 'insert':
        // Right before token `place`, at a time between its neighbours': for 0.999, right before the newest.
        if (n === 0 || n >= this.#maxLength) return;
        this.#shown = Math.min(this.#shown, place);
        this.#splice(
          place,
          0,
          happening.entity,
          Math.floor(((this.#timesS[place - 1] ?? this.#timesS[0]!) + this.#timesS[place]!) / 2),
        );
        return;
      case 'replace':
        this.#shown = Math.min(this.#shown, place);
        if (n > 0) this.#entities[place] = happening.entity;
        return;
      case 'retime':
        this.#shown = Math.min(this.#shown, place);
        if (n > 0) this.#timesS[place] = place === n - 1 ? this.#timesS[place]! + 40_000 : this.#timesS[place + 1]!;
        return;
      case 'erase':
        this.#shown = Math.min(this.#shown, place);
        this.#splice(place, happening.count);
        return;
      case 'shorten':
        this.#splice(Math.max(0, n - happening.count), happening.count);
        return;
      case 'slide':
        if (n > 1) this.#slide(place);
        return;
      case 'forget':
      case 'repeat':
    }
  }

  #slide(count: number): void {
    this.#splice(0, count);
    this.#start += count;
    this.#shown = 0;
  }

  #splice(at: number, remove: number, entity?: number, timeS?: number): void {
    this.#entities.splice(at, remove, ...(entity === undefined ? [] : [entity]));
    this.#timesS.splice(at, remove, ...(timeS === undefined ? [] : [timeS]));
  }
}
