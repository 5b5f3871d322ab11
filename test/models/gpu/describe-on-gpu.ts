/** Tests that need a Vulkan driver: run wherever one can be loaded, skipped with the reason elsewhere, never skipped in CI. */
import { afterAll, describe, it } from 'vitest';
import { GpuDevice } from '../../../models/gpu/device.ts';
import { messageOf } from '../../../schemas/errors.ts';
import { swiftShaderMissing } from '../../support/swiftshader.ts';

const missing = await whatIsMissing();

export function describeOnGpu(name: string, tests: () => void): void {
  if (missing === undefined) describe(name, tests);
  else if (process.env['CI'] !== undefined && swiftShaderMissing() === undefined)
    it(`${name}: a Vulkan driver can be loaded`, () => {
      throw new Error(missing);
    });
  else describe.skip(`${name} (skipped: ${missing})`, tests);
}

async function whatIsMissing(): Promise<string | undefined> {
  const device = new GpuDevice();
  try {
    await device.zeros(4, 4);
  } catch (thrown) {
    return messageOf(thrown);
  }
  // Open until the file is done: with its last session the runtime drops the kernels it has compiled, a second or two of them.
  afterAll(() => device.release());
  return undefined;
}
