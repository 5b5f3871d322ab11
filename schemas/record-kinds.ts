/** Which entry of a mapping takes a record. */
import type { Condition, MappingEntry } from './mapping-config.ts';
import { compilePath, type Row, shown } from './record-fields.ts';

export function compileCondition(condition: Condition): (row: Row) => boolean {
  const tests = Object.entries(condition).map(([path, wanted]) => ({
    read: compilePath(path),
    values: new Set((Array.isArray(wanted) ? wanted : [wanted]).map(String)),
  }));
  return (row) =>
    tests.every(({ read, values }) => {
      const found = read(row);
      return found !== undefined && found !== null && typeof found !== 'object' && values.has(String(found));
    });
}

export function unmapped(entries: readonly MappingEntry[], row: Row): string {
  const paths = [...new Set(entries.flatMap(({ when = {} }) => Object.keys(when)))];
  const found = paths.map(
    (path) => `${path} is ${compilePath(path)(row) === undefined ? 'missing' : shown(compilePath(path)(row))}`,
  );
  const of = (list: readonly MappingEntry[]) =>
    list
      .map(({ when = {} }) =>
        Object.entries(when)
          .map(([path, wanted]) => `${path} ${Array.isArray(wanted) ? wanted.join(' | ') : wanted}`)
          .join(' and '),
      )
      .join('; ');
  const ignored = entries.filter(({ mapping }) => mapping === undefined);
  const mapped = entries.filter(({ mapping }) => mapping !== undefined);
  return `no entry of the mapping takes it: ${found.join(', ')}; mapped: ${of(mapped)}${ignored.length === 0 ? '' : `; ignored: ${of(ignored)}`}`;
}
