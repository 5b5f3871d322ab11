/** A text file line by line, of bounded length. */
import { readText } from './read-text.ts';

/**
 * Lines that are not empty, with their numbers from 1; `line` is undefined for one that is longer than `maxLength` characters, of
 * which no more is held.
 *
 * @throws PipelineError `SOURCE_UNREADABLE`
 */
export async function* readLines(
  path: string,
  maxLength: number,
): AsyncGenerator<{ readonly line: string | undefined; readonly number: number }> {
  let rest = '';
  let tooLong = false;
  let number = 0;
  const end = (tail: string) => {
    number += 1;
    const line = `${rest}${tail}`.replace(/\r$/, '');
    const whole = tooLong || line.length > maxLength ? undefined : line;
    rest = '';
    tooLong = false;
    return { line: whole, number };
  };
  for await (const text of readText(path)) {
    const parts = text.split('\n');
    const last = parts.pop()!;
    for (const part of parts) {
      const ended = end(part);
      if (ended.line === undefined || ended.line.trim() !== '') yield ended;
    }
    tooLong ||= rest.length + last.length > maxLength;
    rest = tooLong ? '' : rest + last;
  }
  const ended = end('');
  if (ended.line === undefined || ended.line.trim() !== '') yield ended;
}
