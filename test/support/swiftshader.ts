/**
 * A Vulkan driver that runs on the CPU, so that tests take the GPU's path for real on any machine. Of a whole vitest run: the
 * variables by which the loader finds it must be there when a test's process starts. Nothing runs on it unless asked for by name.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';

const require = createRequire(import.meta.url);
const ICD = 'vk_swiftshader_icd.json';

/** Why there is none here; undefined where there is. */
export const swiftShaderMissing = (): string | undefined =>
  process.platform === 'linux' && process.arch === 'x64' ? undefined : `no SwiftShader for ${process.platform} ${process.arch}`;

/**
 * The environment of a process that is to find SwiftShader, and no other driver.
 *
 * @throws Error where the package that holds it is not installed
 */
export function swiftShaderEnvironment(): Record<string, string> {
  const archive = join(dirname(require.resolve('@sparticuz/chromium')), '../../bin/swiftshader.tar.br');
  const folder = fileURLToPath(new URL(`../../.hstu/swiftshader-${statSync(archive).size}`, import.meta.url));
  if (!existsSync(join(folder, ICD))) unpack(archive, folder);
  return {
    LD_LIBRARY_PATH: [folder, process.env['LD_LIBRARY_PATH']].filter((path) => path).join(':'),
    VK_DRIVER_FILES: join(folder, ICD),
    XDG_RUNTIME_DIR: process.env['XDG_RUNTIME_DIR'] ?? folder,
  };
}

/** Beside, then renamed: two runs may do this at once. */
function unpack(archive: string, folder: string): void {
  const fresh = `${folder}-${process.pid}`;
  mkdirSync(fresh, { recursive: true });
  execFileSync('tar', ['-x', '-C', fresh], { input: brotliDecompressSync(readFileSync(archive)) });
  try {
    renameSync(fresh, folder);
  } catch {
    rmSync(fresh, { recursive: true });
  }
}

export default function setup(): void {
  if (swiftShaderMissing() === undefined) Object.assign(process.env, swiftShaderEnvironment());
}
