/**
 * Checks the bytes of a record against its writer's schema before anything is decoded from them.
 *
 * A decoder believes what it reads: nine bytes can promise an array of 2^50 items, which takes all memory, and an array of
 * null takes no bytes at all. The walk believes nothing: a record that it accepts costs time and memory in proportion to its
 * bytes, whoever decodes it then.
 */
import { isUtf8 } from 'node:buffer';
import type { Type, types } from 'avsc';
import type { Cursor } from './cursor.ts';

/** Steps over one value; false where the bytes are no such value, and the cursor then says why. */
export type Walk = (cursor: Cursor) => boolean;

/** Records inside records, at most. */
const MAX_DEPTH = 64;
/** Arrays and maps inside one another, records between them or not, at most. */
const MAX_NESTING = 512;
/** Texts up to here are looked at byte by byte, which is quicker than a call. */
const SHORT_TEXT_BYTES = 48;

/** Compiles the walk over a schema; recursive schemas are fine. */
export function compileWalk(type: Type): Walk {
  const known = new Map<Type, { walk: Walk }>();
  const minBytes = new Map<Type, number>();
  const compile = (inner: Type): Walk => {
    const entry = known.get(inner);
    // A type inside itself is found when it is walked, not before it exists.
    if (entry !== undefined) return (cursor) => entry.walk(cursor);
    const fresh = { walk: ((cursor) => cursor.fail('unreachable')) as Walk };
    known.set(inner, fresh);
    fresh.walk = walkOf(inner, compile, minBytes);
    return fresh.walk;
  };
  return compile(type);
}

function walkOf(type: Type, compile: (type: Type) => Walk, minBytes: Map<Type, number>): Walk {
  switch (type.typeName) {
    case 'null':
      return () => true;
    case 'boolean':
      return (cursor) => (cursor.pos < cursor.end && cursor.bytes[cursor.pos++]! <= 1) || cursor.fail('a boolean is 0 or 1');
    case 'int':
      return (cursor) => cursor.skipInt();
    case 'long':
      return (cursor) => cursor.skipLong();
    case 'float':
      return (cursor) => cursor.skip(4);
    case 'double':
      return (cursor) => cursor.skip(8);
    case 'fixed': {
      const { size } = type as types.FixedType;
      return (cursor) => cursor.skip(size);
    }
    case 'bytes':
      return (cursor) => cursor.skip(cursor.readLong());
    case 'string':
      return walkText;
    case 'enum': {
      const { length } = (type as types.EnumType).symbols;
      return (cursor) => {
        const index = cursor.readLong();
        return (index >= 0 && index < length) || cursor.fail(`an enum of ${length} symbols has none numbered ${index}`);
      };
    }
    case 'union:wrapped':
    case 'union:unwrapped': {
      const branches = (type as types.UnwrappedUnionType).types.map(compile);
      return (cursor) => {
        const branch = branches[cursor.readLong()];
        return branch === undefined ? cursor.fail(`a union of ${branches.length} has no such branch`) : branch(cursor);
      };
    }
    case 'array': {
      const { itemsType } = type as types.ArrayType;
      return walkBlocks(compile(itemsType), leastBytes(itemsType, minBytes), fixedBytes(itemsType));
    }
    case 'map': {
      const { valuesType } = type as { valuesType: Type } & Type;
      const value = compile(valuesType);
      const entry = (cursor: Cursor) => cursor.spendEntries(1) && walkText(cursor) && value(cursor);
      return walkBlocks(entry, 1 + leastBytes(valuesType, minBytes), undefined);
    }
    case 'record':
    case 'error':
      return walkFields(
        (type as types.RecordType).fields.map((field) => compile(field.type)),
        leastBytes(type, minBytes),
      );
    default:
      throw new Error(`${type.typeName} is no type of ours`);
  }
}

function walkText(cursor: Cursor): boolean {
  const start = cursor.pos;
  const length = cursor.readLong();
  const from = cursor.pos;
  if (!cursor.skip(length)) return false;
  const { bytes, pos } = cursor;
  if (length <= SHORT_TEXT_BYTES) {
    let at = from;
    while (at < pos && bytes[at]! < 0x80) at++;
    if (at === pos) return true;
  }
  return isUtf8(bytes.subarray(from, pos)) || cursor.fail(`text that is not UTF-8, at byte ${start}`);
}

function walkFields(fields: readonly Walk[], least: number): Walk {
  const count = fields.length;
  return (cursor) => {
    // A record without bytes is not bounded by its bytes.
    if (least === 0 && !cursor.spend(1)) return false;
    if (++cursor.depth > MAX_DEPTH) return cursor.fail(`records inside records, more than ${MAX_DEPTH} deep`);
    for (let field = 0; field < count; field++) if (!fields[field]!(cursor)) return false;
    cursor.depth--;
    return true;
  };
}

/** Blocks of items: a count each, negative when the block's size in bytes follows; a count of zero ends them. */
function walkBlocks(item: Walk, least: number, fixed: number | undefined): Walk {
  return (cursor) => {
    if (++cursor.nesting > MAX_NESTING) return cursor.fail(`arrays inside arrays, more than ${MAX_NESTING} deep`);
    for (;;) {
      let count = cursor.readLong();
      if (count === 0) {
        cursor.nesting--;
        return true;
      }
      let blockEnd = -1;
      if (count < 0) {
        count = -count;
        const size = cursor.readLong();
        blockEnd = cursor.pos + size;
        if (!(size >= 0 && blockEnd <= cursor.end)) return cursor.fail('a block larger than the record');
      }
      // The count comes first, its items after: no count is believed that the bytes left cannot hold. NaN fails here too.
      if (!(count * least <= cursor.end - cursor.pos)) return cursor.fail('more items than there are bytes for');
      if (least === 0 && !cursor.spend(count)) return false;
      if (fixed !== undefined) cursor.pos += count * fixed;
      else for (let n = 0; n < count; n++) if (!item(cursor)) return false;
      // Readers step over a block by its size where they do not need it: it must lead where its items do.
      if (blockEnd >= 0 && cursor.pos !== blockEnd) return cursor.fail('a block whose size is not that of its items');
    }
  };
}

/** Bytes of a type whose values need no look and all take as many. */
function fixedBytes(type: Type): number | undefined {
  if (type.typeName === 'float') return 4;
  if (type.typeName === 'double') return 8;
  if (type.typeName === 'fixed') return (type as types.FixedType).size;
  return type.typeName === 'null' ? 0 : undefined;
}

/** No value of the type takes fewer bytes than this. */
function leastBytes(type: Type, known: Map<Type, number>): number {
  const before = known.get(type);
  if (before !== undefined) return before;
  // What a type inside itself counts while it is counted.
  known.set(type, 0);
  const least = count();
  known.set(type, least);
  return least;

  function count(): number {
    const fixed = fixedBytes(type);
    if (fixed !== undefined) return fixed;
    if (type.typeName === 'record' || type.typeName === 'error')
      return (type as types.RecordType).fields.reduce((sum, field) => sum + leastBytes(field.type, known), 0);
    if (type.typeName.startsWith('union'))
      return 1 + Math.min(...(type as types.UnwrappedUnionType).types.map((branch) => leastBytes(branch, known)));
    return 1;
  }
}
