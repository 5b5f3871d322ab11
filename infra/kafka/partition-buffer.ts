/** What was fetched of one partition and not taken yet, and where its reading stands. */
import type { SourceRecord } from '../../schemas/action.ts';
import type { ErrorCode } from '../../schemas/errors.ts';
import { type BatchHeader, RecordReader } from './wire/record-batch.ts';

/** Why a partition cannot be read on. */
export interface Standing {
  readonly topic: string;
  readonly partition: number;
  /** Of the record that would be next. */
  readonly offset: number;
  readonly code: ErrorCode;
  readonly reason: string;
  /** ms since the epoch. */
  readonly sinceMs: number;
}

/** Of a larger batch the records are made as they are taken: as objects, millions of them would fill the memory. */
const MADE_AT_ONCE = 4_096;
/** Taken at once, at most. */
const TAKEN_AT_ONCE = 65_536;

/** Bytes a record holds in memory, about: the fetched bytes and the objects around them. */
const RECORD_BYTES = 200;
const sizeOf = ({ key, value }: SourceRecord): number =>
  RECORD_BYTES + ((value as Uint8Array | null)?.byteLength ?? 0) + (key?.byteLength ?? 0);

export class PartitionBuffer {
  readonly topic: string;
  readonly partition: number;
  /** Where the next fetch begins. */
  position: number;
  /** End of the log as last told: offset of the next record to come. */
  endOffset: number;
  /** Whether everything committed at the last answer has been fetched. */
  isFetched = false;
  /** The last answer held nothing although there is something: crowded out by others, or batches emptied by compaction. */
  emptyHanded = false;
  /** An answer is being unpacked into it, or something asked about it: it is not fetched meanwhile. */
  isBusy = false;
  /** Its leader has answered with an error: the topic may be another now. */
  isDoubtful = false;
  /** Faults in a row, and when to ask again, on `performance.now()`. */
  faults = 0;
  retryAtMs = 0;
  standing: Standing | undefined;
  /** Records to be taken next, in order. */
  #made: SourceRecord[] = [];
  /** Behind them: batches whose records are not made yet, the first may be begun; and what is said in the place of a batch. */
  readonly #pending: (Unmade | SourceRecord)[] = [];
  #bytes = 0;

  constructor(topic: string, partition: number, offset: number) {
    this.topic = topic;
    this.partition = partition;
    this.position = offset;
    this.endOffset = offset;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Records that wait. */
  get count(): number {
    return this.#pending.reduce((sum, one) => sum + ('reader' in one ? one.reader.left : 1), this.#made.length);
  }

  /** Those that can be looked at: of large batches not all. */
  get records(): readonly SourceRecord[] {
    this.#make(MADE_AT_ONCE);
    return this.#made;
  }

  /** All that wait can be looked at. */
  get isMade(): boolean {
    return this.#pending.length === 0;
  }

  /** Where the first record that waits, or the next to be fetched, is to be found. */
  get nextOffset(): number {
    return this.records[0]?.position.offset ?? this.position;
  }

  /**
   * Keeps a batch's records from `position` on, which moves behind it.
   *
   * @throws BatchFault for records that cannot be read: nothing of the batch is kept
   */
  keep(header: BatchHeader, unpacked: Buffer): void {
    // A batch is given whole or not at all, so all of it is read before the first record is given.
    for (const reader = new RecordReader(header, unpacked); reader.left > 0; ) reader.next();
    this.#pending.push({ reader: new RecordReader(header, unpacked), from: this.position });
    this.#bytes += unpacked.length;
    // Small ones are made at once: no views of the batch are held beside it.
    if (this.#made.length + header.count <= MADE_AT_ONCE) this.#make(MADE_AT_ONCE);
    this.position = Math.max(this.position, header.nextOffset);
  }

  /** In the place of a batch that cannot be given, one record that says why. */
  keepFault(header: BatchHeader, code: ErrorCode, message: string): void {
    const offset = Math.max(this.position, header.baseOffset);
    const position = { topic: this.topic, partition: this.partition, offset };
    const timestampMs = header.appendTimeMs ?? header.baseTimestampMs;
    this.#pending.push({ position, key: null, value: null, timestampMs, fault: { code, message } });
    this.position = header.nextOffset;
  }

  /** Up to `max` records, oldest first, those before `beforeOffset`. */
  take(max: number, beforeOffset: number): SourceRecord[] {
    const most = Math.min(max, TAKEN_AT_ONCE);
    this.#make(most);
    let count = 0;
    while (count < Math.min(most, this.#made.length) && this.#made[count]!.position.offset < beforeOffset) count++;
    const records = this.#made.length === count ? this.#made : this.#made.slice(0, count);
    this.#made = this.#made.length === count ? [] : this.#made.slice(count);
    for (const record of records) this.#bytes -= sizeOf(record);
    return records;
  }

  #make(count: number): void {
    for (let next = this.#pending[0]; next !== undefined && this.#made.length < count; next = this.#pending[0]) {
      if (!('reader' in next)) this.#push(next);
      else {
        const { reader, from } = next;
        while (reader.left > 0 && this.#made.length < count) {
          const { offset, timestampMs, key, value } = reader.next();
          // Before where the reading began, in the same batch.
          if (offset < from) continue;
          this.#push({ position: { topic: this.topic, partition: this.partition, offset }, key, value, timestampMs });
        }
        if (reader.left > 0) return;
        this.#bytes -= reader.byteLength;
      }
      this.#pending.shift();
    }
  }

  #push(record: SourceRecord): void {
    this.#made.push(record);
    this.#bytes += sizeOf(record);
  }
}

interface Unmade {
  readonly reader: RecordReader;
  /** Records before this offset are not given. */
  readonly from: number;
}
