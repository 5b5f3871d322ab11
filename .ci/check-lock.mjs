// Every package that package-lock.json names has a digest, so that `npm ci` verifies whatever it installs.
import { readFileSync } from 'node:fs';

const { packages } = JSON.parse(readFileSync(process.argv[2] ?? 'package-lock.json', 'utf8'));
const entries = Object.entries(packages).filter(([path]) => path !== '');
const isDownload = (path) => /(^|\/)node_modules\//.test(path);
/** Of a link what it leads to: a folder of this repository is no download. */
const bare = entries.filter(
  ([path, { integrity = '', link, resolved = '' }]) => isDownload(link ? resolved : path) && !integrity.startsWith('sha512-'),
);
for (const [path, { version = '' }] of bare)
  console.error(`✗ ${path} ${version}: no sha512 digest; run node .ci/complete-lock.mjs`);
if (bare.length > 0) process.exit(1);
console.log(`✓ ${entries.length} packages in the lock, each with its digest`);
