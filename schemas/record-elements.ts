/** Several actions of one record: each element of a list is one, seen in the place of its list. */
import type { PositionedAction, SourcePosition } from './action.ts';
import { type DecodeResult, type InvalidValue, refuse } from './decoded.ts';
import type { KindMapping } from './mapping-config.ts';
import { compilePath, compileTemplate, Fault, missing, type Row, shown } from './record-fields.ts';
import { isRow } from './record-row.ts';

/** Elements of one record, at most. */
const MAX_ELEMENTS = 10_000;

const NONE: DecodeResult = { ok: true, actions: [], ignored: true };

export interface Elements {
  readonly each: string;
  /** Of a row the list; a fault where it is none. */
  readonly list: (row: Row) => readonly unknown[] | Fault;
  /** The row as one element sees it: in the place of the list the element. */
  readonly rowFor: (row: Row, element: unknown) => Row;
  /** Whether an element's event id says which element it is. */
  readonly named: boolean;
}

export function compileElements(each: string, { eventId }: KindMapping): Elements {
  const read = compilePath(each);
  const steps = each.split('.');
  const paths = new Set<string>();
  if (eventId !== undefined) compileTemplate('eventId', eventId, paths);
  return {
    each,
    list: (row) => {
      const found = read(row);
      if (found === undefined || found === null) return missing(each);
      if (!Array.isArray(found)) return new Fault('FIELD_INVALID', `field '${each}' must be a list, found ${shown(found)}`);
      if (found.length > MAX_ELEMENTS)
        return new Fault('FIELD_INVALID', `field '${each}' has ${found.length} elements; ${MAX_ELEMENTS} are allowed`);
      return found as unknown[];
    },
    rowFor: (row, element) =>
      Object.hasOwn(row, each) ? { ...row, ...inPlace(row, steps, element), [each]: element } : inPlace(row, steps, element),
    named: [...paths].some((path) => path === each || path.startsWith(`${each}.`)),
  };
}

function inPlace(row: Row, [step, ...rest]: readonly string[], element: unknown): Row {
  if (rest.length === 0) return { ...row, [step!]: element };
  const inner = Object.hasOwn(row, step!) ? row[step!] : {};
  return { ...row, [step!]: inPlace(isRow(inner) ? inner : {}, rest, element) };
}

export function decodeElements(
  { each, list, rowFor, named }: Elements,
  row: Row,
  position: SourcePosition,
  actionOf: (row: Row, position: SourcePosition) => PositionedAction | Fault,
  invalid: () => readonly InvalidValue[] | undefined,
): DecodeResult {
  const found = list(row);
  if (found instanceof Fault) return refuse(found);
  if (found.length === 0) return NONE;
  const actions: PositionedAction[] = [];
  const faults: Fault[] = [];
  for (const [part, element] of found.entries()) {
    const action = actionOf(rowFor(row, element), position);
    if (action instanceof Fault) faults.push(new Fault(action.code, `${each}[${part}]: ${action.message}`));
    else actions.push({ ...action, part, ...(!named && { eventId: `${action.eventId}/${part}` }) });
  }
  const [first] = faults;
  const more = faults.length > 1 ? ` (and ${faults.length - 1} more of ${found.length} elements)` : '';
  const partly = first && { code: first.code, message: `${first.message}${more}` };
  if (actions.length === 0) return { ok: false, ...partly! };
  const values = invalid();
  return { ok: true, actions, ...(partly !== undefined && { partly }), ...(values !== undefined && { invalid: values }) };
}
