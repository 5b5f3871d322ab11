/** Numbers as people read them. */
import { printable } from './printable.ts';

export const count = (value: number): string => Math.round(value).toLocaleString('en-US');

export const mebibytes = (bytes: number): string => `${count(bytes / 2 ** 20)} MiB`;

export const percent = (share: number): string => (Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : '–');

/** `1.49e-7`; `–` for a number that does not exist. */
export const scientific = (value: number): string => (Number.isFinite(value) ? value.toExponential(2) : '–');

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A cell of a table: numbers short, dates without their zone, strings without control characters. */
export function cell(value: unknown): string {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'number') return Number.isInteger(value) ? count(value) : value.toPrecision(3);
  return printable(typeof value === 'object' ? JSON.stringify(value) : String(value));
}
