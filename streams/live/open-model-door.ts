/** Whether and by what the model of an instance may be changed, by its configuration. */
import { isIP } from 'node:net';
import { dirname, join, parse } from 'node:path';
import { type ModelDoor, openToken } from '../../infra/telemetry/model-door.ts';
import type { Config } from '../../schemas/config.ts';

export const tokenFileOf = ({ model, state }: Config): string => model.tokenFile ?? join(state.path, 'model.token');

/** Undefined where other machines reach the port, unless a token file is asked for. */
export async function openModelDoor(config: Config): Promise<ModelDoor | undefined> {
  const { telemetry, model, bundle } = config;
  if (!isLoopback(telemetry.host) && model.tokenFile === undefined) return undefined;
  return { token: await openToken(tokenFileOf(config)), allowedFolder: model.allowedFolder ?? folderOf(bundle) };
}

/** Of a bundle at the root, only itself: beside it lies all that the machine has. */
const folderOf = (bundle: string): string => (dirname(bundle) === parse(bundle).root ? bundle : dirname(bundle));

const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
