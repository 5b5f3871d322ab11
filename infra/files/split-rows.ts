/** Cuts text that arrives in chunks into rows; a row is never larger in memory than its limit. */

export interface SplitRowsOptions {
  /** Whether a line break inside double quotes belongs to the row (CSV). */
  readonly quoted: boolean;
  /** What stands before a quote that opens a field, unless a row begins there. @default ',' */
  readonly separator?: string | undefined;
  /** A row that begins so is left out. @default none is */
  readonly comment?: string | undefined;
  /** Lines left out at the beginning, whatever they hold. @default 0 */
  readonly skipLines?: number | undefined;
  /** A longer row comes out cut to one character more than this, so that its reader sees that it was too long. */
  readonly maxRowChars: number;
}

const CARRIAGE_RETURN = 0x0d;

/**
 * Rows of a stream of text: raw, without their line break, empty ones left out.
 *
 * A quote that is never closed must not swallow the rest of the file: once such a row outgrows the limit, or the file ends,
 * its first line alone becomes a row (a bad one) and splitting starts again at the second.
 */
export class RowSplitter {
  readonly #quoted: boolean;
  readonly #maxRowChars: number;
  readonly #separator: string;
  readonly #comment: string | undefined;
  /** Lines still to be left out. */
  #skipLines: number;
  #pending = '';
  /** Where scanning of `#pending` stands, and whether it stands inside quotes there. */
  #scanned = 0;
  #inQuotes = false;
  /** Where in `#pending` the last quotes closed: a quote right after is a doubled one and goes on with the field. */
  #closedAt = -1;
  /** Inside an overlong line, whose remainder is thrown away. */
  #discarding = false;
  /** Inside a comment, which ends with its line. */
  #inComment = false;

  constructor({ quoted, maxRowChars, separator = ',', comment, skipLines = 0 }: SplitRowsOptions) {
    this.#quoted = quoted;
    this.#maxRowChars = maxRowChars;
    this.#separator = separator;
    this.#comment = comment;
    this.#skipLines = skipLines;
  }

  /** Rows completed by this chunk. */
  push(chunk: string): string[] {
    this.#pending += chunk;
    this.#skip();
    const rows: string[] = [];
    while (this.#take(rows)) {
      // Every turn takes rows off `#pending` or shortens it.
    }
    return rows;
  }

  /** Rows left at the end of the file. */
  end(): string[] {
    const rows = this.push(this.#pending === '' || this.#pending.endsWith('\n') ? '' : '\n');
    while (this.#pending !== '') {
      // Only an unclosed quote leaves something.
      this.#giveUpQuote(rows);
      while (this.#take(rows)) {
        // As above.
      }
    }
    return rows;
  }

  #take(rows: string[]): boolean {
    const text = this.#pending;
    let start = 0;
    let inQuotes = this.#inQuotes;
    let undecided = false;
    let at = this.#scanned;
    let nextQuote = this.#quoted ? text.indexOf('"', at) : -1;
    for (;;) {
      if (at === start && !inQuotes && !this.#discarding && this.#comment !== undefined) {
        const after = this.#afterComment(text, start, this.#comment);
        undecided = after === undefined;
        if (undecided) break;
        if (after! > start) {
          // A quote in a comment opens nothing.
          start = after!;
          at = start;
          if (nextQuote < at) nextQuote = this.#quoted ? text.indexOf('"', at) : -1;
          continue;
        }
      }
      if (inQuotes) {
        if (nextQuote < 0) break;
        inQuotes = false;
        this.#closedAt = nextQuote;
        at = nextQuote + 1;
        nextQuote = text.indexOf('"', at);
        continue;
      }
      const lineEnd = text.indexOf('\n', at);
      if (nextQuote >= 0 && (lineEnd < 0 || nextQuote < lineEnd)) {
        // Quotes open only at the start of a field; elsewhere they are bad CSV, which the row's parser refuses by itself.
        inQuotes = nextQuote === start || text.endsWith(this.#separator, nextQuote) || nextQuote === this.#closedAt + 1;
        at = nextQuote + 1;
        nextQuote = text.indexOf('"', at);
        continue;
      }
      if (lineEnd < 0) break;
      this.#emit(rows, text, start, lineEnd);
      start = lineEnd + 1;
      at = start;
    }
    this.#pending = start === 0 ? text : text.slice(start);
    this.#closedAt = this.#closedAt < start ? -1 : this.#closedAt - start;
    this.#scanned = undecided ? 0 : this.#pending.length;
    this.#inQuotes = inQuotes;
    if (this.#pending.length <= this.#maxRowChars) return false;
    if (inQuotes) {
      this.#giveUpQuote(rows);
      return true;
    }
    if (this.#discarding) this.#pending = '';
    else {
      rows.push(this.#pending.slice(0, this.#maxRowChars + 1));
      this.#discarding = true;
      this.#pending = '';
    }
    this.#scanned = 0;
    return false;
  }

  /** Drops what is left out of what is pending, where nothing has been scanned then. */
  #skip(): void {
    while (this.#skipLines > 0 || this.#inComment) {
      const lineEnd = this.#pending.indexOf('\n');
      if (lineEnd < 0) {
        this.#pending = '';
        return;
      }
      this.#pending = this.#pending.slice(lineEnd + 1);
      if (this.#inComment) this.#inComment = false;
      else this.#skipLines -= 1;
    }
  }

  /** Where text goes on after a comment at `start`: there, where none begins; undefined while that cannot be told. */
  #afterComment(text: string, start: number, comment: string): number | undefined {
    if (!text.startsWith(comment, start)) {
      const rest = text.length - start;
      return rest > 0 && rest < comment.length && comment.startsWith(text.slice(start)) ? undefined : start;
    }
    const lineEnd = text.indexOf('\n', start);
    this.#inComment = lineEnd < 0;
    return lineEnd < 0 ? text.length : lineEnd + 1;
  }

  #emit(rows: string[], text: string, start: number, lineEnd: number): void {
    if (this.#discarding) {
      this.#discarding = false;
      return;
    }
    const end = lineEnd > start && text.charCodeAt(lineEnd - 1) === CARRIAGE_RETURN ? lineEnd - 1 : lineEnd;
    if (end === start) return;
    rows.push(text.slice(start, Math.min(end, start + this.#maxRowChars + 1)));
  }

  #giveUpQuote(rows: string[]): void {
    const text = this.#pending;
    const lineEnd = text.indexOf('\n');
    this.#inQuotes = false;
    this.#closedAt = -1;
    this.#scanned = 0;
    if (lineEnd >= 0) {
      this.#emit(rows, text, 0, lineEnd);
      this.#pending = text.slice(lineEnd + 1);
      return;
    }
    rows.push(text.slice(0, this.#maxRowChars + 1));
    this.#discarding = true;
    this.#pending = '';
  }
}
