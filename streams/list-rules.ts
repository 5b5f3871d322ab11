/** What lists may hold, by the settings and the model: one set of rules for live, replay and requests. */
import {
  type Caps,
  daysToSeconds,
  type HiddenOf,
  hiddenEvents,
  type KindTokenizer,
  type OwnHistory,
  ownRows,
  type SequenceRequestsOptions,
} from '../operators/index.ts';
import type { Config } from '../schemas/config.ts';
import type { AllowedRows, EncodeSegment } from '../schemas/encoding.ts';
import type { PipelineModel } from './pipeline-model.ts';

export interface ListModel extends Pick<PipelineModel, 'fields'> {
  readonly tokenizer: KindTokenizer & { entityRowOf(token: number): number };
}

export interface ListRules {
  readonly seenFilter: boolean | HiddenOf;
  /** Rows that lists may hold; undefined: all that are offered. */
  readonly allowed: AllowedRows | undefined;
  readonly allowedFor: NonNullable<SequenceRequestsOptions['allowed']>;
  readonly caps: Caps | undefined;
  readonly ownHistory: OwnHistory | undefined;
  /** Of a window, entity rows that may be judged beside what was retrieved. */
  readonly ownOf: ((window: Omit<EncodeSegment, 'from'>) => Int32Array) | undefined;
}

/** @throws PipelineError `CONFIG_INVALID` for kinds that the model's tokens do not tell */
export function listRules({ scores }: Pick<Config, 'scores'>, { fields, tokenizer }: ListModel): ListRules {
  const { filter, caps, ownHistory: most } = scores;
  const seenFilter = seenFilterOf(scores, tokenizer);
  const own = filter === undefined ? [] : [filter];
  const allowed = filter === undefined ? undefined : fields.allowed(filter);
  const entityRowOf = (token: number) => tokenizer.entityRowOf(token);
  const ownHistory = most === 0 ? undefined : { most, entityRowOf };
  const hiddenOf = typeof seenFilter === 'function' ? seenFilter : () => new Int32Array(0);
  return {
    seenFilter,
    allowed,
    allowedFor: (asked, wholeCatalogue) => {
      const filters = [...(wholeCatalogue ? own : []), ...(asked === undefined ? [] : [asked])];
      return filters.length === 0 ? undefined : fields.allowed(...filters);
    },
    caps: caps && { limits: caps, valuesOf: (row, field) => fields.valuesOf(row, field) },
    ownHistory,
    ownOf:
      ownHistory &&
      ((window) => {
        const hidden = new Set(Array.from(hiddenOf(window), entityRowOf));
        return ownRows(window, ownHistory, hidden, allowed ?? fields.allowed());
      }),
  };
}

function seenFilterOf({ seenFilter }: Config['scores'], tokenizer: KindTokenizer): boolean | HiddenOf {
  if (typeof seenFilter === 'boolean') return seenFilter;
  const { actions, forDays } = seenFilter;
  const withinS = forDays === undefined ? undefined : daysToSeconds(forDays);
  return hiddenEvents({ counts: tokenizer.ofKinds(actions), withinS });
}
