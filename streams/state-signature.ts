/** Whether a partition's state can be gone on with: by this model, this window, this program. */
import { createHash } from 'node:crypto';
import type { Bundle } from '../models/hstu/bundle.ts';
import { entityRows } from '../schemas/bundle-config.ts';
import { PipelineError } from '../schemas/errors.ts';
import type { StateSignature } from '../schemas/state.ts';

/** Layout of the state's records; a change of it makes older state unreadable. */
const FORMAT = 1;

export function signatureOf(bundle: Bundle, seenLimit: number): StateSignature {
  const { maxLength, blockLength } = bundle.config.window;
  const vocabulary = { size: bundle.entities.length, digest: vocabularyDigest(bundle.entities, bundle.entities.length) };
  const tokens = tokensDigest(bundle.config);
  const signature = { format: FORMAT, window: { maxLength, blockLength }, seenLimit, vocabulary };
  return tokens === undefined ? signature : { ...signature, tokens, actions: bundle.config.actions.encoded.length };
}

/**
 * The numbers that stand for tokens depend on all of this, the size of the vocabulary among it. A kind of action that comes after
 * the others is a higher bit: what was is as it was.
 */
function tokensDigest(config: Bundle['config'], kinds = config.actions.encoded.length): string | undefined {
  const { tokens, outOfVocabulary, actions } = config;
  if (tokens === undefined && outOfVocabulary === undefined) return undefined;
  const facts = [tokens, tokens && actions.encoded.slice(0, kinds), entityRows(config), outOfVocabulary];
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 16);
}

/**
 * @throws PipelineError `STATE_INCOMPATIBLE` listing every difference. A vocabulary, and kinds of action, that begin with the
 *   state's are no difference: what is written keeps its meaning
 */
export function requireCompatible(found: StateSignature, bundle: Bundle, wanted: StateSignature, where: string): void {
  const problems: string[] = [];
  const differ = (what: string, was: unknown, is: unknown) => was !== is && problems.push(`${what}: was ${was}, is ${is}`);
  differ('format', found.format, wanted.format);
  differ('window.maxLength of the bundle', found.window.maxLength, wanted.window.maxLength);
  differ('window.blockLength of the bundle', found.window.blockLength, wanted.window.blockLength);
  differ('sequence.seenLimit', found.seenLimit, wanted.seenLimit);
  differ('token layout, encoded actions or size of the vocabulary', found.tokens, tokensDigest(bundle.config, found.actions));
  const { size, digest } = found.vocabulary;
  if (size > bundle.entities.length) problems.push(`entities: the state knows ${size}, the bundle has ${bundle.entities.length}`);
  else if (digest !== vocabularyDigest(bundle.entities, size))
    problems.push(`entities: the bundle's first ${size} are not those that the state was made with`);
  if (problems.length > 0)
    throw new PipelineError(
      'STATE_INCOMPATIBLE',
      [
        `the state of ${where} was made with other settings:`,
        ...problems,
        'go back to them, or begin a new state: hstu-streams reset',
      ].join('\n  '),
    );
}

function vocabularyDigest(entities: readonly string[], size: number): string {
  const hash = createHash('sha256');
  for (let i = 0; i < size; i++) hash.update(`${entities[i]}\n`);
  return hash.digest('hex').slice(0, 16);
}
