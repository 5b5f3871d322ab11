/** Reads YAML of the configuration: texts as they are written, and faults told by their place, never by what stands there. */
import { readFile, stat } from 'node:fs/promises';
import { type Document, isPair, isScalar, LineCounter, parseDocument, visit } from 'yaml';
import type { z } from 'zod';
import { messageOf, PipelineError } from '../schemas/errors.ts';
import { isText, settingAt } from '../schemas/settings.ts';

const MAX_FILE_BYTES = 1024 * 1024;
/** How many nodes an alias may stand for: a few settings written once, no bomb. */
const MAX_ALIASES = 100;

/** By `yaml`'s code. The library's own words quote the text, which may be a secret. */
const FAULTS: Readonly<Record<string, string>> = {
  BAD_ALIAS: 'an alias (*name) stands where none may: text that begins with * needs quotes',
  BAD_DQ_ESCAPE: 'a backslash in double quotes that begins no escape: use single quotes',
  BAD_INDENT: 'the indentation does not fit the lines above',
  BAD_SCALAR_START: 'text that begins with a special character needs quotes',
  BLOCK_AS_IMPLICIT_KEY: 'a second colon in one line: text that holds ": " needs quotes',
  DUPLICATE_KEY: 'the same key a second time',
  KEY_OVER_1024_CHARS: 'a key of more than 1024 characters: is a quote missing?',
  MISSING_CHAR: 'a quote, bracket or comma is missing before here',
  MULTILINE_IMPLICIT_KEY: 'a key over several lines: is a colon missing?',
  MULTIPLE_DOCS: 'a second document (---)',
  NON_STRING_KEY: 'a key that is no text',
  TAB_AS_INDENT: 'a tab where spaces must be',
  TAG_RESOLVE_FAILED: 'a tag (!name) that is not known: text that begins with ! needs quotes',
  UNEXPECTED_TOKEN: 'something that does not belong here',
};

/** @throws PipelineError `CONFIG_INVALID` when it cannot be read, is too large, no YAML or no mapping */
export async function readConfigFile(file: string, schema: z.ZodType): Promise<Record<string, unknown>> {
  let text: string;
  try {
    const { size } = await stat(file);
    if (size > MAX_FILE_BYTES) throw new Error(`it has ${size} bytes; allowed: ${MAX_FILE_BYTES}`);
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new PipelineError('CONFIG_INVALID', `cannot read the configuration ${file}: ${messageOf(cause)}`, { cause });
  }
  const tree = parseSettings(text, file, schema);
  if (typeof tree !== 'object' || tree === null || Array.isArray(tree))
    throw new PipelineError('CONFIG_INVALID', `${file} must hold a mapping of settings`);
  return tree as Record<string, unknown>;
}

/**
 * Where the schema wants text, a scalar is its text as written: `0123` is an application id, not a number.
 *
 * @param origin for the message
 * @throws PipelineError `CONFIG_INVALID` naming line and column, and quoting nothing
 */
export function parseSettings(text: string, origin: string, schema: z.ZodType | undefined): unknown {
  const lines = new LineCounter();
  const refuse = (what: string): PipelineError => new PipelineError('CONFIG_INVALID', `${origin} is not valid YAML: ${what}`);
  let document: Document;
  try {
    document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true });
  } catch {
    throw refuse('it nests too deep');
  }
  const [fault] = [...document.errors, ...document.warnings].sort((one, other) => one.pos[0] - other.pos[0]);
  if (fault !== undefined) {
    const { line, col } = lines.linePos(fault.pos[0]);
    throw refuse(`line ${line}, column ${col}: ${FAULTS[fault.code] ?? 'it cannot be read from here on'}`);
  }
  if (schema !== undefined) keepTexts(document, schema);
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    throw refuse(
      /^excessive alias/i.test(messageOf(error))
        ? `its aliases (*name) stand for more than ${MAX_ALIASES} times what is written: write the values out`
        : 'an alias (*name) without its anchor (&name) before it; text that begins with * needs quotes',
    );
  }
}

function keepTexts(document: Document, schema: z.ZodType): void {
  visit(document, {
    Scalar(key, node, ancestors) {
      if (key === 'key' || node.source === undefined || !['number', 'boolean'].includes(typeof node.value)) return;
      const path: string[] = [];
      const chain = [...ancestors, node];
      for (const [place, above] of ancestors.entries()) {
        const below = chain[place + 1];
        if (isPair(above)) path.push(isScalar(above.key) ? String(above.key.value) : '');
        else if ('items' in above && !isPair(below)) path.push(String((above.items as unknown[]).indexOf(below)));
      }
      const setting = settingAt(schema, path);
      if (setting !== undefined && isText(setting)) node.value = node.source;
    },
  });
}
