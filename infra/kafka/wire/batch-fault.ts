/** Why a record batch cannot be read; where it lies, whoever fetched it says. */
export type FaultKind =
  /** The bytes are not what was written: a checksum or a length. On the way or on the disk; read again it may be right. */
  | 'corrupted'
  /** Well-formed, and more than is held of one batch. Read again it would be as large. */
  | 'too-large'
  /** Written so, by a producer that went wrong or means harm: the checksum is right. */
  | 'malformed'
  /** Of a format that is not read here. */
  | 'unsupported';

export class BatchFault extends Error {
  override readonly name = 'BatchFault';
  readonly kind: FaultKind;

  constructor(kind: FaultKind, message: string) {
    super(message);
    this.kind = kind;
  }
}
