/** Registers the codecs that kafkajs leaves to others: all of them interoperate with the Java client. */
import { init as initZstd, compress as zstdCompress } from '@bokuweb/zstd-wasm';
import kafkajs, { type CompressionTypes as CompressionType } from 'kafkajs';
import SnappyCodec from 'kafkajs-snappy';
import { compressFrameSync } from 'lz4-napi';
import type { KafkaConfig } from '../../schemas/config.ts';

const { CompressionCodecs, CompressionTypes } = kafkajs;

/** zstd's default level. */
const ZSTD_LEVEL = 3;
const TYPES: Record<KafkaConfig['compression'], CompressionType> = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
};

export const compressionType = (name: KafkaConfig['compression']): CompressionType => TYPES[name];

/** Once a process: begun again, it compresses to bytes that are no zstd. */
const zstdReady = once(initZstd);

/** What kafkajs packs our batches with; unpacking is ours (`wire/codecs.ts`). Repeatable. */
export function registerCodecs(): void {
  CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async ({ buffer }: { buffer: Buffer }) => compressFrameSync(buffer),
    decompress: unused,
  });
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    async compress({ buffer }: { buffer: Buffer }) {
      await zstdReady();
      return Buffer.from(zstdCompress(buffer, ZSTD_LEVEL));
    },
    decompress: unused,
  });
}

/** kafkajs fetches nothing here. */
const unused = () => Promise.reject(new Error('batches are unpacked by wire/codecs.ts'));

function once(start: () => Promise<void>): () => Promise<void> {
  let started: Promise<void> | undefined;
  return () => {
    started ??= start();
    return started;
  };
}
