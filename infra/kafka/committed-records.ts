/** Of what a broker has sent of a partition: the records of committed transactions, batch by batch into its buffer. */
import { createHash } from 'node:crypto';
import { PipelineError } from '../../schemas/errors.ts';
import type { PartitionBuffer } from './partition-buffer.ts';
import { BatchFault } from './wire/batch-fault.ts';
import { unpack } from './wire/codecs.ts';
import type { FetchedPartition } from './wire/fetch.ts';
import { isAbort, type RawBatch, RecordReader, readBatch } from './wire/record-batch.ts';

/**
 * Leaves out markers, batches of aborted transactions, and records before the buffer's position, which moves behind each batch that was
 * used. A batch that unpacks to more than `maxBatchBytes` leaves a record in its place that says so.
 *
 * kafkajs' own filter lets records of an aborted transaction pass where two of them began before the first record fetched, and takes
 * any record with a key of four zero bytes for an abort marker.
 *
 * @returns `BATCH_UNREADABLE` where a batch cannot be read: the position stays in front of it
 */
export async function keepCommitted(
  buffer: PartitionBuffer,
  {
    records: set,
    abortedTransactions,
    highWatermark,
  }: Pick<FetchedPartition, 'records' | 'abortedTransactions' | 'highWatermark'>,
  maxBatchBytes: number,
): Promise<PipelineError | undefined> {
  const aborted = [...abortedTransactions].sort((a, b) => a.firstOffset - b.firstOffset);
  const open = new Set<string>();
  let next = 0;
  /** Where the batch before ends. */
  let last = 0;
  for (let at = 0; ; ) {
    try {
      const batch = readBatch(set, at);
      if (batch === undefined) return undefined;
      const { header, bytes } = batch;
      // Offsets are not in the checksum: the broker sets them.
      if (header.baseOffset < last || header.nextOffset <= header.baseOffset || header.nextOffset > highWatermark)
        throw new BatchFault(
          'corrupted',
          `it says offsets ${header.baseOffset} to ${header.nextOffset - 1}, after ${last}, in a log that ends at ${highWatermark}`,
        );
      last = header.nextOffset;
      at += bytes.length;
      const { producerId } = header;
      while (next < aborted.length && aborted[next]!.firstOffset < header.nextOffset) open.add(aborted[next++]!.producerId);
      if (header.isControl && header.count > 0 && isAbort(new RecordReader(header, batch.records).next()))
        open.delete(producerId);
      // Wholly before where the reading begins, or of nobody.
      const isWanted =
        !header.isControl && !(header.isTransactional && open.has(producerId)) && header.nextOffset > buffer.position;
      if (isWanted) await keepBatch(buffer, batch, maxBatchBytes);
      buffer.position = Math.max(buffer.position, header.nextOffset);
    } catch (thrown) {
      if (!(thrown instanceof BatchFault)) throw thrown;
      return unreadable(buffer, thrown.message);
    }
  }
}

export const unreadable = ({ topic, partition, position }: PartitionBuffer, why: string): PipelineError =>
  new PipelineError('BATCH_UNREADABLE', `${topic}/${partition}: the batch at offset ${position} cannot be read: ${why}`);

/** @throws BatchFault other than `too-large` */
async function keepBatch(buffer: PartitionBuffer, { header, bytes, records }: RawBatch, maxBatchBytes: number): Promise<void> {
  try {
    buffer.keep(header, await unpack(header.codec, records, maxBatchBytes));
  } catch (thrown) {
    if (!(thrown instanceof BatchFault) || thrown.kind !== 'too-large') throw thrown;
    const digest = createHash('sha256').update(bytes).digest('hex');
    const what = `${thrown.message}; kafka.maxBatchBytes allows ${maxBatchBytes}`;
    buffer.keepFault(
      header,
      'RECORD_TOO_LARGE',
      `the batch of offsets ${header.baseOffset} to ${header.nextOffset - 1}, ${bytes.length} bytes with SHA-256 ${digest}: ${what}`,
    );
  }
}
