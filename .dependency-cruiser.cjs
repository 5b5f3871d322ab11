// The layering rule: streams → {operators, models, infra} → schemas, and each vendor package in one folder only.
const sibling = (name, others) => ({
  name: `${name}-stands-alone`,
  severity: 'error',
  comment: `${name} sees schemas only; streams wires it to the others`,
  from: { path: `^${name}/` },
  to: { path: `^(${others.join('|')})/` },
});
const vendor = (name, packages, allowed) => ({
  name: `vendor-${name}`,
  severity: 'error',
  comment: `${packages.join(', ')}: imported by ${allowed.join(', ')} only`,
  from: { pathNot: `^(${allowed.join('|')})/` },
  to: { path: `node_modules/(${packages.join('|')})/` },
});

module.exports = {
  forbidden: [
    sibling('operators', ['models', 'infra', 'streams']),
    sibling('models', ['operators', 'infra', 'streams']),
    sibling('infra', ['operators', 'models', 'streams']),
    sibling('schemas', ['operators', 'models', 'infra', 'streams']),
    vendor('rxjs', ['rxjs'], ['operators', 'streams']),
    vendor('onnx', ['onnxruntime-node', 'onnxruntime-common', 'onnx-proto'], ['models']),
    vendor('index', ['usearch'], ['models']),
    vendor('clickhouse', ['chdb', '@clickhouse'], ['infra']),
    vendor('console', ['cli-progress', 'cli-table3', 'csv-parse'], ['infra']),
    vendor('kafka', ['kafkajs', 'kafkajs-snappy', 'lz4-napi', '@bokuweb'], ['infra']),
    vendor('store', ['lmdb'], ['infra']),
    vendor('telemetry', ['prom-client', 'pino', '@opentelemetry'], ['infra']),
    vendor('avro', ['avsc'], ['schemas']),
    vendor('zod', ['zod'], ['schemas', 'models', 'streams']),
    vendor('commander', ['commander', 'yaml'], ['streams']),
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } } },
    { name: 'not-to-tests', severity: 'error', from: { pathNot: '^(test|bench)/' }, to: { path: '^(test|bench)/' } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default'],
      extensions: ['.ts', '.js', '.mjs', '.cjs'],
    },
  },
};
