/**
 * Golden vectors made by the reference implementation, through the real runtime: whole windows and one event at a time through
 * the KV cache, with the prefill whole and in chunks. `GOLDEN_DIR=folder` runs the vectors of another folder.
 */
import { expect, it } from 'vitest';
import { EncoderEngine } from '../../models/worker/engine.ts';
import { goldenFolder, goldenVectors } from '../support/golden-vectors.ts';
import { goldenCases } from './golden-cases.ts';

it(`there are golden vectors in ${goldenFolder()}`, () => {
  const usable = goldenVectors().filter(({ weights, cases }) => weights !== undefined && cases.length > 0);
  expect(usable.length, 'files NAME.json with NAME.safetensors beside them').toBeGreaterThan(0);
});

goldenCases({
  engineOf: (bundle, options) => new EncoderEngine(bundle, options),
  tolerance: 1e-5,
  // A chunk length that divides nothing.
  modes: [{}, { prefillRows: 3 }],
});
