/** The runs of a sort on disk: one event a line, and their merge. */
import { closeSync, openSync, readSync, rmSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import type { PositionedAction } from '../../schemas/action.ts';

/** An event and what it is sorted by: the user's hash, the user, the order asked for, the order of arrival. */
export interface SortedEvent {
  readonly hash: number;
  readonly order: number;
  readonly arrival: number;
  readonly action: PositionedAction;
}

type Line = [
  hash: number,
  order: number,
  arrival: number,
  userId: string,
  eventId: string,
  action: string,
  entity: string,
  eventTimeMs: number,
  topic: string,
  partition: number,
  offset: number,
  value: number | null,
  context: PositionedAction['context'] | null,
  part: number | null,
];

export const toEvent = (action: PositionedAction, order: number, arrival: number): SortedEvent => ({
  hash: hashOf(action.userId),
  order,
  arrival,
  action,
});

function compareKeys(a: SortedEvent, b: SortedEvent): number {
  if (a.hash !== b.hash) return a.hash - b.hash;
  if (a.action.userId !== b.action.userId) return a.action.userId < b.action.userId ? -1 : 1;
  if (a.order !== b.order) return a.order < b.order ? -1 : 1;
  return a.arrival - b.arrival;
}

/** The same order as by `compareKeys`: few users are compared, and a user's events have mostly come in order. */
export function sortEvents(events: readonly SortedEvent[]): SortedEvent[] {
  const users = new Map<string, SortedEvent[]>();
  for (const event of events) {
    const ofUser = users.get(event.action.userId);
    if (ofUser === undefined) users.set(event.action.userId, [event]);
    else ofUser.push(event);
  }
  const lists = [...users.values()].sort((a, b) => compareKeys(a[0]!, b[0]!));
  for (const list of lists) if (!isSorted(list)) list.sort(compareKeys);
  return lists.flat();
}

function isSorted(events: readonly SortedEvent[]): boolean {
  for (let i = 1; i < events.length; i++) if (compareKeys(events[i - 1]!, events[i]!) > 0) return false;
  return true;
}

export function toLine({ hash, order, arrival, action: event }: SortedEvent): string {
  const { userId, eventId, action, entity, eventTimeMs, position, value, context, part } = event;
  const line: Line = [
    hash,
    order,
    arrival,
    userId,
    eventId,
    action,
    entity,
    eventTimeMs,
    position.topic,
    position.partition,
    position.offset,
    value ?? null,
    context ?? null,
    part ?? null,
  ];
  return `${JSON.stringify(line)}\n`;
}

function fromLine(text: string): SortedEvent {
  const [hash, order, arrival, userId, eventId, action, entity, eventTimeMs, topic, partition, offset, value, context, part] =
    JSON.parse(text) as Line;
  return {
    hash,
    order,
    arrival,
    action: {
      userId,
      eventId,
      action,
      entity,
      eventTimeMs,
      position: { topic, partition, offset },
      ...(value !== null && { value }),
      ...(context !== null && context !== undefined && { context }),
      ...(part !== null && { part }),
    },
  };
}

interface Head {
  event: SortedEvent;
  readonly rest: Iterator<SortedEvent>;
}

/** The events of sorted runs, sorted; the runs are removed as they end. */
export function* mergeRuns(paths: readonly string[], readBytes: number): Generator<SortedEvent> {
  const heap: Head[] = [];
  for (const path of paths) {
    const rest = readRun(path, readBytes);
    const first = rest.next();
    if (first.done !== true) heap.push({ event: first.value, rest });
  }
  for (let at = (heap.length >> 1) - 1; at >= 0; at--) siftDown(heap, at);
  while (heap.length > 0) {
    const top = heap[0]!;
    yield top.event;
    const next = top.rest.next();
    if (next.done !== true) top.event = next.value;
    else {
      const last = heap.pop()!;
      if (heap.length === 0) return;
      heap[0] = last;
    }
    siftDown(heap, 0);
  }
}

function siftDown(heap: Head[], from: number): void {
  const moved = heap[from]!;
  let at = from;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && compareKeys(heap[child + 1]!.event, heap[child]!.event) < 0) child += 1;
    if (compareKeys(moved.event, heap[child]!.event) <= 0) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = moved;
}

function* readRun(path: string, readBytes: number): Generator<SortedEvent> {
  const file = openSync(path, 'r');
  const decoder = new StringDecoder('utf8');
  const buffer = Buffer.alloc(readBytes);
  try {
    let text = '';
    for (;;) {
      const read = readSync(file, buffer);
      if (read === 0) return;
      text += decoder.write(buffer.subarray(0, read));
      let start = 0;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
        yield fromLine(text.slice(start, end));
        start = end + 1;
      }
      text = text.slice(start);
    }
  } finally {
    closeSync(file);
    rmSync(path, { force: true });
  }
}

/** FNV-1a over the UTF-16 code units (Fowler, Noll and Vo; public domain). */
function hashOf(userId: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < userId.length; i++) hash = Math.imul(hash ^ userId.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
