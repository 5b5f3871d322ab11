/** Of what a broker has sent: the records of committed transactions, and where to go on. */
import type { SourceRecord } from '../../schemas/action.ts';
import type { FetchedPartition, RawRecord } from './kafkajs-internals.ts';

/** Type of a control record that ends a transaction: the second 16 bits of its key (Kafka's `ControlRecordType`). */
const ABORT = 0;

/**
 * Leaves out control records, records of aborted transactions, and records before `from`.
 *
 * kafkajs' own filter lets records of an aborted transaction pass where two of them began before the first record
 * fetched, and takes any record with a key of four zero bytes for an abort marker.
 */
export function committedRecords(
  topic: string,
  { partition, messages, abortedTransactions }: FetchedPartition,
  from: number,
): { readonly records: SourceRecord[]; readonly nextOffset: number } {
  const aborted = [...(abortedTransactions ?? [])]
    .map(({ producerId, firstOffset }) => ({ producerId, firstOffset: Number(firstOffset) }))
    .sort((a, b) => a.firstOffset - b.firstOffset);
  const open = new Set<string>();
  const records: SourceRecord[] = [];
  let next = 0;
  for (const message of messages) {
    const offset = Number(message.offset);
    const { producerId, inTransaction } = message.batchContext;
    while (next < aborted.length && aborted[next]!.firstOffset <= offset) open.add(aborted[next++]!.producerId);
    if (message.isControlRecord) {
      if (controlType(message) === ABORT) open.delete(producerId);
      continue;
    }
    if (offset < from || (inTransaction && open.has(producerId))) continue;
    records.push({
      position: { topic, partition, offset },
      key: message.key,
      value: message.value,
      timestampMs: Number(message.timestamp),
    });
  }
  return { records, nextOffset: Math.max(from, nextOffsetOf(messages)) };
}

/** After the last batch sent, compacted records and markers included. */
function nextOffsetOf(messages: readonly RawRecord[]): number {
  const last = messages.at(-1);
  if (last === undefined) return 0;
  const { firstOffset, lastOffsetDelta } = last.batchContext;
  return Math.max(Number(last.offset), Number(firstOffset) + lastOffsetDelta) + 1;
}

const controlType = ({ key }: RawRecord): number | undefined =>
  key !== null && key.length >= 4 ? key.readInt16BE(2) : undefined;
