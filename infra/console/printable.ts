/** Strings that others wrote, made safe for a terminal and for whoever reads a log line by line. */

/**
 * C0 and C1 controls, DEL, the marks and overrides of direction, the separators of lines and paragraphs, and the byte-order mark:
 * what moves a cursor, begins a line, or shows text in another order than it has.
 */
const CONTROL = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu;

const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** As JSON would write it, so that escaped JSON is still the same JSON. */
const escaped = (char: string): string => SHORT[char] ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** One line without any control character: `\u001b` for an escape, `\n` for a line break. */
export const printable = (text: string): string => text.replace(CONTROL, escaped);

/** The same for text of several lines: those after the first are indented, so that none passes for a line of its own. */
export const printableLines = (text: string, indent = '    '): string => text.split(/\r?\n/).map(printable).join(`\n${indent}`);

/** What this program itself writes to terminals: line breaks, colours, and the cursor of a progress bar. */
const ESCAPE = String.fromCharCode(27);
const OWN = new RegExp(`[\\n\\t\\r]|${ESCAPE}\\[(?:(?:[0127]|2[27]|3\\d|90)m|\\d?[GK]|\\?(?:7|25)[hl])`, 'g');

/** Leaves a program's own sequences, and escapes every other control character: the last guard before a terminal. */
export function ownSequencesOnly(text: string): string {
  let safe = '';
  let from = 0;
  for (const { 0: own, index } of text.matchAll(OWN)) {
    safe += printable(text.slice(from, index)) + own;
    from = index + own.length;
  }
  return safe + printable(text.slice(from));
}
