/** A bundle made ready to serve: its encoder, and what the stream's steps and state take from it. */
import { join } from 'node:path';
import { type EncoderOptions, HstuEncoder } from '../../models/encoder.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { Tokenizer } from '../../models/hstu/tokenizer.ts';
import { servesRetrieval } from '../../schemas/bundle-config.ts';
import type { Config } from '../../schemas/config.ts';
import type { EncodeSegment } from '../../schemas/encoding.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { StateSignature } from '../../schemas/state.ts';
import type { FlowParts } from '../live.ts';
import { type PipelineParts, pipeline } from '../pipeline.ts';
import { pipelineModel } from '../pipeline-model.ts';
import { encoderOptions } from '../replay.ts';
import { signatureOf } from '../state-signature.ts';

export interface ServedModel extends FlowParts {
  readonly bundle: Bundle;
  /** Its folder. */
  readonly path: string;
  readonly encoder: HstuEncoder;
  readonly signature: StateSignature;
}

export interface ServeOptions {
  readonly config: Config;
  /** What the pipeline is wired to beside the model. */
  readonly wiring: Pick<PipelineParts, 'decoder' | 'requests' | 'ranks' | 'publisher' | 'now' | 'observer'>;
  /** What an encoder runs on, and why. */
  readonly onProvider: (facts: { readonly provider: string; readonly reason: string }) => void;
  /** Told when nothing more is kept on disk, and why. */
  readonly onDiskFailure?: NonNullable<EncoderOptions['onDiskFailure']>;
  /** Told when lists are made by an index, or why they are not. */
  readonly onIndex: NonNullable<EncoderOptions['onIndex']>;
}

/** @throws PipelineError `CONFIG_INVALID` where the settings ask for what the bundle does not have */
export function serveModel(bundle: Bundle, path: string, { config, wiring, ...told }: ServeOptions): ServedModel {
  const index = { choice: config.scores.index, folder: join(config.state.path, 'index') };
  const onRun: EncoderOptions['onRun'] = (run) => wiring.observer?.run?.(run);
  const encoder = new HstuEncoder(bundle, { ...encoderOptions(config), ...told, onRun, index });
  const parts = { ...wiring, settings: config, model: pipelineModel(bundle), encoder };
  try {
    // Wired for a trial: settings that do not fit the bundle are met here, and not when it is to flow.
    pipeline({ ...parts, store: neverAsked, committer: { commit: neverAsked } });
  } catch (error) {
    void encoder.close();
    throw error;
  }
  return { bundle, path, encoder, signature: signatureOf(bundle, config.sequence.seenLimit), pipeline: parts };
}

/** The same model with another catalogue beside it: nothing of its encoder but what is listed changes. */
export const withCatalogueOf = (model: ServedModel, bundle: Bundle): ServedModel => ({
  ...model,
  bundle,
  pipeline: { ...model.pipeline, model: pipelineModel(bundle) },
});

function neverAsked(): never {
  throw new PipelineError('ENCODER_FAILED', 'a pipeline that was wired for a trial must not flow');
}

/** No user's, for no user of a topic has an empty id. */
const NOBODY = '';

/**
 * Everything that the model is going to be asked, once: it works, and its graphs are built, before anyone waits for an answer.
 *
 * @throws PipelineError `ENCODER_FAILED`, `WORKER_CRASHED`
 */
export async function tryModel({ bundle, encoder }: Pick<ServedModel, 'bundle' | 'encoder'>): Promise<void> {
  const { config, entities } = bundle;
  const token = new Tokenizer(bundle).token({ action: config.actions.encoded[0]!, entity: entities[0]! });
  if (token.kind !== 'token')
    throw new PipelineError('ENCODER_FAILED', `bundle ${config.name} has no token for its first entity`);
  const tokens = 'tokens' in token ? token.tokens : [token.entity];
  const window: Omit<EncodeSegment, 'from'> = {
    windowStart: 0,
    entities: Int32Array.from(tokens),
    timesS: new Float64Array(tokens.length).fill(1),
    pageDigests: new Uint32Array(0),
    queryTimeS: 1,
  };
  const [encoded] = await encoder.encode([{ userId: NOBODY, segments: [{ ...window, from: tokens.length - 1 }] }]);
  const { rows } = encoded!.segments[0]!;
  const wrong = rows.findIndex((value) => !Number.isFinite(value));
  if (wrong >= 0) throw new PipelineError('ENCODER_FAILED', `bundle ${config.name} encodes its first entity to ${rows[wrong]}`);
  const none = { targets: new Int32Array(1), seen: new Int32Array(0), seenCount: new Int32Array(1) };
  if (servesRetrieval(config)) await encoder.score([{ rows, ...none, topK: 1 }]);
  if (config.ranking !== undefined)
    await encoder.scoreCandidates([{ userId: NOBODY, segment: window, candidates: Int32Array.of(1) }]);
  await encoder.forget(NOBODY);
}
