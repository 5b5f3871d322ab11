// Completes package-lock.json after `npm install`. npm leaves out of the lock every optional platform package that the
// registry in use does not serve (a partial mirror), and `npm ci` then refuses the lock. Their versions are pinned by
// the package that wants them, so the entry can be written without the registry: name, version, platform.
import { readFileSync, writeFileSync } from 'node:fs';

const OS = ['android', 'darwin', 'linux', 'win32', 'freebsd', 'openbsd', 'netbsd', 'openharmony', 'sunos', 'aix'];
const CPU = ['arm64', 'x64', 'ia32', 'arm', 'ppc64', 'riscv64', 's390x', 'loong64', 'mips64el', 'wasm32'];

/** Platform fields as far as the package's name tells: `cli-linux-x64-musl` → linux, x64, musl. */
function platformOf(name) {
  const words = name.replace(/^@[^/]+\//, '').split(/[-/]/);
  const os = words.filter((word) => OS.includes(word));
  const cpu = words.filter((word) => CPU.includes(word));
  const libc = words.some((w) => w.startsWith('musl'))
    ? ['musl']
    : words.some((w) => w === 'gnu' || w.startsWith('gnueabi'))
      ? ['glibc']
      : [];
  return { ...(cpu.length && { cpu }), ...(libc.length && os.includes('linux') && { libc }), ...(os.length && { os }) };
}

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
let added = 0;
for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (path === '' || lock.packages[`node_modules/${name}`] || lock.packages[`${path}/node_modules/${name}`]) continue;
    const platform = platformOf(name);
    if (platform.os === undefined && platform.cpu === undefined)
      throw new Error(`${name}@${version}: not a platform package; install it from a full registry`);
    lock.packages[`node_modules/${name}`] = { version, ...(entry.dev && { dev: true }), optional: true, ...platform };
    added += 1;
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync('package-lock.json', `${JSON.stringify(lock, null, 2)}\n`);
console.log(`package-lock.json: ${added} platform packages added`);
