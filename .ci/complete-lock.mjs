// Completes package-lock.json after `npm install`: npm leaves the packages of other platforms out, or without digests, where it has not
// fetched them. Each is asked of the registry, and written with its digest, so that `npm ci` verifies it wherever it is installed.
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';

const FIELDS = ['name', 'version', 'dist.integrity', 'os', 'cpu', 'libc', 'license', 'engines'];
const run = promisify(execFile);

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
const wanted = new Map();
for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(path === '' ? {} : (entry.optionalDependencies ?? {}))) {
    const place = [`${path}/node_modules/${name}`, `node_modules/${name}`].find((at) => lock.packages[at] !== undefined);
    const found = lock.packages[place];
    if (found?.integrity === undefined && !found?.link)
      wanted.set(place ?? `node_modules/${name}`, { name, version, dev: entry.dev });
  }
}
await Promise.all(
  [...wanted].map(async ([place, { name, version, dev }]) => (lock.packages[place] = await entryOf(name, version, dev))),
);
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync('package-lock.json', `${JSON.stringify(lock, null, 2)}\n`);
console.log(`package-lock.json: ${wanted.size} platform packages completed`);

/** What npm itself would write. */
async function entryOf(name, version, dev) {
  const { stdout } = await run('npm', ['view', `${name}@${version}`, ...FIELDS, '--json']).catch(() => {
    throw new Error(
      `${name}@${version}: this registry has no digest of it. Use one that serves it, or name it under "overrides" in package.json as file:../../.ci/not-served, so that it is not installed at all`,
    );
  });
  const { 'dist.integrity': integrity, os, cpu, libc, license, engines, version: exact } = JSON.parse(stdout);
  if (integrity === undefined || (os === undefined && cpu === undefined))
    throw new Error(`${name}@${version}: not a platform package with a digest; install it by npm itself`);
  const many = (value) => (value === undefined || Array.isArray(value) ? value : [value]);
  return JSON.parse(
    JSON.stringify({
      version: exact,
      integrity,
      cpu: many(cpu),
      ...(dev && { dev: true }),
      libc: many(libc),
      license,
      optional: true,
      os: many(os),
      engines,
    }),
  );
}
