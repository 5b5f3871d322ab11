/** Parameters of named queries, from text as a command line gives it: of the type that the query names, or a fault in words. */

/** The value; or what is wrong with it, to follow the name of the parameter. */
export type Bound = { readonly value: unknown } | { readonly problem: string };

/** @param text as given, `a,b` or JSON for arrays */
export function boundValue(text: string, type: string): Bound {
  const element = /^Array\((.+)\)$/.exec(type)?.[1];
  if (element !== undefined) return boundArray(text, type, element);
  const choices = /^Enum\w*\((.+)\)$/.exec(type)?.[1];
  if (choices !== undefined) {
    const allowed = [...choices.matchAll(/'([^']*)'/g)].map(([, choice]) => choice!);
    return allowed.includes(text) ? { value: text } : wrong(`one of ${allowed.join(', ')}`, text);
  }
  const integer = /^(U?)Int(\d+)$/.exec(type);
  if (integer !== null) return boundInteger(text, integer[1] === 'U', Number(integer[2]));
  if (/^Float/.test(type)) {
    const value = Number(text);
    return text.trim() !== '' && Number.isFinite(value) ? { value } : wrong('a number', text);
  }
  return { value: text };
}

function boundInteger(text: string, unsigned: boolean, bits: number): Bound {
  const least = unsigned ? 0 : -(2 ** (bits - 1));
  // Numbers beyond 2^53 do not come as they were written.
  const most = Math.min(Number.MAX_SAFE_INTEGER, 2 ** (unsigned ? bits : bits - 1) - 1);
  const value = Number(text);
  const fits = /^\s*[+-]?\d+\s*$/.test(text) && value >= least && value <= most;
  return fits ? { value } : wrong(`a whole number from ${Math.max(least, Number.MIN_SAFE_INTEGER)} to ${most}`, text);
}

function boundArray(text: string, type: string, element: string): Bound {
  let items: unknown;
  try {
    items = text.trim().startsWith('[') ? JSON.parse(text) : text === '' ? [] : text.split(',');
  } catch {
    return wrong(`a list: a,b or JSON (${type})`, text);
  }
  const values: unknown[] = [];
  for (const item of items as unknown[]) {
    const bound = boundValue(typeof item === 'string' ? item : JSON.stringify(item), element);
    if ('problem' in bound) return { problem: `${bound.problem} in the list` };
    values.push(bound.value);
  }
  return { value: values };
}

const wrong = (wanted: string, found: string): Bound => ({ problem: `must be ${wanted} (found: ${JSON.stringify(found)})` });
