/**
 * Looks at an LMDB data file before LMDB does. LMDB maps the file into memory and trusts it: a page that lies outside the
 * file, or says that its contents do, would end the process. Layout: `mdb.c` of LMDB 1.0, as the `lmdb` package builds it.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync } from 'node:fs';

const PAGE_HEADER_BYTES = 24;
const MAGIC = 0xbeefc0de;
const NO_PAGE = 0xffffffffffffffffn;
/** Offsets in a page. */
const AT = {
  pageNumber: 0,
  flags: 18,
  lower: 20,
  upper: 22,
  magic: 24,
  pageSize: 48,
  mainTree: 96,
  lastPage: 144,
  transaction: 152,
};
const FREE_TREE = 48;
/** Offsets in a tree's description. */
const TREE = { depth: 6, root: 40 };
const NODE_HEADER_BYTES = 8;
const BRANCH = 0x01;
const LEAF = 0x02;
/** The value is on pages of its own, whose number is in its place. */
const BIG_VALUE = 0x01;
const MAX_DEPTH = 32;

/**
 * Walks all pages of the trees: some 300 ms for 100,000 pages that are in the system's cache.
 *
 * @returns what is wrong, undefined if nothing was found. Values are not looked at: records carry their own checksums.
 */
export function checkDataFile(path: string): string | undefined {
  const file = openSync(path, 'r+');
  try {
    const { size } = fstatSync(file);
    const meta = newestMeta(file, size);
    if (typeof meta === 'string') return meta;
    const { pageSize, lastPage } = meta;
    const needed = (lastPage + 1) * pageSize;
    const pages = Math.floor(size / pageSize);
    const problem =
      walk(file, meta.bytes.subarray(FREE_TREE), pageSize, pages) ??
      walk(file, meta.bytes.subarray(AT.mainTree), pageSize, pages);
    if (problem !== undefined) return problem;
    // Pages that were freed before they were ever written may be missing at the end.
    if (size < needed) ftruncateSync(file, needed);
    return undefined;
  } finally {
    closeSync(file);
  }
}

interface Meta {
  readonly bytes: Buffer;
  readonly pageSize: number;
  readonly lastPage: number;
}

/** There are two, written in turn. */
function newestMeta(file: number, size: number): Meta | string {
  const bytes = Buffer.alloc(256);
  if (readSync(file, bytes, 0, bytes.length, 0) < bytes.length) return `the data file has ${size} bytes: too few`;
  const pageSize = bytes.readUInt32LE(AT.pageSize);
  if (bytes.readUInt32LE(AT.magic) !== MAGIC || pageSize < 512 || pageSize > 65_536 || (pageSize & (pageSize - 1)) !== 0)
    return 'the data file does not begin as one';
  const other = Buffer.alloc(256);
  if (readSync(file, other, 0, other.length, pageSize) < other.length) return `the data file has ${size} bytes: too few`;
  if (other.readUInt32LE(AT.magic) !== MAGIC || other.readUInt32LE(AT.pageSize) !== pageSize)
    return 'the two descriptions in the data file disagree';
  const newest = other.readBigUInt64LE(AT.transaction) > bytes.readBigUInt64LE(AT.transaction) ? other : bytes;
  const lastPage = newest.readBigUInt64LE(AT.lastPage);
  if (lastPage < 1n || lastPage > 2n ** 40n) return 'the data file does not say how many pages it has';
  return { bytes: newest, pageSize, lastPage: Number(lastPage) };
}

function walk(file: number, tree: Buffer, pageSize: number, pages: number): string | undefined {
  const root = tree.readBigUInt64LE(TREE.root);
  if (root === NO_PAGE) return undefined;
  const depth = tree.readUInt16LE(TREE.depth);
  if (depth < 1 || depth > MAX_DEPTH) return `the data file has a tree of depth ${depth}`;
  const levels = Array.from({ length: depth }, () => Buffer.alloc(pageSize));
  let visited = 0;

  const visit = (page: number, level: number): string | undefined => {
    // More than there are: the tree bites its tail.
    if (page < 2 || page >= pages || ++visited > pages) return `the data file refers to page ${page} of ${pages}`;
    const bytes = levels[level]!;
    readSync(file, bytes, 0, pageSize, page * pageSize);
    const isLeaf = level === depth - 1;
    const wrong = `page ${page} of the data file is not as it was written`;
    if (bytes.readBigUInt64LE(AT.pageNumber) !== BigInt(page)) return wrong;
    if ((bytes.readUInt16LE(AT.flags) & (BRANCH | LEAF)) !== (isLeaf ? LEAF : BRANCH)) return wrong;
    const room = pageSize - PAGE_HEADER_BYTES;
    const lower = bytes.readUInt16LE(AT.lower);
    const upper = bytes.readUInt16LE(AT.upper);
    if (lower % 2 !== 0 || lower < 2 || lower > upper || upper > room) return wrong;
    for (let i = 0; i < lower / 2; i++) {
      const offset = bytes.readUInt16LE(PAGE_HEADER_BYTES + 2 * i);
      if (offset < upper || offset + NODE_HEADER_BYTES > room) return wrong;
      const at = PAGE_HEADER_BYTES + offset;
      const low = bytes.readUInt32LE(at);
      const flags = bytes.readUInt16LE(at + 4);
      const valueAt = at + NODE_HEADER_BYTES + bytes.readUInt16LE(at + 6);
      if (!isLeaf) {
        if (valueAt > pageSize) return wrong;
        const problem = visit(low + flags * 2 ** 32, level + 1);
        if (problem !== undefined) return problem;
      } else if ((flags & BIG_VALUE) === 0) {
        if (flags !== 0 || valueAt + low > pageSize) return wrong;
      } else {
        if (valueAt + 8 > pageSize) return wrong;
        const first = bytes.readBigUInt64LE(valueAt);
        if (first < 2n || Number(first) + Math.ceil((PAGE_HEADER_BYTES + low) / pageSize) > pages) return wrong;
      }
    }
    return undefined;
  };
  return visit(Number(root), 0);
}
