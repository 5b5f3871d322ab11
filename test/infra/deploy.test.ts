import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'hstu-deploy-'));
  await mkdir(join(root, 'infra'));
  for (const path of ['infra/deploy', 'Dockerfile', '.dockerignore', 'docker-compose.yml'])
    await cp(path, join(root, path), { recursive: true });
  const copied = ['package.json', 'package-lock.json', '.npmrc', 'tsconfig.json', 'tsconfig.build.json', '.ci'];
  for (const path of [...copied, 'schemas', 'operators', 'models', 'streams']) await symlink(resolve(path), join(root, path));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** What the check prints on standard error; empty when all is well. */
const check = () =>
  new Promise<string>((settle) => {
    execFile(process.execPath, ['--import', 'tsx', '.ci/check-deploy.mjs', root], (error, _, stderr) =>
      settle(error === null ? '' : stderr),
    );
  });

/** The check's word on the files with one text replaced by another. */
async function checkWith(file: string, from: string, to: string): Promise<string> {
  const path = join(root, file);
  const before = await readFile(path, 'utf8');
  expect(before).toContain(from);
  try {
    await writeFile(path, before.replace(from, to));
    return await check();
  } finally {
    await writeFile(path, before);
  }
}

const K8S = 'infra/deploy/kubernetes';

describe('the check of the deployment files', () => {
  it('passes them as they are', async () => {
    expect(await check()).toBe('');
  });

  it.each([
    [
      'a field that Kubernetes does not know',
      `${K8S}/statefulset.yaml`,
      'serviceName:',
      'serviceNam:',
      'additional properties: serviceNam',
    ],
    [
      'a value of the wrong type',
      `${K8S}/statefulset.yaml`,
      'failureThreshold: 6',
      'failureThreshold: six',
      'livenessProbe/failureThreshold',
    ],
    ['a required field that is missing', `${K8S}/service-monitor.yaml`, 'port: metrics, ', '', "required property 'port'"],
    [
      'a trigger setting that KEDA does not know',
      `${K8S}/autoscaling.yaml`,
      'lagThreshold',
      'lagTreshold',
      'additional properties: lagTreshold',
    ],
    [
      'a compose setting that does not exist',
      'docker-compose.yml',
      'stop_grace_period',
      'stop_grace',
      'additional properties: stop_grace',
    ],
    ['a Dockerfile flag that does not exist', 'Dockerfile', '--retries=6', '--tries=6', 'Unknown flag: tries'],
    ['a file that the Dockerfile copies and .dockerignore holds back', '.dockerignore', '!streams\n', '', '!streams is missing'],
    ['a setting that the program does not know', `${K8S}/configmap.yaml`, 'drainTimeoutMs', 'drainMs', 'no such key: drainMs'],
    [
      'a variable that sets nothing',
      `${K8S}/statefulset.yaml`,
      'HSTU_CLICKHOUSE__PASSWORD',
      'HSTU_CLICKHOUSE__SECRET',
      'HSTU_CLICKHOUSE__SECRET: no such setting',
    ],
    [
      'more instances than partitions',
      `${K8S}/autoscaling.yaml`,
      'maxReplicaCount: 12',
      'maxReplicaCount: 13',
      'above kafka.partitions 12',
    ],
    [
      'a grace shorter than the drain',
      `${K8S}/statefulset.yaml`,
      'terminationGracePeriodSeconds: 60',
      'terminationGracePeriodSeconds: 20',
      'not above the drain',
    ],
    [
      'variables for the services of the namespace',
      `${K8S}/statefulset.yaml`,
      '      enableServiceLinks: false\n',
      '',
      'enableServiceLinks must be false',
    ],
    ['a password in clear text', `${K8S}/configmap.yaml`, 'https://clickhouse', 'http://clickhouse', 'it must be https'],
    [
      'a token that is nowhere',
      `${K8S}/configmap.yaml`,
      '/etc/hstu-model/token',
      '/etc/token',
      'does not lie in a mounted folder',
    ],
    ['a policy that cuts off ClickHouse', `${K8S}/network-policy.yaml`, '8443', '8123', 'no pod reach https://clickhouse'],
    ['a policy that cuts off the brokers', `${K8S}/network-policy.yaml`, 'port: 9093', 'port: 9092', 'no pod reach kafka://'],
    [
      'a policy for other pods',
      `${K8S}/network-policy.yaml`,
      'matchLabels: { app.kubernetes.io/name: hstu-streams }',
      'matchLabels: { app: x }',
      'does not select the pods',
    ],
    ['a policy for another port', `${K8S}/network-policy.yaml`, 'port: 9464', 'port: 9465', 'admits other ports than 9464'],
    [
      'state outside the volume',
      `${K8S}/configmap.yaml`,
      'path: /var/lib/hstu-streams/state',
      'path: /tmp/state',
      'does not lie in a claimed volume',
    ],
  ])('refuses %s', async (_, file, from, to, expected) => {
    expect(await checkWith(file, from, to)).toContain(expected);
  });
});
