/** A flame graph as SVG: a frame's width is its time with all that it called; what calls stands below what is called. */

export interface Frame {
  readonly name: string;
  /** With all that it called, µs. */
  us: number;
  readonly children: Map<string, Frame>;
}

const WIDTH = 1400;
const ROW = 17;
const MARGIN = 10;
const HEADER = 34;
/** Narrower than this a frame cannot be seen, px. */
const MIN_WIDTH = 0.6;
/** Of the font below, px a character at most. */
const CHARACTER = 6.6;

/** @param roots side by side, one a thread; a width is a share of the time of all of them */
export function flameGraph(title: string, roots: readonly Frame[]): string {
  const totalUs = roots.reduce((sum, { us }) => sum + us, 0);
  const scale = (WIDTH - 2 * MARGIN) / totalUs;
  const boxes: { readonly frame: Frame; readonly x: number; readonly depth: number }[] = [];
  const place = (frame: Frame, x: number, depth: number): void => {
    if (frame.us * scale < MIN_WIDTH) return;
    boxes.push({ frame, x, depth });
    let at = x;
    for (const child of [...frame.children.values()].sort((a, b) => b.us - a.us)) {
      place(child, at, depth + 1);
      at += child.us * scale;
    }
  };
  let x = MARGIN;
  for (const root of roots) {
    place(root, x, 0);
    x += root.us * scale;
  }
  const rows = 1 + Math.max(...boxes.map(({ depth }) => depth));
  const height = HEADER + rows * ROW + MARGIN;
  const drawn = boxes.map(({ frame, x: left, depth }) =>
    box(frame, left, height - MARGIN - (depth + 1) * ROW, frame.us * scale, frame.us / totalUs),
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="monospace" font-size="11">
<rect width="${WIDTH}" height="${height}" fill="#fff"/>
<text x="${MARGIN}" y="21" font-size="14">${escaped(title)}</text>
${drawn.join('\n')}
</svg>
`;
}

function box({ name, us }: Frame, x: number, y: number, width: number, share: number): string {
  const room = Math.floor((width - 6) / CHARACTER);
  const label = room < 3 ? '' : name.length <= room ? name : `${name.slice(0, room - 1)}…`;
  const text = label === '' ? '' : `<text x="${(x + 3).toFixed(1)}" y="${y + 12}">${escaped(label)}</text>`;
  const hint = `${name}: ${(us / 1e3).toFixed(0)} ms, ${(100 * share).toFixed(1)} %`;
  const shape = `x="${x.toFixed(1)}" y="${y}" width="${Math.max(0.3, width - 0.5).toFixed(1)}" height="${ROW - 1}"`;
  return `<g><title>${escaped(hint)}</title><rect ${shape} fill="${colourOf(name)}"/>${text}</g>`;
}

/** By the folder, so that a glance tells operators from models. */
function colourOf(name: string): string {
  const folder = / · (\w+)\//.exec(name)?.[1] ?? name;
  const colours: Readonly<Record<string, string>> = {
    operators: '#f2b56b',
    models: '#8fbf8f',
    schemas: '#d8c46a',
    streams: '#e39a8b',
    'onnxruntime-node': '#7fb2d9',
    'kernel (WebAssembly)': '#5f9bd1',
    'garbage collector': '#c9c9c9',
  };
  return colours[folder] ?? '#dcdce4';
}

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
