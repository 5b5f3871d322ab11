/** `npm run bench -- NAME [--json]`: figures of this machine, this commit. */

import { startProgress } from '../infra/console/progress.ts';
import { table } from '../infra/console/table.ts';
import { benchEncode } from './encode.ts';
import { commit, machine } from './measure.ts';

const names = ['encode'];
const [name = 'encode', ...flags] = process.argv.slice(2);
if (!names.includes(name) || flags.some((flag) => flag !== '--json')) {
  process.stderr.write(`usage: npm run bench -- ${names.join('|')} [--json]\n`);
  process.exit(2);
}
const progress = startProgress('encode', 12);
const encode = await benchEncode((done, _total, label) => progress.update(done, label));
progress.stop();
if (flags.includes('--json')) console.log(JSON.stringify({ machine: machine(), commit: commit(), encode }));
else console.log(table(encode.map((figure) => ({ ...figure }))));
