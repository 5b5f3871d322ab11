// What no schema knows: that the deployment files agree with the configuration they carry, and with each other.
import { dirname } from 'node:path';

/** Closing connections after the drain may take as long; `run` ends itself then. */
const CLOSE_MS = 10_000;
const UNITS = { Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 };

const bytesOf = (quantity) => {
  const [, number, unit] = /^(\d+)(Ki|Mi|Gi)?$/.exec(String(quantity)) ?? [];
  return Number(number) * (UNITS[unit] ?? 1);
};

/**
 * @param config the ConfigMap's, as the program reads it
 * @returns one line a contradiction
 */
export function kubernetesProblems(manifests, config, exposed) {
  const problems = [];
  const must = (holds, text) => {
    if (!holds) problems.push(text);
  };
  const find = (kind) => manifests.find((manifest) => manifest.kind === kind);
  const { kafka, telemetry, state, encoder, model, clickhouse, memoryBudgetBytes } = config;
  const pod = find('StatefulSet').spec.template;
  const container = pod.spec.containers[0];

  must(telemetry.host === '0.0.0.0', `telemetry.host ${telemetry.host}: probes come from outside the pod, so it must be 0.0.0.0`);
  must(telemetry.port === exposed, `telemetry.port ${telemetry.port} is not the Dockerfile's EXPOSE ${exposed}`);
  const port = container.ports.find(({ name }) => name === 'metrics');
  must(port?.containerPort === telemetry.port, `containerPort ${port?.containerPort} is not telemetry.port ${telemetry.port}`);
  for (const [probe, path] of [
    ['startupProbe', '/readyz'],
    ['livenessProbe', '/healthz'],
    ['readinessProbe', '/readyz'],
  ]) {
    const { path: found, port: at } = container[probe]?.httpGet ?? {};
    must(found === path && at === 'metrics', `${probe} asks ${found} of ${at}; it must ask ${path} of metrics`);
  }
  const graceMs = 1000 * pod.spec.terminationGracePeriodSeconds;
  must(
    graceMs > kafka.drainTimeoutMs + CLOSE_MS,
    `terminationGracePeriodSeconds: ${graceMs} ms is not above the drain and the close`,
  );
  const claims = find('StatefulSet').spec.volumeClaimTemplates.map(({ metadata }) => metadata.name);
  const kept = container.volumeMounts.filter(({ name }) => claims.includes(name)).map(({ mountPath }) => mountPath);
  must(kept.includes(dirname(state.path)), `state.path ${state.path} does not lie in a claimed volume (${kept.join(', ')})`);
  const { requests, limits } = container.resources;
  must(
    bytesOf(limits.memory) > memoryBudgetBytes,
    `memory limit ${limits.memory} is not above memoryBudgetBytes ${memoryBudgetBytes}`,
  );
  must(Number(requests.cpu) >= encoder.workers, `cpu request ${requests.cpu} is below encoder.workers ${encoder.workers}`);

  const { maxReplicaCount, scaleTargetRef, triggers } = find('ScaledObject').spec;
  const { bootstrapServers, consumerGroup, topic } = triggers[0].metadata;
  must(scaleTargetRef.name === find('StatefulSet').metadata.name, `the ScaledObject scales ${scaleTargetRef.name}`);
  must(maxReplicaCount <= kafka.partitions, `maxReplicaCount ${maxReplicaCount} is above kafka.partitions ${kafka.partitions}`);
  must(bootstrapServers === kafka.brokers.join(','), `the trigger's bootstrapServers ${bootstrapServers} are not kafka.brokers`);
  must(consumerGroup === kafka.applicationId, `the trigger's consumerGroup ${consumerGroup} is not kafka.applicationId`);
  must(topic === kafka.topics.userActions, `the trigger's topic ${topic} is not kafka.topics.userActions`);

  must(
    pod.spec.enableServiceLinks === false,
    'enableServiceLinks must be false: the variable of a service would be taken for a setting',
  );
  for (const [key, url] of Object.entries({
    'kafka.schemaRegistry.url': kafka.schemaRegistry.url,
    'clickhouse.url': clickhouse.url,
  }))
    must(url.startsWith('https:'), `${key} ${url}: a password goes there, so it must be https`);
  must(kafka.ssl !== false, 'kafka.ssl: passwords go to the brokers, so it must be on');
  const mounted = container.volumeMounts.map(({ mountPath }) => mountPath);
  must(
    mounted.includes(dirname(model.tokenFile ?? '')),
    `model.tokenFile ${model.tokenFile} does not lie in a mounted folder (${mounted.join(', ')})`,
  );
  const policy = find('NetworkPolicy').spec;
  must(policy.policyTypes.join() === 'Ingress,Egress', 'the NetworkPolicy must name both Ingress and Egress');
  const portsOf = (rules) => rules.flatMap(({ ports }) => ports.map(({ port }) => port));
  must(portsOf(policy.ingress).join() === String(telemetry.port), `the NetworkPolicy admits other ports than ${telemetry.port}`);
  const addresses = [...kafka.brokers.map((broker) => `kafka://${broker}`), kafka.schemaRegistry.url, clickhouse.url];
  for (const address of addresses) {
    const { hostname, port, protocol } = new URL(address);
    const [, namespace] = hostname.split('.');
    const wanted = Number(port || (protocol === 'https:' ? 443 : 80));
    const admitted = policy.egress.some(
      ({ to, ports }) =>
        ports.some((one) => one.port === wanted) &&
        to.some(({ namespaceSelector }) => namespaceSelector?.matchLabels['kubernetes.io/metadata.name'] === namespace),
    );
    must(admitted, `the NetworkPolicy lets no pod reach ${address}`);
  }

  const labels = JSON.stringify(pod.metadata.labels);
  const selectors = [
    find('Service').spec.selector,
    find('NetworkPolicy').spec.podSelector.matchLabels,
    ...['StatefulSet', 'PodDisruptionBudget', 'ServiceMonitor'].map((kind) => find(kind).spec.selector.matchLabels),
  ];
  for (const selector of selectors)
    must(JSON.stringify(selector) === labels, `${JSON.stringify(selector)} does not select the pods, ${labels}`);
  return problems;
}

/** @param config the compose configuration, as the program reads it */
export function composeProblems(compose, config, exposed) {
  const problems = [];
  const service = compose.services['hstu-streams'];
  const addresses = [...config.kafka.brokers, config.kafka.schemaRegistry.url, config.clickhouse.url];
  for (const address of addresses) {
    const host = address.replace(/^\w+:\/\//, '').split(':')[0];
    if (compose.services[host] === undefined) problems.push(`${address} names no service of docker-compose.yml`);
  }
  const graceMs = 1000 * Number.parseInt(service.stop_grace_period, 10);
  if (!(graceMs > config.kafka.drainTimeoutMs + CLOSE_MS))
    problems.push(`stop_grace_period: ${graceMs} ms is not above the drain and the close`);
  if (config.telemetry.port !== exposed)
    problems.push(`telemetry.port ${config.telemetry.port} is not the Dockerfile's EXPOSE ${exposed}`);
  return problems.map((problem) => `docker-compose.yml: ${problem}`);
}
