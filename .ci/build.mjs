// Compiles to dist/ and puts the files that are read at run time beside the code that reads them. --unchecked: without looking at types.
import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, readdirSync, rmSync } from 'node:fs';

rmSync('dist', { recursive: true, force: true });
const unchecked = process.argv.includes('--unchecked') ? ['--noCheck'] : [];
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', ...unchecked], {
  stdio: 'inherit',
});
for (const folder of ['infra/clickhouse/migrations', 'infra/clickhouse/queries'])
  cpSync(folder, `dist/${folder}`, { recursive: true });
for (const file of readdirSync('schemas/avro').filter((name) => name.endsWith('.avsc')))
  cpSync(`schemas/avro/${file}`, `dist/schemas/avro/${file}`);
chmodSync('dist/streams/cli.js', 0o755);
