/** `hstu-streams model switch` and `model status`: the model of a running instance on this machine. */

import { resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import colors from 'picocolors';
import { printData } from '../../infra/console/guard-output.ts';
import { printable } from '../../infra/console/printable.ts';
import { readToken } from '../../infra/telemetry/model-door.ts';
import type { Config } from '../../schemas/config.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { tokenFileOf } from '../live/open-model-door.ts';
import { loadConfig } from '../load-config.ts';
import type { EndedChange, ModelStatus } from '../model-change/model-status.ts';
import { collect } from './options.ts';

interface InstanceOptions {
  readonly config: string;
  readonly set: readonly string[];
  readonly port?: number;
}

const LOOK_MS = 500;

export function addModelSwitch(model: Command): void {
  forInstance(model.command('status'))
    .description('which model a running instance on this machine serves, and how a change of it goes')
    .action(async (options: InstanceOptions) => {
      printData(JSON.stringify(await ask(addressOf(await configOf(options), options)), null, 2));
    });
  forInstance(model.command('switch'))
    .description(
      'change the model of a running instance on this machine: loaded beside the old one, its cache filled, then served',
    )
    .option('--to <folder>', 'model bundle; also the way back, and, while a change is under way, what calls it off')
    .option('--no-wait', 'do not wait until it is served')
    .action(async (options: InstanceOptions & { readonly to?: string; readonly wait: boolean }) => {
      const config = await configOf(options);
      const address = addressOf(config, options);
      const change = options.to === undefined ? {} : { bundle: resolve(options.to) };
      // The configuration's own is read by the instance, whose environment may say more.
      const begun = await ask(address, change, await readToken(tokenFileOf(config)));
      if (begun.change === null) console.log(`${describe(begun.serving)} is served already`);
      else if (!options.wait) console.log(`${describe(begun.change)} is being loaded`);
      else console.log(await untilEnded(address, begun.change));
    });
}

const forInstance = (command: Command): Command =>
  command
    .requiredOption('-c, --config <file>', 'configuration of the instance, YAML')
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .option('--port <port>', 'where the instance answers. Default: telemetry.port', (text) => {
      const port = Number(text);
      if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new InvalidArgumentError('expected 1 to 65535');
      return port;
    });

const configOf = ({ config: file, set }: InstanceOptions): Promise<Config> =>
  loadConfig({ file, environment: process.env, assignments: set });

function addressOf({ telemetry }: Config, { port }: InstanceOptions): string {
  const host = ['0.0.0.0', '::'].includes(telemetry.host) ? '127.0.0.1' : telemetry.host;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port ?? telemetry.port}/model`;
}

/** @throws PipelineError `STATE_INCOMPATIBLE`, `BUNDLE_INVALID`, … as the instance says; `CONFIG_INVALID` where none answers */
async function ask(address: string, change?: object, token = ''): Promise<ModelStatus> {
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` };
  const post = { method: 'POST', headers, body: JSON.stringify(change) };
  let response: Response;
  let body: unknown;
  try {
    response = await fetch(address, change === undefined ? {} : post);
    body = await response.json();
  } catch (cause) {
    const reason = messageOf(cause instanceof Error && cause.cause !== undefined ? cause.cause : cause);
    const message = `no instance answers on ${address} (${reason}); it must run on this machine, telemetry.port or --port be its own`;
    throw new PipelineError('CONFIG_INVALID', message, { cause });
  }
  if (response.ok) return body as ModelStatus;
  const { problem, code = 'CONFIG_INVALID' } = body as { readonly problem: string; readonly code?: PipelineError['code'] };
  throw new PipelineError(code, problem);
}

/** Tells on standard error how it goes. */
async function untilEnded(address: string, begun: NonNullable<ModelStatus['change']>): Promise<string> {
  let told = '';
  for (;;) {
    const { change, last } = await ask(address);
    if (change === null || change.since !== begun.since) return conclude(begun, last);
    const { phase, users, usersPerSecond } = change;
    const line = phase === 'prefilling' ? `${phase}: ${users.done} of ${users.total} users, ${usersPerSecond} a second` : phase;
    if (line !== told) process.stderr.write(`${colors.dim(line)}\n`);
    told = line;
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
}

/** @throws PipelineError `ENCODER_FAILED` where the old model goes on being served */
function conclude(begun: NonNullable<ModelStatus['change']>, last: EndedChange | null): string {
  if (last?.outcome !== 'switched' || last.bundle !== begun.bundle)
    throw new PipelineError(
      'ENCODER_FAILED',
      `${describe(begun)} is not served: ${last?.problem ?? last?.outcome ?? 'another change has begun'}`,
    );
  return `${describe(begun)} is served; the switch took ${Math.round(last.switchMs ?? 0)} ms`;
}

const describe = ({ name, digest }: ModelStatus['serving']): string => `model ${printable(name)} (${digest.slice(0, 16)})`;
