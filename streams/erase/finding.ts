/** What a place holds of a user, counted by what an erasure has to do with it. */
export interface Finding {
  readonly place: string;
  /** Should have gone with the erasure. */
  readonly leftOver: number;
  /** In a log that nothing is removed from: it goes with the log's retention, or when the log is compacted. */
  readonly expiring: number;
  /** Of after the erasure: the user came back. */
  readonly later: number;
  readonly note: string;
}

export const nothingIn = (place: string, note = ''): Finding => ({ place, leftOver: 0, expiring: 0, later: 0, note });
