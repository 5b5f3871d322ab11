// Writes infra/deploy/prometheus-rules.yaml from the rules beside the metrics; a test holds the file to it.
//   tsx .ci/write-alert-rules.mjs
import { writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { alertRuleFile } from '../infra/telemetry/alerts/alert-rules.ts';

const head =
  '# Written by `npx tsx .ci/write-alert-rules.mjs` of infra/telemetry/alerts/alert-rules.ts. The scrape job is `hstu-streams`.\n';
writeFileSync('infra/deploy/prometheus-rules.yaml', head + stringify(alertRuleFile(), { lineWidth: 0 }));
