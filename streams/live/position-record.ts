/** How far a partition's inputs are in its state, as a record of the changelog: the last of every commit. */
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { RESERVED_KEY_PREFIX, type StatePosition } from '../../schemas/state.ts';

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
