/** Cuts text that arrives in chunks into rows; a row is never larger in memory than its limit. */

export interface SplitRowsOptions {
  /** Whether a line break inside double quotes belongs to the row (CSV). */
  readonly quoted: boolean;
  /** Between two fields: behind it, a quote opens. @default ',' */
  readonly separator?: string | undefined;
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
  readonly #separator: string;
  readonly #maxRowChars: number;
  #pending = '';
  /** Where scanning of `#pending` stands, and whether it stands inside quotes there. */
  #scanned = 0;
  #inQuotes = false;
  /** Where in `#pending` the last quotes closed: a quote right after is a doubled one and goes on with the field. */
  #closedAt = -1;
  /** Inside an overlong line, whose remainder is thrown away. */
  #discarding = false;

  constructor({ quoted, separator = ',', maxRowChars }: SplitRowsOptions) {
    this.#quoted = quoted;
    this.#separator = separator;
    this.#maxRowChars = maxRowChars;
  }

  /** Rows completed by this chunk. */
  push(chunk: string): string[] {
    this.#pending += chunk;
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
    let at = this.#scanned;
    let nextQuote = this.#quoted ? text.indexOf('"', at) : -1;
    for (;;) {
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
    this.#scanned = this.#pending.length;
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
