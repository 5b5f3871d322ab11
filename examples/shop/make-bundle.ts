/** The bundle that is committed here: the shop's products and brands, weights at random. What it lists means nothing; what it computes is exact. */
import { fileURLToPath } from 'node:url';
import { writeBundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import { BRANDS, PRODUCTS } from './generate.ts';

const products = Array.from({ length: PRODUCTS }, (_, i) => `product:${i + 1}`);
const brands = Array.from({ length: BRANDS }, (_, i) => `brand:b${i + 1}`);
const entities = [...products, ...brands];
const bundle = randomBundle({
  name: 'shop-untrained',
  dimension: 32,
  layers: 2,
  heads: 2,
  maxSequenceLength: 200,
  vocabularySize: entities.length,
  unknownEntity: 'skip',
  actions: { encoded: ['view', 'cart', 'purchase', 'follow'], skipped: [] },
  tokens: { layout: 'additive', values: { purchase: [10, 30, 60] } },
});
await writeBundle(fileURLToPath(new URL('bundle', import.meta.url)), { ...bundle, entities });
