/** The fields of a `multipart/form-data` body: how the client sends parameters that are too long for a URL. */

/** Name and text of every field, in order; file names and part headers other than the field's name are ignored. */
export function formFields(body: Buffer, boundary: string): [string, string][] {
  const fields: [string, string][] = [];
  const delimiter = Buffer.from(`--${boundary}`);
  let at = body.indexOf(delimiter);
  while (at >= 0) {
    const start = at + delimiter.byteLength + 2;
    const next = body.indexOf(delimiter, start);
    if (next < 0) break;
    const headEnd = body.indexOf('\r\n\r\n', start);
    const name = /name="([^"]*)"/.exec(body.subarray(start, headEnd).toString())?.[1];
    if (headEnd >= 0 && headEnd < next && name !== undefined)
      fields.push([name, body.subarray(headEnd + 4, next - 2).toString()]);
    at = next;
  }
  return fields;
}
