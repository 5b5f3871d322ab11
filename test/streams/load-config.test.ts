import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { type Config, configSchema, secretsOf } from '../../schemas/config.ts';
import { kindOf, settingsOf } from '../../schemas/settings.ts';
import { type ConfigSources, loadConfig } from '../../streams/load-config.ts';

const mapping = { userId: '{u}', action: 'a', entity: '{e}', eventTime: { field: 't', unit: 's' } };
const SECRETS = [
  's3cretSasl',
  's3cretKey',
  's3cretReg',
  's3cretRegUrl',
  's3cretCh',
  's3cretChUrl',
  's3cretSrc',
  '48151623',
  's3cretSrcUrl',
  's3cretClient',
];
const FULL = {
  bundle: 'bundle',
  catalogue: { file: 'catalogue.jsonl' },
  kafka: {
    brokers: ['127.0.0.1:9092'],
    sasl: { mechanism: 'plain', username: 'joe', password: SECRETS[0] },
    ssl: { caFile: 'ca.pem', certFile: 'cert.pem', keyFile: 'key.pem', keyPassphrase: SECRETS[1] },
    schemaRegistry: { url: `http://joe:${SECRETS[3]}@127.0.0.1:1/x`, username: 'joe', password: SECRETS[2] },
  },
  clickhouse: { url: `http://joe:${SECRETS[5]}@127.0.0.1:1`, path: 'ch', username: 'joe', password: SECRETS[4] },
  source: {
    files: [{ path: 'in.csv', format: 'csv', mapping }],
    clickhouse: [
      { name: 't', table: 'x', path: 'engine', username: 'joe', password: SECRETS[6], mapping },
      { name: 'u', table: 'x', url: `http://joe:${SECRETS[8]}@127.0.0.1:1`, password: SECRETS[7], mapping },
    ],
  },
  state: { path: 'state' },
  backfill: { path: 'runs' },
  encoder: { disk: { path: 'kv' } },
  model: { tokenFile: 'token', allowedFolder: 'bundles' },
};

const clientCredentials = { tokenUrl: 'https://idp.example/t', clientId: 'joe', clientSecret: SECRETS[9] };
const WITH_TOKEN = { ...FULL, kafka: { ...FULL.kafka, sasl: { mechanism: 'oauthbearer', clientCredentials } } };

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hstu-config-'));
});
afterAll(() => rm(folder, { recursive: true }));

let files = 0;
async function load(text: string, more: Omit<ConfigSources, 'file'> = {}): Promise<Config> {
  const file = join(folder, `${files++ % 50}.yaml`);
  await writeFile(file, text);
  return loadConfig({ file, ...more });
}

/** What is said, also by the causes; '' where it loads. */
async function said(loading: Promise<unknown>): Promise<string> {
  try {
    await loading;
    return '';
  } catch (error) {
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
    const { message, cause } = error as Error;
    return `${message} ${cause instanceof Error ? `${cause.message} ${cause.stack}` : ''}`;
  }
}

const SIGNS = [...'aeZ0_-.:#"\'{}[]&*!?|>%@, '];
const edit = fc.oneof(
  fc.record({ kind: fc.constant('delete'), at: fc.nat(), sign: fc.constant('') }),
  fc.record({ kind: fc.constant('swap'), at: fc.nat(), sign: fc.constant('') }),
  fc.record({ kind: fc.constantFrom('insert', 'replace'), at: fc.nat(), sign: fc.constantFrom(...SIGNS) }),
);
type Edit = typeof edit extends fc.Arbitrary<infer T> ? T : never;

function mistype(key: string, { kind, at: any, sign }: Edit): string {
  const at = any % key.length;
  if (kind === 'insert') return key.slice(0, at) + sign + key.slice(at);
  if (kind === 'replace') return key.slice(0, at) + sign + key.slice(at + 1);
  if (kind === 'delete') return key.slice(0, at) + key.slice(at + 1);
  return key.slice(0, at) + (key[at + 1] ?? '') + key[at]! + key.slice(at + 2);
}

const pathsOf = (value: unknown, path: string[] = []): [string[], string][] =>
  typeof value === 'object' && value !== null
    ? Object.entries(value).flatMap(([key, item]) => pathsOf(item, [...path, key]))
    : [[path, String(value)]];

const expectNoSecret = (message: string): void => {
  for (const secret of SECRETS) expect(message).not.toContain(secret);
};

describe('no configuration error tells a secret', () => {
  it.each([
    ['block', stringify(FULL)],
    ['flow', stringify(FULL, { collectionStyle: 'flow', lineWidth: 0 })],
    ['block, with client credentials,', stringify(WITH_TOKEN)],
  ])('for any one-letter typo in any key of a file in %s style', async (_, text) => {
    const keys = [...text.matchAll(/[A-Za-z]+(?=: )|[A-Za-z]+(?=:\n)/g)];
    await fc.assert(
      fc.asyncProperty(fc.nat(keys.length - 1), edit, async (which, typo) => {
        const { 0: key, index } = keys[which]!;
        expectNoSecret(await said(load(text.slice(0, index) + mistype(key, typo) + text.slice(index + key.length))));
      }),
      { numRuns: 500 },
    );
  });

  it('for any one-letter typo in a variable or in --set', async () => {
    const settings = pathsOf(FULL).filter(([path]) => path[0] !== 'bundle');
    await fc.assert(
      fc.asyncProperty(fc.nat(settings.length - 1), edit, fc.boolean(), async (which, typo, byVariable) => {
        const [path, value] = settings[which]!;
        const variable = path.map((key) => key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()).join('__');
        const more = byVariable
          ? { environment: { [`HSTU_${mistype(variable, typo)}`]: value } }
          : { assignments: [`${mistype(path.join('.'), typo)}=${value}`] };
        expectNoSecret(await said(load(stringify(FULL), more)));
      }),
      { numRuns: 500 },
    );
    expectNoSecret(await said(load('bundle: b', { assignments: ['kafka.sasl.passwords3cretSasl'] })));
  });

  it('for a secret of the wrong shape', async () => {
    for (const text of [stringify(FULL), stringify(WITH_TOKEN)])
      for (const secret of SECRETS)
        for (const wrong of [
          `[${secret}]`,
          `{${secret}}`,
          `*${secret}`,
          `!${secret}`,
          `"${secret}`,
          `x: ${secret}`,
          `%${secret}`,
        ])
          expectNoSecret(await said(load(text.replaceAll(secret, wrong))));
  });

  it('knows all of them, so that the log masks them', async () => {
    const known = [...secretsOf(await load(stringify(FULL))), ...secretsOf(await load(stringify(WITH_TOKEN)))];
    expect([...new Set(known)].sort()).toEqual([...SECRETS].sort());
  });
});

describe('a key that is not known', () => {
  it('is told with the nearest known one, and without its value', async () => {
    const message = await said(load('bundle: b\nclickhouse: { pasword: hunter2 }'));
    expect(message).toContain('clickhouse: no such key: pasword (did you mean password?)');
  });

  it.each([
    ['HSTU_ENCODR__WORKERS', 'HSTU_ENCODR__WORKERS: no such setting (did you mean HSTU_ENCODER__WORKERS?)'],
    ['HSTU_KAFKA__SASL__PASWORD', 'HSTU_KAFKA__SASL__PASWORD: no such setting (did you mean HSTU_KAFKA__SASL__PASSWORD?)'],
  ])('as a variable is named as the variable: %s', async (name, expected) => {
    const message = await said(load('bundle: b', { environment: { [name]: 'hunter2' } }));
    expect(message).toContain(expected);
    expect(message).not.toContain('hunter2');
    expect(message).not.toContain('.yaml');
  });

  it('whose variable has a wrong value: the variable is named', async () => {
    const message = await said(load('bundle: b', { environment: { HSTU_ENCODER__WORKERS: 'many' } }));
    expect(message).toContain('encoder.workers (by HSTU_ENCODER__WORKERS)');
    expect(message).toContain('(found: "many")');
  });

  it.each(['__proto__.x', 'constructor.prototype.x', 'kafka.__proto__.x', 'source.files.prototype'])(
    'or reaches what all objects share is refused: %s',
    async (path) => {
      const message = await said(load('bundle: b\nsource: { files: [] }', { assignments: [`${path}=1`] }));
      expect(message).toMatch(/--set \S+: (__proto__|constructor|prototype) is no key of a setting/);
      expect(({} as { x?: unknown }).x).toBeUndefined();
    },
  );

  it.each(['HSTU___PROTO____X', 'HSTU_CONSTRUCTOR__X', 'HSTU_PROTOTYPE'])('nor by a variable: %s', async (name) => {
    expect(await said(load('bundle: b', { environment: { [name]: '1' } }))).toContain(name);
    expect(({} as { x?: unknown }).x).toBeUndefined();
  });

  it('beyond the end of a list is refused', async () => {
    expect(await said(load('bundle: b', { assignments: ['source.files.length=100000'] }))).toContain('no such setting');
    const message = await said(load(stringify(FULL), { assignments: ['source.files.7.path=x'] }));
    expect(message).toContain('--set source.files.7.path: there is no item 7: source.files has 1, counted from 0');
  });
});

describe('variables that Kubernetes sets for Services', () => {
  it.each(['API', 'STREAMS_METRICS', ''])('are no settings: hstu %s', async (service) => {
    const name = service === '' ? 'HSTU' : `HSTU_${service}`;
    const environment = {
      [`${name}_SERVICE_HOST`]: '10.0.0.1',
      [`${name}_SERVICE_PORT`]: '80',
      [`${name}_SERVICE_PORT_METRICS`]: '80',
      [`${name}_PORT`]: 'tcp://10.0.0.1:80',
      [`${name}_PORT_80_TCP`]: 'tcp://10.0.0.1:80',
      [`${name}_PORT_80_TCP_PROTO`]: 'tcp',
      [`${name}_PORT_80_TCP_PORT`]: '80',
      [`${name}_PORT_80_TCP_ADDR`]: '10.0.0.1',
      HSTU_TELEMETRY__PORT: '9871',
    };
    expect((await load('bundle: b', { environment })).telemetry.port).toBe(9_871);
  });
});

describe('values', () => {
  const live = 'bundle: b\nkafka: { brokers: ["a:1"] }';
  const kafka = async (more: Omit<ConfigSources, 'file'>) => (await load(live, more)).kafka!;

  it('text settings take text that looks like something else', async () => {
    expect(await kafka({ environment: { HSTU_KAFKA__APPLICATION_ID: '0123' } })).toMatchObject({ applicationId: '0123' });
    expect(await kafka({ environment: { HSTU_KAFKA__CLIENT_ID: '7' } })).toMatchObject({ clientId: '7' });
    expect(await kafka({ assignments: ['kafka.clientId=true'] })).toMatchObject({ clientId: 'true' });
    const file = 'bundle: b\nclickhouse: { password: 0123 }\nkafka: { brokers: ["a:1"], applicationId: 0123, partitions: 3 }';
    expect(await load(file)).toMatchObject({ clickhouse: { password: '0123' }, kafka: { applicationId: '0123', partitions: 3 } });
    const ssl = { environment: { HSTU_KAFKA__SSL: '{ keyPassphrase: 0123, rejectUnauthorized: false }' } };
    expect(await kafka(ssl)).toMatchObject({ ssl: { keyPassphrase: '0123', rejectUnauthorized: false } });
  });

  it.each([
    ['a:9092,b:9092', ['a:9092', 'b:9092']],
    ['[::1]:9092', ['[::1]:9092']],
    ['[::1]:9092, b:1', ['[::1]:9092', 'b:1']],
    ['["[::1]:9092"]', ['[::1]:9092']],
    ['[a:9092, b:65535]', ['a:9092', 'b:65535']],
  ])('brokers by commas or as a list: %s', async (text, brokers) => {
    expect(await kafka({ environment: { HSTU_KAFKA__BROKERS: text } })).toMatchObject({ brokers });
    expect(await kafka({ assignments: [`kafka.brokers=${text}`] })).toMatchObject({ brokers });
  });

  it.each(['a:99999', 'a:65536', 'a:0', '::1:9092', 'a', 'a:1,,b:1'])('no broker: %s', async (text) => {
    expect(await said(kafka({ assignments: [`kafka.brokers=${text}`] }))).toContain('kafka.brokers.');
  });

  it('an alias bomb is refused in words', async () => {
    const rows = ['a: &a [x,x,x,x,x,x,x,x,x]'];
    for (const [at, name] of [...'bcdef'].entries()) rows.push(`${name}: &${name} [${Array(9).fill(`*${'abcde'[at]}`)}]`);
    const message = await said(load(`bundle: b\n${rows.join('\n')}`));
    expect(message).toContain('aliases (*name)');
    expect(message).not.toContain(' at ');
    expect(await said(load(`bundle: ${'['.repeat(200_000)}`))).not.toContain(' at ');
  });
});

describe('paths', () => {
  it('every one counts from the folder of the file', async () => {
    const below = join(folder, 'below');
    await mkdir(below);
    await writeFile(join(below, 'c.yaml'), stringify(FULL));
    const config = await loadConfig({ file: join(below, 'c.yaml') });
    const paths = settingsOf(configSchema).filter(({ schema }) => kindOf(schema) === 'path');
    expect(paths.length).toBeGreaterThan(8);
    for (const { path } of paths) {
      const wanted = path.reduce<unknown>((value, key) => (value as Record<string, unknown>)[key === '*' ? '0' : key], FULL);
      const found = path.reduce<unknown>((value, key) => (value as Record<string, unknown>)[key === '*' ? '0' : key], config);
      expect(found, path.join('.')).toBe(join(below, wanted as string));
    }
  });

  it('no setting that is one by its name is forgotten', () => {
    const named = settingsOf(configSchema).filter(({ path }) => /(path|file|folder|bundle|dir)$/i.test(path.at(-1)!));
    expect(
      named.filter(({ schema }) => kindOf(schema) !== 'path' && kindOf(schema) !== 'pattern').map(({ path }) => path.join('.')),
    ).toEqual([]);
    const secret = settingsOf(configSchema).filter(({ path }) => /(password|passphrase|secret|token)$/i.test(path.at(-1)!));
    expect(secret.filter(({ schema }) => kindOf(schema) !== 'secret').map(({ path }) => path.join('.'))).toEqual([]);
  });
});
