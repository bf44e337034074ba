/** @file `benchmarks/README.md`, its plots and the page of them, made of tables and of what was measured. */
import { linePlot, type PlotSection, plotPage } from "@espalier/report";
import { median } from "../side-by-side.ts";
import { cellsOf } from "./cells.ts";
import { curvesOf, curvesSection, states } from "./curves.ts";
import { fidelitySection } from "./fidelity.ts";
import { methods } from "./methods.ts";
import { peersSection } from "./peers.ts";
import { pruningPeersSection } from "./pruning-peers.ts";
import {
  budgetOf,
  byDenseAccuracy,
  largestBatch,
  type Measured,
  meanOf,
  millions,
  of,
  percent,
  type Row,
  readMeasured,
  rowsOf,
  speedUpText,
  withSpread,
} from "./rows.ts";
import type { PresetName, Published, Table } from "./table.ts";

// Accuracies of the smoke preset mean nothing.
const shown: readonly PresetName[] = ["paper", "quick"];

/** Parts of documents, and the files that belong to them. */
interface Section {
  readonly text: string;
  readonly files: Map<string, string>;
  /** What the page of curves shows of it. */
  readonly curves: readonly PlotSection[];
}

const minus = (text: string) => text.replace(/^-/, "−");
const markdownTable = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

function measuredTable(rows: readonly Row[]): string {
  const hasHap = rows.some(({ results }) => results[0].dense.hapFlops !== null);
  const batch = largestBatch(rows);
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
    "times faster, batch 1",
    `batch ${batch}`,
    "seeds",
  ];
  const ordered = [...rows].sort((a, b) => b.cell.keep - a.cell.keep);
  return markdownTable(
    head,
    ordered.map((row) => {
      const { cell, results } = row;
      const change = meanOf(of(row, ({ accuracy }) => 100 * (accuracy.tuned - accuracy.dense)));
      const best = results.flatMap(({ accuracy }) => accuracy.bestOnTest ?? []);
      const flops = of(row, ({ pruned }) => pruned.hapFlops ?? 0);
      const share = meanOf(
        of(row, ({ dense, pruned }) => (pruned.hapFlops ?? 0) / dense.hapFlops!),
      );
      const components = (key: "after" | "implants") =>
        meanOf(of(row, (result) => result.components[key])).toFixed(0);
      return [
        `${100 * cell.keep} %`,
        cell.method,
        percent(of(row, ({ accuracy }) => accuracy.pruned)),
        percent(of(row, ({ accuracy }) => accuracy.tuned)),
        minus(change.toFixed(2)),
        best.length === 0 ? "–" : percent(best),
        `${components("after")} of ${results[0].components.before} (${components("implants")})`,
        millions(
          of(row, ({ pruned }) => pruned.parameters),
          3,
        ),
        millions(of(row, ({ pruned }) => pruned.macs)),
        `${withSpread(of(row, ({ dense, pruned }) => dense.macs / pruned.macs))}×`,
        ...(hasHap ? [`${millions(flops)} (${(100 * share).toFixed(1)} %)`] : []),
        speedUpText(row, 1),
        speedUpText(row, batch),
        String(results.length),
      ];
    }),
  );
}

/** Where in the network components are kept, of each method. */
function placesTable(rows: readonly Row[]): string[] {
  const known = rows.filter(({ results }) => results[0].components.groups !== undefined);
  if (known.length === 0) return [];
  const count = known[0].results[0].components.groups!.length;
  return [
    "Kept in each layer, from the first to the last:",
    "",
    markdownTable(
      ["kept", "method", ...Array.from({ length: count }, (_, i) => String(i + 1))],
      known.map((row) => [
        `${100 * row.cell.keep} %`,
        row.cell.method,
        ...Array.from({ length: count }, (_, i) =>
          withSpread(
            row.results.flatMap(({ components }) => components.groups?.[i].after ?? []),
            1,
          ),
        ),
      ]),
    ),
    "",
  ];
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

/** What all rows of a data set have in common; times of the dense network are medians over its cells. */
function describeData(rows: readonly Row[]): string {
  const results = rows.flatMap((row) => row.results);
  const [{ dense, data: samples, epochs }] = results;
  const [[accuracy], ...others] = byDenseAccuracy(rows);
  const exceptions = others.map(([share, own]) => {
    const names = own.map(({ cell: { keep, method } }) => `${method} (${100 * keep} %)`);
    return ` From a dense network of ${percent([share])} %: ${names.join("; ")}.`;
  });
  const batches = new Set(results.flatMap(({ latency }) => Object.keys(latency)));
  const times = [...batches].map((batch) => {
    const known = results.flatMap(({ latency }) => latency[batch]?.dense ?? []);
    return `, ${median(known).toFixed(2)} ms a batch of ${batch}`;
  });
  const machines = new Set(
    results.map(({ machine }) =>
      [machine.processor, `${machine.threads} threads`, machine.runtime].join(", "),
    ),
  );
  return `dense ${percent([accuracy])} % of ${samples.test.toLocaleString("en")} test samples, ${(dense.parameters / 1e6).toFixed(3)} M parameters, ${(dense.macs / 1e6).toFixed(2)} M MACs${times.join("")}; tuned on ${samples.train.toLocaleString("en")} training samples, ${epochs} ${epochs === 1 ? "epoch" : "epochs"}. ${[...machines].join("; ")}.${samples.verified ? "" : " The files are not those of the published data set, or have no checksums."}${exceptions.join("")}`;
}

/** What a preset has left: its part of the page, and the plots in it. */
function presetSection(table: Table, preset: PresetName, measured: readonly Measured[]): Section {
  const files = new Map<string, string>();
  const curves: PlotSection[] = [];
  const { description } = table.presets[preset];
  const total = cellsOf(table, preset).length;
  const command = `npm run benchmark -- ${table.name}${preset === "quick" ? "" : ` --preset ${preset}`}`;
  const lines = [
    `### \`${preset}\``,
    "",
    `${description} \`${command}\`: ${measured.length} of ${total} cells measured.`,
  ];
  for (const [data, rows] of rowsOf(measured)) {
    const several = table.data.length > 1;
    const dash = several ? `-${data.replace(/\W+/g, "-")}` : "";
    const text = describeData(rows);
    const label = several ? `**${data}**: ` : "";
    lines.push("", `${label}${text}`, "", measuredTable(rows), "");
    if (table.kinds !== undefined) lines.push(...placesTable(rows));
    for (const { name, plot, state } of curvesOf(table, data, rows)) {
      if (state === "pruned") continue;
      const path = `results/${table.name}/${preset}${dash}-${name}.svg`;
      files.set(path, linePlot(plot));
      lines.push(`![${plot.title}](${path})`);
    }
    curves.push(curvesSection(table, preset, data, rows, text));
  }
  return { text: lines.join("\n"), files, curves };
}

function tableSection(
  table: Table,
  measured: ReadonlyMap<PresetName, readonly Measured[]>,
): Section {
  const curves: PlotSection[] = [];
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
    curves.push(...section.curves);
  }
  if (others.length > 0) {
    parts.push("### Published", publishedTable(others));
    const gaps = others.some((row) => Object.values(row).includes(null));
    if (gaps)
      parts.push(
        `What is ${UNKNOWN} can be filled in, with its source, in tables/${table.name}.json.`,
      );
  }
  return { text: parts.join("\n\n"), files, curves };
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
  const curves: PlotSection[] = [];
  for (const table of tables) {
    const measured = new Map<PresetName, Measured[]>();
    for (const preset of shown) measured.set(preset, await readMeasured(results, table, preset));
    const section = tableSection(table, measured);
    sections.push(section.text);
    curves.push(...section.curves);
    for (const [path, svg] of section.files) files.set(path, svg);
  }
  const fidelity = await fidelitySection(results, tables, fidelityOf);
  for (const [path, svg] of fidelity.files) files.set(path, svg);
  curves.push(...fidelity.curves);
  files.set(
    "README.md",
    `${[intro(), ...sections, fidelity.text, await peersSection(results), await pruningPeersSection(results)].join("\n\n")}\n`,
  );
  files.set(PAGE, curvesPage(curves));
  return files;
}

const PAGE = "results/index.html";

function curvesPage(sections: readonly PlotSection[]): string {
  return plotPage({
    title: "Espalier's benchmarks",
    lead: "Every mark is a method under one budget, or what others have published. Point at one, or go through them with the arrow keys, to read what it is. Methods are switched on and off in the legend. Tables, and how everything was measured, are in benchmarks/README.md.",
    choices: ["table", "preset", "data or network"],
    variants: { label: "accuracy", names: Object.values(states) },
    sections,
  });
}

function intro(): string {
  return [
    "<!-- Made by `npm run benchmark -- --render` from tables/ and results/; not to be edited. -->",
    "# Benchmarks",
    "`npm run benchmark -- TABLE [--preset smoke|quick|paper]` measures a table, cell by cell, the most telling first. A cell is one method under one budget with one seed; it is a run directory below `runs/benchmark`, which goes on where it was stopped, and a file in [results](results) named by a hash of all its inputs. A cell that has its file is never measured again. All curves are in one page, [results/index.html](results/index.html), which shows them also as pruned, before any tuning; it is one file, to be opened from a disk.",
    "Accuracies are of the test set, in per cent, after the last epoch; nothing is chosen by them. *Best on test* is the highest test accuracy of any epoch, which the code of the paper reports; it is here to compare with figures that were found so, and for nothing else. *As pruned* is before any tuning. *HAP's FLOPs* are counted by the rule of its code. Speed-ups are of ONNX Runtime, dense and pruned model timed side by side, each by its first quartile; with several seeds those of the first, since others differ by little in what takes time. With several seeds, ± is their standard deviation.",
    markdownTable(
      ["method", "what it does"],
      Object.entries(methods).map(([name, { description }]) => [
        name,
        description.replaceAll("|", "\\|"),
      ]),
    ),
  ].join("\n\n");
}
