/** Registers the codecs that kafkajs leaves to others: all of them interoperate with the Java client. */
import { init as initZstd, compress as zstdCompress, decompress as zstdDecompress } from '@bokuweb/zstd-wasm';
import kafkajs, { type CompressionTypes as CompressionType } from 'kafkajs';
import SnappyCodec from 'kafkajs-snappy';
import { compressFrameSync, decompressFrameSync } from 'lz4-napi';
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

/** All of them, whatever is configured for producing: what others have produced is read as well. Repeatable. */
export function registerCodecs(): void {
  const zstdReady = once(initZstd);
  CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async ({ buffer }: { buffer: Buffer }) => compressFrameSync(buffer),
    decompress: async (buffer: Buffer) => decompressFrameSync(buffer),
  });
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    async compress({ buffer }: { buffer: Buffer }) {
      await zstdReady();
      return Buffer.from(zstdCompress(buffer, ZSTD_LEVEL));
    },
    async decompress(buffer: Buffer) {
      await zstdReady();
      return Buffer.from(zstdDecompress(buffer));
    },
  });
}

function once(start: () => Promise<void>): () => Promise<void> {
  let started: Promise<void> | undefined;
  return () => {
    started ??= start();
    return started;
  };
}
