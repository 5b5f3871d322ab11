/** How far a partition's inputs are in its state, as a record of the changelog: the last of every commit. */
import { messageOf, PipelineError } from './errors.ts';
import { epochOfReset, RESERVED_KEY_PREFIX, RESET_KEY, type StatePosition } from './state.ts';

/** No user's record has a key that begins like this. */
export const POSITION_KEY: Uint8Array = Buffer.concat([Uint8Array.of(RESERVED_KEY_PREFIX), Buffer.from('position')]);

export const isPosition = (key: Uint8Array): boolean => Buffer.compare(key, POSITION_KEY) === 0;

export const encodePosition = (position: StatePosition): Uint8Array => Buffer.from(JSON.stringify(position));

/** @throws PipelineError `STATE_CORRUPTED` */
export function decodePosition(value: Uint8Array, where: string): StatePosition {
  try {
    const position = JSON.parse(Buffer.from(value).toString()) as StatePosition;
    if (typeof position.inputs !== 'object' || typeof position.signature !== 'object')
      throw new Error('inputs or signature missing');
    return position;
  } catch (cause) {
    throw new PipelineError('STATE_CORRUPTED', `${where}: the position record is unreadable: ${messageOf(cause)}`, { cause });
  }
}

/** The epoch that a record of the changelog says, a position or a reset; undefined for one that says none. The last of a partition counts. */
export function epochIn(key: Uint8Array, value: Uint8Array | null): number | undefined {
  if (value === null) return undefined;
  if (isPosition(key)) return decodePosition(value, 'the changelog').epoch ?? 0;
  return Buffer.compare(key, RESET_KEY) === 0 ? epochOfReset(value) : undefined;
}
