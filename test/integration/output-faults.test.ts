/** Output that is an input, that nobody reads, or that has no room: of every command that prints. */
import { spawnSync } from 'node:child_process';
import { cpSync, linkSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compiledCli } from '../support/compiled-cli.ts';

const BUNDLE = fileURLToPath(new URL('../../examples/movielens/bundle', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'hstu-output-faults-'));
const config = join(folder, 'c.yaml');
const users = join(folder, 'users.jsonl');
const line = (user: string) =>
  JSON.stringify({
    userId: user,
    events: [{ entity: 'movie:1', eventTimeMs: 964_982_703_000, action: 'rating', value: 4 }],
    topK: 2,
  });

beforeAll(() => {
  writeFileSync(join(folder, 'in.csv'), 'user,item,rating,ts\nu1,1,4,964982703\n');
  writeFileSync(users, `${line('u1')}\n${line('u2')}\n`);
  writeFileSync(
    config,
    `bundle: ${BUNDLE}
source: { files: [{ path: in.csv, format: csv, mapping: { userId: "{user}", action: rating, entity: "movie:{item}", value: rating, eventTime: { field: ts, unit: s } } }] }
clickhouse: { path: ch }
state: { path: state }
backfill: { to: jsonl, path: runs }
`,
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** In a shell, so that the streams are what a user's are. */
const shell = (command: string) =>
  spawnSync('bash', ['-o', 'pipefail', '-c', command], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, NO_COLOR: '1', CLI: `${process.execPath} ${compiledCli()}` },
  });
const encode = `$CLI encode --bundle ${BUNDLE} --input users.jsonl`;

/** What prints without a broker, and its own exit code; `replay` first, so that there is something to ask about. */
const PRINTING = [
  ['replay -c c.yaml', 0],
  ['query disposition-counts -c c.yaml --format csv', 0],
  ['doctor -c c.yaml', 0],
  [`model inspect ${BUNDLE} --json`, 0],
  ['status --name none-of-this-name', 1],
  ['--help', 0],
] as const;

describe('standard output', () => {
  it.each(PRINTING)(
    'that nobody reads ends %s by its own result, and without room it is exit code 1 and one line',
    { timeout: 60_000 },
    (args, code) => {
      const left = shell(`$CLI ${args} | true; exit \${PIPESTATUS[0]}`);
      expect({ status: left.status, fault: /EPIPE|at .*:\d+|cannot write/.exec(left.stderr) }).toEqual({
        status: code,
        fault: null,
      });
      const { status, stderr } = shell(`$CLI ${args} > /dev/full`);
      const own = stderr.split('\n').filter((text) => !/^(replaying|restoring)/.test(text));
      expect({ status, own }).toEqual({
        status: 1,
        own: ['cannot write to standard output: no space is left on its device', ''],
      });
    },
  );

  it('that takes the first part only is a fault too', () => {
    const { status, stderr } = shell(`ulimit -f 1; $CLI explain -c c.yaml > part.txt`);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'cannot write to standard output: the file would be larger than is allowed\n',
    });
  });

  it('holds bytes as they are when they are data, and no control characters when they are text', () => {
    cpSync(BUNDLE, join(folder, 'hostile'), { recursive: true });
    const file = join(folder, 'hostile/config.json');
    const name = 'good\u001b[2J\u001b[31mPWNED\nERROR forged\u009b\u202e';
    writeFileSync(file, readFileSync(file, 'utf8').replace(/"name": "[^"]*"/, `"name": ${JSON.stringify(name)}`));
    expect(shell('$CLI model inspect hostile').stdout).toContain('good\\u001b[2J\\u001b[31mPWNED\\nERROR forged\\u009b\\u202e');
    const { stdout } = shell('$CLI model inspect hostile --json');
    expect(stdout).toContain(JSON.stringify(name));
    expect(shell(`$CLI explain -c $'no\\x1b[2J\\nERROR forged'`).stderr).toMatch(
      /^CONFIG_INVALID .*no\\u001b\[2J\n {2}ERROR forged/,
    );
  });
});

describe('standard error that nobody reads, or that is full', () => {
  it('ends nothing', { timeout: 60_000 }, () => {
    expect(shell('$CLI replay -c c.yaml 2>/dev/full').status).toBe(0);
    expect(shell(`{ $CLI replay -c c.yaml 2>&1 1>&3 | true; exit \${PIPESTATUS[0]}; } 3>/dev/null`).status).toBe(0);
    expect(shell('$CLI explain -c none.yaml 2>/dev/full').status).toBe(2);
  });
});

it('a limit of open files that is too low is told in words, before anything begins', () => {
  const { status, stderr } = shell('ulimit -n 64; $CLI explain -c c.yaml');
  expect({ status, stderr }).toEqual({
    status: 2,
    stderr:
      'CONFIG_INVALID 64 open files are allowed (ulimit -n), at least 160 are needed: raise it, for instance by ulimit -n 1024\n',
  });
});

describe('an output', () => {
  it('that is the input is refused with 2, and the input stays', () => {
    symlinkSync('users.jsonl', join(folder, 'symbolic.jsonl'));
    linkSync(users, join(folder, 'hard.jsonl'));
    const before = readFileSync(users, 'utf8');
    for (const [command, output] of [
      ['encode', 'users.jsonl'],
      ['encode', 'symbolic.jsonl'],
      ['score', 'hard.jsonl'],
    ] as const) {
      const { status, stderr } = shell(`$CLI ${command} --bundle ${BUNDLE} --input users.jsonl --output ${output}`);
      expect({ status, stderr }).toEqual({
        status: 2,
        stderr: expect.stringContaining(`the output ${output} is the input users.jsonl`),
      });
    }
    cpSync(BUNDLE, join(folder, 'own'), { recursive: true });
    for (const args of [
      'model add-content --bundle own --content users.jsonl --out own',
      'model import research --weights own/model.safetensors --config users.jsonl --out own',
    ])
      expect(shell(`$CLI ${args}`)).toMatchObject({ status: 2, stderr: expect.stringContaining('which would be lost') });
    expect(readFileSync(users, 'utf8')).toBe(before);
  }, 60_000);

  it('may be standard output: whole, cut off by its reader, or without room', () => {
    const whole = shell(`${encode} --output -`);
    expect(whole).toMatchObject({ status: 0 });
    expect(
      whole.stdout
        .trim()
        .split('\n')
        .map((text) => JSON.parse(text).userId),
    ).toEqual(['u1', 'u2']);
    {
      const output = '/dev/stdout';
      expect(shell(`${encode} --output ${output} > to.jsonl; cat to.jsonl`).stdout).toBe(whole.stdout);
      const left = shell(`${encode} --output ${output} | true; exit \${PIPESTATUS[0]}`);
      expect({ status: left.status, fault: /EPIPE|CONFIG_INVALID|STORE_FAILED/.exec(left.stderr) }).toEqual({
        status: 0,
        fault: null,
      });
      const full = shell(`${encode} --output ${output} > /dev/full`);
      expect(full.status).toBe(1);
      expect(full.stderr.match(/cannot write/g)).toHaveLength(1);
    }
  }, 60_000);

  it('that was there stays when the work is stopped half-way', () => {
    writeFileSync(join(folder, 'many.jsonl'), `${Array.from({ length: 20_000 }, (_, i) => line(`u${i}`)).join('\n')}\n`);
    writeFileSync(join(folder, 'kept.jsonl'), 'before\n');
    const { status } = shell(
      `exec 2> said.txt; $CLI encode --bundle ${BUNDLE} --input many.jsonl --output kept.jsonl & child=$!
       until ls kept.jsonl.*.partial > /dev/null 2>&1; do sleep .05; done; kill -INT $child; wait $child`,
    );
    expect(status).toBe(130);
    expect(readFileSync(join(folder, 'kept.jsonl'), 'utf8')).toBe('before\n');
    expect(readdirSync(folder).filter((name) => name.includes('partial'))).toEqual([]);
  }, 60_000);
});
