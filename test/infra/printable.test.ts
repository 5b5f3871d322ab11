import fc from 'fast-check';
import colors from 'picocolors';
import { describe, expect, it } from 'vitest';
import { cell } from '../../infra/console/format.ts';
import { ownSequencesOnly, printable, printableLines } from '../../infra/console/printable.ts';
import { sparklines } from '../../infra/console/sparkline.ts';
import { facts, heading, table } from '../../infra/console/table.ts';
import { toText } from '../../infra/telemetry/text-line.ts';

const FORGED = 'x\u001b[31mRED\n19:00:00.000 ERROR forged\u0007\u009b2J\u202egnp.\u2028\r\u0000\u2066\ufeff';
/** Anything that a terminal acts on, or that reads in another order than it lies. */
const unsafe = (text: string) =>
  [...text].filter((char) => {
    const code = char.codePointAt(0)!;
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || /[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/.test(char);
  });
const anyText = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc
    .array(
      fc.constantFrom('\u001b', '[', '31m', '2J', ']0;t', '\u0007', '\n', '\r', '\u009b', '\u202e', '\u2028', 'a', 'é', '🙂'),
    )
    .map((parts) => parts.join('')),
);

describe('control characters', () => {
  it('are written as JSON writes them, and nothing else changes', () => {
    expect(printable(FORGED)).toBe(
      'x\\u001b[31mRED\\n19:00:00.000 ERROR forged\\u0007\\u009b2J\\u202egnp.\\u2028\\r\\u0000\\u2066\\ufeff',
    );
    expect(printable('Amélie «été» 映画 🙂 👩‍👩‍👧 "\\')).toBe('Amélie «été» 映画 🙂 👩‍👩‍👧 "\\');
    expect(printableLines('first\nERROR second\r\n\u001b[2J')).toBe('first\n    ERROR second\n    \\u001b[2J');
  });

  it('are never left, whatever the text; escaped JSON is the same JSON', () =>
    fc.assert(
      fc.property(anyText, (text) => {
        expect(unsafe(printable(text))).toEqual([]);
        expect(printable(printable(text))).toBe(printable(text));
        expect(JSON.parse(printable(JSON.stringify({ [text]: text })))).toEqual({ [text]: text });
      }),
      { numRuns: 2_000 },
    ));

  it('reach no terminal but as what the program itself writes', () => {
    const own = `\u001b[1mbold\u001b[22m \u001b[?25l\u001b[1G\u001b[0K\u001b[?7l 3 %\n`;
    expect(ownSequencesOnly(own)).toBe(own);
    for (const paint of [colors.red, colors.dim, colors.bold, colors.inverse, colors.cyan, colors.gray, colors.yellow])
      expect(ownSequencesOnly(paint('x'))).toBe(paint('x'));
    for (const hostile of [
      '\u001b[2J',
      '\u001b]0;title\u0007',
      '\u001b[10A',
      '\u001bc',
      '\u009b31m',
      '\u001b[5;5H',
      '\u001b[8m',
      '\b',
    ])
      expect(unsafe(ownSequencesOnly(hostile)), hostile).toEqual([]);
    fc.assert(
      fc.property(anyText, (text) => {
        const rest = ownSequencesOnly(text).replace(
          new RegExp(`[\\n\\t\\r]|${String.fromCharCode(27)}\\[\\??[0-9]*[mGKhl]`, 'g'),
          '',
        );
        expect(unsafe(rest)).toEqual([]);
      }),
    );
  });

  it('are escaped in tables, facts, headings, curves and log lines', () => {
    const drawn = [
      table([{ [FORGED]: FORGED, year: FORGED, list: [FORGED] }]),
      facts([[FORGED, FORGED]]),
      heading(FORGED),
      sparklines([[FORGED, [1, 2, 3]]]),
      cell({ a: FORGED }),
      toText(
        JSON.stringify({
          level: 'warn',
          time: '2026-01-01T00:00:00.000Z',
          name: FORGED,
          msg: FORGED,
          [FORGED]: FORGED,
          list: [FORGED],
        }),
      ),
      toText(
        JSON.stringify({ level: 'error', time: '2026-01-01T00:00:00.000Z', name: 'n', err: { code: FORGED, stack: FORGED } }),
      ),
      toText(`${FORGED}\n`),
    ];
    for (const text of drawn) {
      expect(text).toContain('forged');
      // Their own line breaks, and their own colours where there are any.
      expect(unsafe(text.replace(new RegExp(`\\n|${String.fromCharCode(27)}\\[\\d+m`, 'g'), '')), text).toEqual([]);
      expect(text.split('\n').some((line) => line.startsWith('19:00'))).toBe(false);
    }
  });
});
