/** Golden vectors made by the reference implementation, through the cache on the GPU. */
import { GpuEngine } from '../../../models/gpu/gpu-engine.ts';
import { goldenCases } from '../golden-cases.ts';
import { describeOnGpu } from './describe-on-gpu.ts';

describeOnGpu('on the GPU', () => {
  goldenCases({
    engineOf: (bundle, options) => new GpuEngine(bundle, options),
    tolerance: 1e-4,
    modes: [{ prefillRows: 80 }],
    steps: 50,
  });
});
