/** @file `benchmarks/README.md` and its plots, made of the tables and of what was measured. */
import { linePlot, type PlotSeries } from "@espalier/report";
import { type Cell, cellsOf } from "./cells.ts";
import { fidelitySection } from "./fidelity.ts";
import { methods } from "./methods.ts";
import { peersSection } from "./peers.ts";
import { pruningPeersSection } from "./pruning-peers.ts";
import { type CellResult, readResult, resultPath } from "./results.ts";
import type { PresetName, Published, Table } from "./table.ts";

/** The measured cells of a preset. */
export interface Measured {
  readonly cell: Cell;
  readonly result: CellResult;
}

/** Cells of one method under one budget, by their seeds. */
interface Row {
  readonly cell: Cell;
  readonly results: readonly CellResult[];
}

// Accuracies of the smoke preset mean nothing.
const shown: readonly PresetName[] = ["paper", "quick"];

export async function readMeasured(
  directory: string,
  table: Table,
  preset: PresetName,
): Promise<Measured[]> {
  const measured: Measured[] = [];
  for (const cell of cellsOf(table, preset)) {
    const result = await readResult(resultPath(directory, cell));
    if (result !== undefined) measured.push({ cell, result });
  }
  return measured;
}

/** As Map.groupBy, which Node 20 does not have. */
function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}

function rowsOf(measured: readonly Measured[]): Row[] {
  const groups = groupBy(measured, ({ cell: { data, keep, method } }) =>
    [data, keep, method].join("|"),
  );
  return [...groups.values()].map((group) => ({
    cell: group[0].cell,
    results: group.map(({ result }) => result),
  }));
}

const meanOf = (values: readonly number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;

/** Standard deviation of a sample of at least two. */
function spreadOf(values: readonly number[]): number {
  const mean = meanOf(values);
  return Math.sqrt(
    values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1),
  );
}

/** "91.54" or, of several, "91.54 ± 0.12". */
function withSpread(values: readonly number[], decimals = 2): string {
  const mean = meanOf(values).toFixed(decimals);
  return values.length < 2 ? mean : `${mean} ± ${spreadOf(values).toFixed(decimals)}`;
}

const percent = (shares: readonly number[]) => withSpread(shares.map((share) => 100 * share));
const minus = (text: string) => text.replace(/^-/, "−");
const millions = (values: readonly number[], decimals = 2) =>
  (meanOf(values) / 1e6).toFixed(decimals);
const markdownTable = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

function measuredTable(rows: readonly Row[]): string {
  const hasHap = rows.some(({ results }) => results[0].dense.hapFlops !== null);
  const head = [
    "kept",
    "method",
    "as pruned",
    "tuned, last epoch",
    "change",
    "best on test",
    "components kept (implants)",
    "parameters, M",
    "MACs, M",
    "MACs ratio",
    ...(hasHap ? ["HAP's FLOPs, M (share)"] : []),
    "speed-up, batch 1",
    "batch 64",
    "seeds",
  ];
  const ordered = [...rows].sort((a, b) => b.cell.keep - a.cell.keep);
  return markdownTable(
    head,
    ordered.map(({ cell, results }) => {
      const of = (read: (result: CellResult) => number) => results.map(read);
      const change = meanOf(of(({ accuracy }) => 100 * (accuracy.tuned - accuracy.dense)));
      const best = results.flatMap(({ accuracy }) => accuracy.bestOnTest ?? []);
      const speedUp = (batch: string) =>
        `${withSpread(of(({ latency }) => latency[batch].dense / latency[batch].pruned))}×`;
      const flops = of(({ pruned }) => pruned.hapFlops ?? 0);
      const share = meanOf(of(({ dense, pruned }) => (pruned.hapFlops ?? 0) / dense.hapFlops!));
      return [
        `${100 * cell.keep} %`,
        cell.method,
        percent(of(({ accuracy }) => accuracy.pruned)),
        percent(of(({ accuracy }) => accuracy.tuned)),
        minus(change.toFixed(2)),
        best.length === 0 ? "–" : percent(best),
        `${meanOf(of(({ components }) => components.after)).toFixed(0)} of ${results[0].components.before} (${meanOf(of(({ components }) => components.implants)).toFixed(0)})`,
        millions(
          of(({ pruned }) => pruned.parameters),
          3,
        ),
        millions(of(({ pruned }) => pruned.macs)),
        `${withSpread(of(({ dense, pruned }) => dense.macs / pruned.macs))}×`,
        ...(hasHap ? [`${millions(flops)} (${(100 * share).toFixed(1)} %)`] : []),
        speedUp("1"),
        speedUp("64"),
        String(results.length),
      ];
    }),
  );
}

const UNKNOWN = "not known";

function publishedTable(rows: readonly Published[]): string {
  const hasData = rows.some(({ data }) => data !== undefined);
  const known = (value: number | null, format: (value: number) => string) =>
    value === null ? UNKNOWN : format(value);
  return markdownTable(
    [
      "published",
      ...(hasData ? ["data"] : []),
      "accuracy",
      "of its base",
      "change",
      "parameters, M",
      "MACs, M",
      "MACs ratio",
      "source",
    ],
    rows.map(({ method, data, accuracy, baseAccuracy, parameters, macs, macsRatio, ...row }) => [
      method,
      ...(hasData ? [data ?? "–"] : []),
      known(accuracy, (value) => value.toFixed(2)),
      known(baseAccuracy, (value) => value.toFixed(2)),
      accuracy === null || baseAccuracy === null
        ? UNKNOWN
        : minus((accuracy - baseAccuracy).toFixed(2)),
      known(parameters, (value) => (value / 1e6).toFixed(2)),
      known(macs, (value) => (value / 1e6).toFixed(2)),
      known(macsRatio, (value) => `${value.toFixed(2)}×`),
      row.note === undefined ? row.source : `${row.source}; ${row.note}`,
    ]),
  );
}

/** One line for each method, through its budgets. */
function seriesOf(
  rows: readonly Row[],
  point: (result: CellResult) => { readonly x: number; readonly y: number },
): PlotSeries[] {
  const byMethod = groupBy(rows, ({ cell }) => cell.method);
  return [...byMethod].map(([name, own]) => ({
    name,
    points: own
      .map(({ cell, results }) => {
        const points = results.map(point);
        const [x, y] = [meanOf(points.map((at) => at.x)), meanOf(points.map((at) => at.y))];
        return {
          x,
          y,
          text: `${name}, ${100 * cell.keep} % kept: ${y.toFixed(2)} at ${x.toFixed(2)}`,
        };
      })
      .sort((a, b) => a.x - b.x),
  }));
}

/** Published accuracies at the costs that they are stated for, or that follow from a ratio. */
function publishedSeries(
  { paper, published }: Table,
  data: string,
  cost: (row: Published) => number | null,
): PlotSeries[] {
  const points = [...paper, ...published]
    .filter((row) => row.data === undefined || row.data === data)
    .flatMap((row) => {
      const x = cost(row);
      const { accuracy: y, method } = row;
      if (x === null || y === null) return [];
      return [{ x, y, text: `${method}: ${y.toFixed(2)} at ${x.toFixed(2)}, as published` }];
    });
  return points.length === 0 ? [] : [{ name: "published", points, scattered: true }];
}

/** The plots of a preset on one data set, by the ends of their files' names. */
function plotsOf(table: Table, data: string, rows: readonly Row[]): Map<string, string> {
  const [{ dense }] = rows[0].results;
  const accuracy = ({ accuracy: { tuned } }: CellResult) => 100 * tuned;
  const y = { label: "accuracy after the last epoch, %" };
  const onTable = `${table.title}${table.data.length > 1 ? `, ${data}` : ""}`;
  const millionsOf = (value: number) => value / 1e6;
  const macsOf = ({ macs, macsRatio }: Published) =>
    macs !== null
      ? millionsOf(macs)
      : macsRatio === null
        ? null
        : millionsOf(dense.macs) / macsRatio;
  return new Map([
    [
      "accuracy-macs.svg",
      linePlot({
        title: `${onTable}: accuracy and MACs`,
        description: "Accuracy against multiply-accumulates, one line for each method.",
        x: { label: "MACs of a sample, millions" },
        y,
        series: [
          ...seriesOf(rows, (result) => ({
            x: millionsOf(result.pruned.macs),
            y: accuracy(result),
          })),
          ...publishedSeries(table, data, macsOf),
        ],
      }),
    ],
    [
      "accuracy-parameters.svg",
      linePlot({
        title: `${onTable}: accuracy and parameters`,
        description: "Accuracy against parameters, one line for each method.",
        x: { label: "parameters, millions" },
        y,
        series: [
          ...seriesOf(rows, (result) => ({
            x: millionsOf(result.pruned.parameters),
            y: accuracy(result),
          })),
          ...publishedSeries(table, data, ({ parameters }) =>
            parameters === null ? null : millionsOf(parameters),
          ),
        ],
      }),
    ],
    [
      "speed-up.svg",
      linePlot({
        title: `${onTable}: speed-up and MACs`,
        description: "How many times faster a batch of 64 is, against how many times fewer MACs.",
        x: { label: "times fewer MACs" },
        y: { label: "times faster, batch of 64" },
        series: seriesOf(rows, ({ dense, pruned, latency: { 64: times } }) => ({
          x: dense.macs / pruned.macs,
          y: times.dense / times.pruned,
        })),
      }),
    ],
  ]);
}

/** What a preset has left: its part of the page, and the plots in it. */
function presetSection(
  table: Table,
  preset: PresetName,
  measured: readonly Measured[],
): { readonly text: string; readonly files: Map<string, string> } {
  const files = new Map<string, string>();
  const { description } = table.presets[preset];
  const total = cellsOf(table, preset).length;
  const command = `npm run benchmark -- ${table.name}${preset === "quick" ? "" : ` --preset ${preset}`}`;
  const lines = [
    `### \`${preset}\``,
    "",
    `${description} \`${command}\`: ${measured.length} of ${total} cells measured.`,
  ];
  const rows = rowsOf(measured);
  for (const [data, own] of groupBy(rows, ({ cell }) => cell.data)) {
    const [{ accuracy, dense, data: samples, machine, epochs, latency }] = own[0].results;
    const dash = table.data.length > 1 ? `-${data.replace(/\W+/g, "-")}` : "";
    const times = Object.entries(latency).map(
      ([batch, each]) => `${each.dense.toFixed(2)} ms a batch of ${batch}`,
    );
    lines.push(
      "",
      `${table.data.length > 1 ? `**${data}**: ` : ""}dense ${(100 * accuracy.dense).toFixed(2)} % of ${samples.test.toLocaleString("en")} test samples, ${(dense.parameters / 1e6).toFixed(3)} M parameters, ${(dense.macs / 1e6).toFixed(2)} M MACs, ${times.join(", ")}; tuned on ${samples.train.toLocaleString("en")} training samples, ${epochs} epochs. ${machine.processor}, ${machine.threads} threads, ${machine.runtime}.${samples.verified ? "" : " The files are not those of the published data set, or have no checksums."}`,
      "",
      measuredTable(own),
      "",
    );
    for (const [end, svg] of plotsOf(table, data, own)) {
      const path = `results/${table.name}/${preset}${dash}-${end}`;
      files.set(path, svg);
      lines.push(`![${/<title>([^<]*)/.exec(svg)![1]}](${path})`);
    }
  }
  return { text: lines.join("\n"), files };
}

function budgetOf({ budget, kinds }: Table): string {
  if (budget === "components" && kinds !== undefined) return kinds.map((kind) => `${kind}s`).join();
  return budget === "macs" ? "multiply-accumulates" : budget;
}

function tableSection(
  table: Table,
  measured: ReadonlyMap<PresetName, readonly Measured[]>,
): { readonly text: string; readonly files: Map<string, string> } {
  const files = new Map<string, string>();
  const others = [...table.paper, ...table.published];
  const parts = [
    `## ${table.title}`,
    `${table.model}. Budgets are shares of the ${budgetOf(table)}. The table is [tables/${table.name}.json](tables/${table.name}.json).`,
  ];
  if (table.notes !== undefined) parts.push(table.notes);
  for (const preset of shown) {
    const section = presetSection(table, preset, measured.get(preset) ?? []);
    parts.push(section.text);
    for (const [path, svg] of section.files) files.set(path, svg);
  }
  if (others.length > 0) {
    parts.push("### Published", publishedTable(others));
    const gaps = others.some((row) => Object.values(row).includes(null));
    if (gaps)
      parts.push(
        `What is ${UNKNOWN} can be filled in, with its source, in tables/${table.name}.json.`,
      );
  }
  return { text: parts.join("\n\n"), files };
}

/**
 * All documents, by their paths in the directory `benchmarks`.
 *
 * @param results Where the results are.
 * @param fidelityOf The presets of the fidelity of estimators; default: as for tables.
 */
export async function renderPages(
  tables: readonly Table[],
  results: string,
  fidelityOf?: Parameters<typeof fidelitySection>[2],
): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const sections: string[] = [];
  for (const table of tables) {
    const measured = new Map<PresetName, Measured[]>();
    for (const preset of shown) measured.set(preset, await readMeasured(results, table, preset));
    const section = tableSection(table, measured);
    sections.push(section.text);
    for (const [path, svg] of section.files) files.set(path, svg);
  }
  const fidelity = await fidelitySection(results, tables, fidelityOf);
  for (const [path, svg] of fidelity.files) files.set(path, svg);
  files.set(
    "README.md",
    `${[intro(), ...sections, fidelity.text, await peersSection(results), await pruningPeersSection(results)].join("\n\n")}\n`,
  );
  return files;
}

function intro(): string {
  return [
    "<!-- Made by `npm run benchmark -- --render` from tables/ and results/; not to be edited. -->",
    "# Benchmarks",
    "`npm run benchmark -- TABLE [--preset smoke|quick|paper]` measures a table, cell by cell, the most telling first. A cell is one method under one budget with one seed; it is a run directory below `runs/benchmark`, which goes on where it was stopped, and a file in [results](results) named by a hash of all its inputs. A cell that has its file is never measured again.",
    "Accuracies are of the test set, in per cent, after the last epoch; nothing is chosen by them. *Best on test* is the highest test accuracy of any epoch, which the code of the paper reports; it is here to compare with figures that were found so, and for nothing else. *As pruned* is before any tuning. *HAP's FLOPs* are counted by the rule of its code. Speed-ups are of ONNX Runtime, dense and pruned model timed side by side. With several seeds, ± is their standard deviation.",
    markdownTable(
      ["method", "what it does"],
      Object.entries(methods).map(([name, { description }]) => [
        name,
        description.replaceAll("|", "\\|"),
      ]),
    ),
  ].join("\n\n");
}
