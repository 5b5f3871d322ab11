/** What a record says, or why it says nothing. */
import type { PositionedAction } from './action.ts';
import type { ErrorCode } from './errors.ts';
import type { Fault } from './record-fields.ts';

/** An optional part of a record that could not be used: left out, and counted. */
export interface InvalidValue {
  /** `value`, `context.city` */
  readonly field: string;
  readonly message: string;
}

/** What a record says. */
export interface Decoded {
  readonly ok: true;
  /** In the record's order; none of a record that is ignored. */
  readonly actions: readonly PositionedAction[];
  /** It is of a kind that is no action. */
  readonly ignored?: true;
  /** Why some of its elements are no actions: a dead letter of the record, whose other elements are used. */
  readonly partly?: { readonly code: ErrorCode; readonly message: string };
  /** Absent for none. */
  readonly invalid?: readonly InvalidValue[];
}

/** What a record says, or why it says nothing: a dead letter that does not yet know its step. */
export type DecodeResult = Decoded | { readonly ok: false; readonly code: ErrorCode; readonly message: string };

/** A fault as a result. */
export const refuse = ({ code, message }: Fault) => ({ ok: false, code, message }) as const;
