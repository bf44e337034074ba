/** @file Curves of a table, as plots: of accuracies, costs and times. */
import type { LinePlotOptions, PlotSection, PlotSeries } from "@espalier/report";
import { methodNames } from "./methods.ts";
import type { CellResult } from "./results.ts";
import {
  budgetOf,
  byDenseAccuracy,
  groupBy,
  inMillions,
  largestBatch,
  meanOf,
  millions,
  of,
  percent,
  type Row,
  speedUpOf,
  speedUpText,
  spreadOf,
  withSpread,
} from "./rows.ts";
import type { Published, Table } from "./table.ts";

/** The states of a model that accuracies are of. */
export const states = { tuned: "tuned", pruned: "as pruned" } as const;
type State = keyof typeof states;

const accuracyLabels: Readonly<Record<State, string>> = {
  tuned: "accuracy after tuning, %",
  pruned: "accuracy as pruned, %",
};

/** What accuracies are drawn against, in millions. */
interface Cost {
  readonly title: string;
  readonly label: string;
  readonly key: "macs" | "parameters";
  /** As published, or as it follows from a ratio; null where it is not known. */
  published(row: Published, dense: CellResult["dense"]): number | null;
}

const costs: readonly Cost[] = [
  {
    title: "MACs",
    label: "MACs of a sample, millions",
    key: "macs",
    published: ({ macs, macsRatio }, dense) =>
      macs ?? (macsRatio === null ? null : dense.macs / macsRatio),
  },
  {
    title: "parameters",
    label: "parameters, millions",
    key: "parameters",
    published: ({ parameters }) => parameters,
  },
];

export interface Curve {
  /** Ends the name of its file. */
  readonly name: string;
  readonly plot: LinePlotOptions;
  /** Of what the accuracies are, where it shows any. */
  readonly state?: State;
}

/** The curves of the rows of one data set. */
export function curvesOf(table: Table, data: string, rows: readonly Row[]): Curve[] {
  const [first] = rows[0].results;
  const batch = largestBatch(rows);
  const subject = subjectOf(table, data);
  const accuracies = (["tuned", "pruned"] as const).flatMap((state) =>
    costs.map(({ title, label, key, published }): Curve => {
      const publishedSeries = (name: string, all: readonly Published[]) => ({
        name: `${name}, as published`,
        // Nobody says what a network has before it is tuned.
        points: (state === "tuned" ? all : [])
          .filter((row) => row.data === undefined || row.data === data)
          .flatMap((row) => {
            const cost = published(row, first.dense);
            if (cost === null || row.accuracy === null) return [];
            return [{ x: inMillions(cost), y: row.accuracy, text: describePublished(row) }];
          }),
        scattered: true,
      });
      return {
        name: `accuracy-${key}`,
        state,
        plot: {
          title: `${subject}: accuracy and ${title}`,
          description: `Accuracy against ${label.replace(",", " in")}, one line for each method; ours after the last epoch, others' as they published it.`,
          x: { label },
          y: { label: accuracyLabels[state] },
          series: [
            ...seriesOf(table, rows, (result) => ({
              x: inMillions(result.pruned[key]),
              y: 100 * result.accuracy[state],
            })),
            denseSeries(rows, key),
            publishedSeries("HAP", table.paper),
            publishedSeries("others", table.published),
          ],
        },
      };
    }),
  );
  const speedUp: Curve = {
    name: "speed-up",
    plot: {
      title: `${subject}: speed-up and MACs`,
      description: `How many times faster a batch of ${batch} is, against how many times fewer MACs.`,
      x: { label: "times fewer MACs" },
      y: { label: `times faster, batch of ${batch}` },
      series: seriesOf(table, rows, (result) => {
        const y = speedUpOf(result, batch);
        return y === undefined ? undefined : { x: result.dense.macs / result.pruned.macs, y };
      }),
    },
  };
  return [...accuracies, speedUp];
}

/** The curves of one data set, for the page. */
export function curvesSection(
  table: Table,
  preset: string,
  data: string,
  rows: readonly Row[],
  text: string,
): PlotSection {
  return {
    path: [table.title, preset, data],
    text,
    plots: curvesOf(table, data, rows).map(({ plot, state }) => ({
      ...plot,
      variant: state && states[state],
    })),
  };
}

const subjectOf = ({ title, data: all }: Table, data: string) =>
  `${title}${all.length > 1 ? `, ${data}` : ""}`;

/** One line for each method, through its budgets. */
function seriesOf(
  table: Table,
  rows: readonly Row[],
  point: (result: CellResult) => { readonly x: number; readonly y: number } | undefined,
): PlotSeries[] {
  const byMethod = groupBy(rows, ({ cell }) => cell.method);
  // All methods, so that each looks the same in every plot.
  return methodNames.map((name) => ({
    name,
    points: (byMethod.get(name) ?? [])
      .flatMap((row) => {
        const points = of(row, point).filter((each) => each !== undefined);
        if (points.length === 0) return [];
        const ys = points.map(({ y }) => y);
        return {
          x: meanOf(points.map(({ x }) => x)),
          y: meanOf(ys),
          spread: spreadOf(ys),
          text: describeRow(table, row),
        };
      })
      .sort((a, b) => a.x - b.x),
  }));
}

/** The networks that everything of ours began with. */
function denseSeries(rows: readonly Row[], key: Cost["key"]): PlotSeries {
  const results = rows.flatMap((row) => row.results);
  const [{ dense }] = results;
  return {
    name: "dense",
    points: [...byDenseAccuracy(rows).keys()].map((accuracy) => ({
      x: inMillions(dense[key]),
      y: 100 * accuracy,
      text: `dense\n${percent([accuracy])} %\n${millions([dense.parameters], 3)} M parameters, ${millions([dense.macs])} M MACs`,
    })),
    scattered: true,
  };
}

/** All that a mark says. */
function describeRow(table: Table, row: Row): string {
  const { method, keep } = row.cell;
  const dense = percent(of(row, ({ accuracy }) => accuracy.dense));
  const accuracies = (["tuned", "pruned"] as const).map(
    (state) => `${percent(of(row, ({ accuracy }) => accuracy[state]))} % ${states[state]}`,
  );
  const ratio = withSpread(of(row, (result) => result.dense.macs / result.pruned.macs));
  const batch = largestBatch([row]);
  const parameters = of(row, ({ pruned }) => pruned.parameters);
  const macs = of(row, ({ pruned }) => pruned.macs);
  const seeds = row.results.length;
  return [
    `${method}, ${100 * keep} % of the ${budgetOf(table)} kept`,
    `${accuracies.join(", ")}; dense ${dense} %`,
    `${millions(parameters, 3)} M parameters, ${millions(macs)} M MACs, ${ratio} times fewer`,
    `times faster: ${speedUpText(row, 1)} one at a time, ${speedUpText(row, batch)} in batches of ${batch}`,
    seeds === 1 ? "1 seed" : `mean ± standard deviation of ${seeds} seeds`,
  ].join("\n");
}

function describePublished(row: Published): string {
  const { method, accuracy, baseAccuracy, parameters, macs, macsRatio, source, note } = row;
  const sizes = [
    parameters !== null && `${millions([parameters])} M parameters`,
    macs !== null && `${millions([macs])} M MACs`,
    macsRatio !== null && `${macsRatio.toFixed(2)} times fewer MACs`,
  ].filter((size) => size !== false);
  return [
    `${method}, as published`,
    `${accuracy?.toFixed(2)} %${baseAccuracy === null ? "" : `; dense ${baseAccuracy.toFixed(2)} %`}`,
    sizes.join(", "),
    source,
    ...(note === undefined ? [] : [note]),
  ].join("\n");
}
