import fc from 'fast-check';
import { of } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { type DecodeRequestResult, decode } from '../../operators/decode.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import type { DecodedBatch, SourceBatch } from '../../schemas/batch.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { decoder, event, marbles, sourceBatch } from './fixtures.ts';
import { requestOf } from './request-fixtures.ts';

const row = (id: string) => ({ ...event('a', id, 1000) });
const run = (batch: SourceBatch, by = decoder): DecodedBatch => {
  let out: DecodedBatch | undefined;
  of(batch)
    .pipe(decode({ decoder: by }))
    .subscribe((decoded) => {
      out = decoded;
    });
  return out!;
};

describe('decode', () => {
  operatorContract('decode', {
    create: () => decode({ decoder }),
    inputs: () => [sourceBatch(0, [row('e0'), { bad: true }]), sourceBatch(2, [row('e1')])],
    view: ({ actions, deadLetters }: DecodedBatch) => ({ actions, deadLetters }),
  });

  it('gives a batch for a batch, in its own time', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const batches = { a: sourceBatch(0, []), b: sourceBatch(0, []) };
      const source$ = cold('  -a--(ab|)', batches);
      const subscribed = '    ^---!';
      const expected = '      -a--(ab|)';
      const empty = { actions: [], deadLetters: [] };
      expectObservable(source$.pipe(decode({ decoder }))).toBe(expected, {
        a: { source: batches.a, ...empty },
        b: { source: batches.b, ...empty },
      });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('decodes batches of the topic of requests as requests, and no others', () => {
    const requests = {
      topic: 'requests',
      decoder: {
        decodeRequest: ({ value, position }: SourceRecord): DecodeRequestResult => {
          if (value === 'throws') throw new Error('decoder blew up');
          if (value === 'bad') return { ok: false, code: 'FIELD_MISSING', message: 'requestId is missing' };
          return { ok: true, request: requestOf({ userId: String(value), position }) };
        },
      },
    };
    const [actions, asked] = [sourceBatch(0, [row('e0')]), { ...sourceBatch(5, ['a', 'bad', 'b', 'throws']), topic: 'requests' }];
    const out: DecodedBatch[] = [];
    of(actions, asked)
      .pipe(decode({ decoder, requests }))
      .subscribe((batch) => out.push(batch));
    expect(out[0]).toEqual(run(actions));
    expect('requests' in out[0]!).toBe(false);
    expect(out[1]).toMatchObject({
      actions: [],
      requests: [
        { userId: 'a', position: { offset: 5 } },
        { userId: 'b', position: { offset: 7 } },
      ],
      deadLetters: [
        { code: 'FIELD_MISSING', step: 'decode', position: { offset: 6 } },
        { code: 'RECORD_MALFORMED', step: 'decode', position: { offset: 8 } },
      ],
    });
  });

  it('sorts every record into actions or dead letters, in record order', () => {
    const kind = fc.constantFrom('good', 'bad', 'throws');
    fc.assert(
      fc.property(fc.array(kind, { maxLength: 20 }), fc.nat(1000), (kinds, offset) => {
        const source = sourceBatch(
          offset,
          kinds.map((k, i) => (k === 'good' ? row(`e${i}`) : { [k]: true })),
        );
        const { actions, deadLetters, ...rest } = run(source);
        const at = (wanted: boolean) => kinds.flatMap((k, i) => ((k === 'good') === wanted ? [offset + i] : []));
        expect(rest.source).toBe(source);
        expect(actions.map(({ position }) => position.offset)).toEqual(at(true));
        expect(deadLetters.map(({ position }) => position.offset)).toEqual(at(false));
      }),
    );
  });

  it('says of a dead letter which step, why, where and what', () => {
    const bytes = Uint8Array.of(0xff, 0x00);
    const refusing = { decode: () => ({ ok: false, code: 'FIELD_INVALID', message: 'no' }) as const };
    const circular: Record<string, unknown> = {};
    circular['self'] = circular;
    const { deadLetters } = run(sourceBatch(5, [bytes, 'text', { n: 1, big: 2n }, circular]), refusing);
    expect(deadLetters[0]).toEqual({
      position: { topic: 'actions', partition: 0, offset: 5 },
      code: 'FIELD_INVALID',
      step: 'decode',
      message: 'no',
      original: bytes,
    });
    expect(deadLetters.slice(1).map(({ original }) => original)).toEqual(['text', '{"n":1,"big":"2"}', '[object Object]']);
  });

  it('makes a dead letter of a record that the decoder throws at', () => {
    const { deadLetters, actions } = run(sourceBatch(0, [{ throws: true }, row('e1')]));
    expect(deadLetters).toMatchObject([{ code: 'RECORD_MALFORMED', message: 'decoder blew up', original: '{"throws":true}' }]);
    expect(actions.length).toBe(1);
  });
});
