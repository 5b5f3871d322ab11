/** What the encoder refuses: requests that could only give wrong numbers. */
import { type BundleConfig, entityRows, servesRetrieval } from '../../../schemas/bundle-config.ts';
import type { CandidateRequest, EncodeRequest, EncodeSegment } from '../../../schemas/encoding.ts';
import { PipelineError } from '../../../schemas/errors.ts';
import { DIGEST_PAGE } from '../../../schemas/sequence-digest.ts';
import { isCandidateRow } from '../../catalogue/overlay.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { judgeCacheability } from '../../hstu/cacheability.ts';
import { TokenCode } from '../../hstu/token-code.ts';

/** @throws PipelineError `ENCODER_FAILED` that names the user and what is wrong with the window */
export function checkEncodeRequest({ userId, segments }: EncodeRequest, config: BundleConfig): void {
  for (const segment of segments) {
    const n = segment.entities.length;
    const problem =
      n === 0
        ? `a window of ${n} tokens; allowed: 1 to ${config.maxSequenceLength}`
        : (windowProblem(segment, config) ??
          (segment.from < 0 || segment.from >= n ? `rows wanted from ${segment.from} of ${n}` : undefined));
    refuse(userId, problem);
  }
}

/** @throws PipelineError `ENCODER_FAILED` likewise, or where the bundle does not rank */
export function checkCandidateRequest(
  { userId, segment, candidates }: CandidateRequest,
  bundle: Pick<Bundle, 'config' | 'catalogue'>,
): void {
  const { config } = bundle;
  const rows = entityRows(config) - 1;
  const outside = candidates.find((row) => !isCandidateRow(row, bundle));
  refuse(
    userId,
    config.ranking === undefined
      ? `bundle ${config.name} has no task heads: it ranks by dot product only`
      : outside !== undefined
        ? `candidate row ${outside}; allowed: 1 to ${rows}, and the catalogue's own below 0`
        : windowProblem(segment, config),
  );
}

/** @throws PipelineError `ENCODER_FAILED` for a bundle whose rows mean nothing beside the entity table */
export function checkServesRetrieval(config: BundleConfig): void {
  if (!servesRetrieval(config))
    throw new PipelineError('ENCODER_FAILED', `bundle ${config.name} only ranks candidates: its config has retrieval false`);
}

/** @throws PipelineError `ENCODER_FAILED` for a bundle of which one pass does not give the rows as of every event */
export function checkBulk(config: BundleConfig): void {
  const { verdict, reasons } = judgeCacheability(config);
  if (verdict === 're-encode')
    throw new PipelineError('ENCODER_FAILED', `bundle ${config.name} cannot be encoded in bulk: ${reasons.join('; ')}`);
}

function refuse(userId: string, problem: string | undefined): void {
  if (problem !== undefined) throw new PipelineError('ENCODER_FAILED', `request of user ${userId}: ${problem}`);
}

function windowProblem({ entities, timesS, pageDigests }: Omit<EncodeSegment, 'from'>, config: BundleConfig): string | undefined {
  const { maxSequenceLength, tokens } = config;
  const n = entities.length;
  if (n > maxSequenceLength) return `a window of ${n} tokens; allowed: 1 to ${maxSequenceLength}`;
  if (timesS.length !== n) return `${timesS.length} times for ${n} tokens`;
  if (pageDigests.length !== 2 * Math.floor(n / DIGEST_PAGE)) return `${pageDigests.length / 2} page digests for ${n} tokens`;
  const rows = entityRows(config);
  if (tokens === undefined) return allWithin(entities, 1, rows - 1) ? undefined : `entity rows outside 1 to ${rows - 1}`;
  const code = new TokenCode(config);
  const wrong = entities.find((token) => !code.isToken(token));
  return wrong === undefined ? undefined : `token ${wrong}, which layout ${tokens.layout} does not have`;
}

/** A plain loop: every step looks at its whole window. */
function allWithin(entities: Int32Array, least: number, most: number): boolean {
  for (let i = 0; i < entities.length; i++) if (entities[i]! < least || entities[i]! > most) return false;
  return true;
}
