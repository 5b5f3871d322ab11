/** The law of every cache, for the cache on the GPU: the same scripts, on a software driver. */
import { GpuEngine } from '../../../models/gpu/gpu-engine.ts';
import type { EncodeRequest } from '../../../schemas/encoding.ts';
import { exactnessLaws } from '../exactness-laws.ts';
import { describeOnGpu } from './describe-on-gpu.ts';

/** After every call whoever is next to be evicted is copied to host memory, as when a worker has nothing else to do. */
class IdlingEngine extends GpuEngine {
  override async encode(requests: readonly EncodeRequest[]) {
    const results = await super.encode(requests);
    while (await this.spillOne());
    return results;
  }
}

describeOnGpu('on the GPU', () => {
  exactnessLaws({
    engineOf: (bundle, options) => new IdlingEngine(bundle, options),
    tolerance: 1e-4,
    referenceTolerance: 1e-4,
    share: 0.1,
  });
});
