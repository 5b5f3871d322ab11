/** JSON of files and registries that others wrote, of bounded depth: what reads or writes nested values would run out of stack. */

/** Objects and arrays inside one another, at most. */
export const MAX_JSON_DEPTH = 256;

/** @throws SyntaxError for what is no JSON, RangeError beyond `MAX_JSON_DEPTH` */
export function parseBoundedJson(text: string): unknown {
  const depth = depthOf(text);
  if (depth > MAX_JSON_DEPTH) throw new RangeError(`nested more than ${MAX_JSON_DEPTH} deep`);
  return JSON.parse(text);
}

/** Looks at brackets outside strings only, and no deeper than matters. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (let at = 0; at < text.length && deepest <= MAX_JSON_DEPTH; at++) {
    const char = text.charCodeAt(at);
    if (char === 0x22) at = endOfString(text, at);
    else if (char === 0x7b || char === 0x5b) deepest = Math.max(deepest, ++depth);
    else if (char === 0x7d || char === 0x5d) depth -= 1;
  }
  return deepest;
}

function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === 0x5c) at += 1;
    else if (char === 0x22) return at;
  }
  return text.length;
}
