/** A row of a file that cannot be taken apart: its text, and what is wrong with it. Stands where its fields would stand. */
export class UnreadableRow {
  readonly text: string;
  readonly problem: string;

  constructor(text: string, problem: string) {
    this.text = text;
    this.problem = problem;
  }

  /** As a dead letter keeps it. */
  toJSON(): string {
    return this.text;
  }
}
