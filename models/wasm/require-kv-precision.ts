import { PipelineError } from '../../schemas/errors.ts';
import type { Bundle } from '../hstu/bundle.ts';
import { BFLOAT16_GROUP } from '../kv-cache/bfloat16.ts';
import type { KvPrecision } from '../kv-cache/extent.ts';
import { AttentionMemory } from './attention-memory.ts';

/** @throws PipelineError `CONFIG_INVALID` where no kernel reads this bundle's rows in that precision */
export function requireKvPrecision(bundle: Bundle, precision: KvPrecision, provider: string): void {
  if (precision === 'float32') return;
  const { name, dqk, dv } = bundle.config;
  if (provider !== 'cpu')
    throw new PipelineError(
      'CONFIG_INVALID',
      `encoder.kvPrecision '${precision}' is for provider 'cpu', not '${provider}': a GPU keeps K and V as float32`,
    );
  if (!AttentionMemory.serves(bundle, precision))
    throw new PipelineError(
      'CONFIG_INVALID',
      `encoder.kvPrecision '${precision}' needs heads whose widths are multiples of ${BFLOAT16_GROUP}; those of ${name} are ${dqk} and ${dv}`,
    );
}
