/** A report as pictures: how step and full encode grow, the peers, the cache's policies. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type EChartsOption, init } from 'echarts';
import type { Figures, Report } from './report.ts';

interface Picture {
  readonly file: string;
  readonly width: number;
  readonly height: number;
  readonly option: EChartsOption;
}

const PANEL = { width: 420, height: 300, left: 70, top: 115, gap: 90 };
const COLOURS = ['#2f6fab', '#d9822b', '#4f9a5f', '#9a5fa8'];

/** Draws what the report has figures for. @returns the files */
export async function drawPictures({ figures, machine, commit, runs }: Report, folder: string): Promise<string[]> {
  const under = (suite: string) => `${machine.cpu}, ${machine.cores} cores · commit ${runs[suite]?.commit ?? commit}`;
  const { scaling, peers, cache } = figures;
  const pictures = [
    scaling && stepAndFull(scaling, under('scaling')),
    scaling && scalingCurves(scaling, under('scaling')),
    peers && peerBars(peers, under('peers')),
    cache && cacheCurves(cache, under('cache')),
  ].filter((picture) => picture !== undefined);
  await mkdir(folder, { recursive: true });
  const files: string[] = [];
  for (const { file, width, height, option } of pictures) {
    const chart = init(null, null, { renderer: 'svg', ssr: true, width, height });
    chart.setOption({ animation: false, backgroundColor: '#fff', color: COLOURS, ...option });
    files.push(join(folder, file));
    await writeFile(files.at(-1)!, `${chart.renderToSVGString()}\n`);
    chart.dispose();
  }
  return files;
}

const titleOf = (text: string, subtext: string) => ({ text, subtext, left: 'center', textStyle: { fontSize: 16 } });

function stepAndFull(scaling: NonNullable<Figures['scaling']>, under: string): Picture {
  const points = scaling.filter(({ axis }) => axis === 'n');
  const { D, L, B } = points[0]!;
  const line = (
    name: string,
    of: (point: (typeof points)[number]) => number,
    label: (point: (typeof points)[number]) => string,
  ) => ({
    type: 'line' as const,
    name,
    data: points.map((point) => [point.n, of(point)]),
    symbolSize: 8,
    label: {
      show: true,
      position: 'top' as const,
      formatter: ({ dataIndex }: { readonly dataIndex: number }) => label(points[dataIndex]!),
    },
  });
  return {
    file: 'step-and-full.svg',
    width: 760,
    height: 460,
    option: {
      title: titleOf(
        'One exact step, and encoding the history anew',
        `D ${D}, ${L} layers, ${B} users a batch, one thread · ${under}`,
      ),
      legend: { top: 56, itemGap: 40 },
      grid: { left: 80, right: 60, top: 100, bottom: 60 },
      xAxis: { type: 'log', name: 'events of history', nameLocation: 'middle', nameGap: 32, min: 150, max: 5000 },
      yAxis: { type: 'log', name: 'µs a user' },
      series: [
        line(
          'full encode',
          ({ fullUs }) => fullUs,
          ({ fullUs, stepUs }) => `${Math.round(fullUs / stepUs)}×`,
        ),
        line(
          'exact step',
          ({ stepUs }) => stepUs,
          ({ stepUs }) => `${Math.round(stepUs)} µs`,
        ),
      ],
    },
  };
}

const AXIS_NAMES = { n: 'events of history', L: 'layers', D: 'width of the model', B: 'users a batch' } as const;

function scalingCurves(scaling: NonNullable<Figures['scaling']>, under: string): Picture {
  const panels = (['n', 'L', 'D', 'B'] as const).map((axis) => ({
    name: AXIS_NAMES[axis],
    lines: (['fullUs', 'stepUs'] as const).map((of) => ({
      name: of === 'fullUs' ? 'full encode' : 'exact step',
      points: scaling.filter((point) => point.axis === axis).map((point) => [point[axis], point[of]] as const),
    })),
  }));
  const { D, L, n, B } = scaling.find(({ axis }) => axis === 'B')!;
  const others = `one at a time around n ${n}, L ${L}, D ${D}, B ${scaling.find(({ axis }) => axis === 'n')?.B ?? B}`;
  return panelled('scaling.svg', 'How step and full encode grow', `µs a user, ${others} · ${under}`, panels, 2, 'µs');
}

function cacheCurves(cache: NonNullable<Figures['cache']>, under: string): Picture {
  const traces = [...new Set(cache.map(({ trace }) => trace))];
  const lengths = [...new Set(cache.map(({ n }) => n))];
  const policies = [...new Set(cache.map(({ policy }) => policy))];
  const panels = lengths.flatMap((n) =>
    traces.map((trace) => ({
      name: `budget, % of all rows (${trace}, n ${n})`,
      lines: policies.map((policy) => ({
        name: policy,
        points: cache
          .filter((of) => of.trace === trace && of.n === n && of.policy === policy)
          .map(({ budget, costLeft }) => [100 * budget, 100 * costLeft] as const),
      })),
    })),
  );
  const subtitle = `cost left, % of encoding every window anew; “clairvoyant” knows the future · ${under}`;
  return panelled('cache.svg', 'What a policy leaves to encode', subtitle, panels, traces.length, '%');
}

interface Panel {
  readonly name: string;
  readonly lines: readonly { readonly name: string; readonly points: readonly (readonly [x: number, y: number])[] }[];
}

function panelled(
  file: string,
  title: string,
  subtitle: string,
  panels: readonly Panel[],
  columns: number,
  unit: string,
): Picture {
  const at = (i: number) => ({
    left: PANEL.left + (i % columns) * (PANEL.width + PANEL.gap - 10),
    top: PANEL.top + Math.floor(i / columns) * (PANEL.height + PANEL.gap - 20),
    width: PANEL.width,
    height: PANEL.height - 40,
  });
  return {
    file,
    width: PANEL.left + columns * (PANEL.width + PANEL.gap - 10),
    height: PANEL.top + Math.ceil(panels.length / columns) * (PANEL.height + PANEL.gap - 20),
    option: {
      title: titleOf(title, subtitle),
      legend: { top: 56, itemGap: 40, data: panels[0]!.lines.map(({ name }) => name) },
      grid: panels.map((_, i) => at(i)),
      // The values are about as far apart as their logarithms; as categories their labels are exact.
      xAxis: panels.map((panel, i) => ({
        gridIndex: i,
        type: 'category',
        boundaryGap: false,
        data: panel.lines[0]!.points.map(([x]) => x.toLocaleString('en-US')),
        name: panel.name,
        nameLocation: 'middle',
        nameGap: 26,
      })),
      yAxis: panels.map((_, i) => ({ gridIndex: i, type: 'log', name: unit })),
      series: panels.flatMap(({ lines }, i) =>
        lines.map(({ name, points }, line) => ({
          type: 'line' as const,
          name,
          xAxisIndex: i,
          yAxisIndex: i,
          data: points.map(([, y]) => y),
          symbolSize: 6,
          itemStyle: { color: COLOURS[line]! },
        })),
      ),
    },
  };
}

function peerBars(peers: NonNullable<Figures['peers']>, under: string): Picture {
  const names: Readonly<Record<string, string>> = {
    exactlyOnce: 'exactly-once',
    atLeastOnce: 'at-least-once',
    kafkaStreams: 'Kafka Streams',
    quixStreams: 'Quix Streams',
  };
  const systems = [...new Set(peers.map(({ system }) => system))];
  const histories = [...new Set(peers.map(({ history }) => history))];
  return {
    file: 'peers.svg',
    width: 760,
    height: 460,
    option: {
      title: titleOf('Actions a second, an embedding for every action', `same broker, records, model and cores · ${under}`),
      legend: { top: 56, itemGap: 40 },
      grid: { left: 80, right: 30, top: 140, bottom: 40 },
      xAxis: { type: 'category', data: histories.map((history) => `${history.toLocaleString('en-US')} events of history`) },
      yAxis: { type: 'log', name: 'actions/s', min: 10 },
      series: systems.map((system) => ({
        type: 'bar',
        name: names[system] ?? system,
        data: histories.map(
          (history) => peers.find((of) => of.history === history && of.system === system)?.eventsPerSecond ?? Number.NaN,
        ),
        label: {
          show: true,
          position: 'top',
          formatter: ({ value }: { readonly value: unknown }) => Math.round(Number(value)).toLocaleString('en-US'),
        },
      })),
    },
  };
}
