// Checks the deployment files offline: schemas, and agreement with the configuration, which the program's own code reads.
//   tsx .ci/check-deploy.mjs [ROOT]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '../streams/load-config.ts';
import { composeProblems, kubernetesProblems } from './deploy/agreement.mjs';
import { checkCompose, checkDockerfile, readManifests } from './deploy/schemas.mjs';

const root = process.argv[2] ?? '.';
const problems = [];
const attempt = async (what, work) => {
  try {
    return await work();
  } catch (error) {
    problems.push(`${what}: ${error.message}`);
    return undefined;
  }
};

const { manifests, problems: manifestProblems } = readManifests(join(root, 'infra/deploy/kubernetes'));
const { compose, problems: fileProblems } = checkCompose(join(root, 'docker-compose.yml'));
const docker = checkDockerfile(root);
problems.push(...manifestProblems, ...fileProblems, ...docker.problems);

// Whether they agree can be asked only of files that are well formed.
if (problems.length === 0) {
  const config = await attempt('configmap.yaml', () => configOf(manifests));
  if (config !== undefined) problems.push(...kubernetesProblems(manifests, config, docker.exposed));
  const local = await attempt('compose', () => loadConfig({ file: join(root, 'infra/deploy/compose/config.yaml') }));
  if (local !== undefined) problems.push(...composeProblems(compose, local, docker.exposed));
}
for (const problem of problems) console.error(`✗ ${problem}`);
if (problems.length > 0) process.exit(1);
console.log(`✓ ${manifests.length} manifests, docker-compose.yml, Dockerfile`);

/** The ConfigMap's configuration with the container's variables over it, as in the pod; a secret is any text. */
async function configOf(all) {
  const { data } = all.find(({ kind }) => kind === 'ConfigMap');
  const { env } = all.find(({ kind }) => kind === 'StatefulSet').spec.template.spec.containers[0];
  const folder = mkdtempSync(join(tmpdir(), 'hstu-deploy-'));
  try {
    const file = join(folder, 'config.yaml');
    writeFileSync(file, data['config.yaml']);
    return await loadConfig({ file, environment: Object.fromEntries(env.map(({ name, value }) => [name, value ?? 'secret'])) });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
