/** @file How well each estimator ranks channels, and how long it takes: rank fidelity against time. */
import { join } from "node:path";
import { EspalierError, throwIfAborted, writeJsonAtomic } from "@espalier/base";
import {
  type ComponentKind,
  componentGroups,
  drawSamples,
  type Estimator,
  type Model,
  Random,
  type Samples,
  spearman,
} from "@espalier/core";
import { loadSource } from "@espalier/pipeline";
import {
  type LinePlotOptions,
  linePlot,
  type PlotSection,
  type PlotSeries,
} from "@espalier/report";
import * as z from "zod";
import { estimatedScores } from "../estimated-scores.ts";
import { type Cell, cellsOf, hashOf } from "./cells.ts";
import { type Bench, denseInputs, locate, prepare } from "./measure.ts";
import { meanOf, spreadOf, withSpread } from "./rows.ts";
import { machine, readStored } from "./stored.ts";
import type { PresetName, Table } from "./table.ts";

export const FIDELITY = "fidelity";

interface Draws {
  readonly estimator: Estimator;
  /** `exact` has none. */
  readonly draws: number;
}

/** What is scored, and by what. */
export interface FidelitySubject {
  readonly name: string;
  /** A SOURCE, or the dense model that a table prunes on this data, trained as its preset says. */
  readonly source: string | { readonly table: string };
  readonly data: string;
  readonly kind: ComponentKind;
  /** Training samples that are scored on. */
  readonly samples: number;
  /** What all others are compared with. */
  readonly reference: Draws;
  readonly estimators: readonly Draws[];
}

export interface FidelityPreset {
  readonly description: string;
  readonly subjects: readonly FidelitySubject[];
}

const withDraws = (estimator: Estimator, draws: readonly number[]): Draws[] =>
  draws.map((count) => ({ estimator, draws: count }));

const exact: Draws = { estimator: "exact", draws: 0 };

/** Networks that are piecewise linear have exact traces. */
function network(
  depth: 20 | 56,
  samples: number,
  // The dearest last; HAP's command line draws 3, its function 300.
  estimators: readonly Draws[] = [
    exact,
    ...withDraws("probe", [1, 3, 10]),
    ...withDraws("hutchinson", [1, 3, 10]),
    ...withDraws("control-variate", [3, 10]),
    ...withDraws("hutchinson", [30, 100, 300]),
  ],
): FidelitySubject {
  const file = { 20: "cifar10_resnet20-4118986f.pt", 56: "cifar10_resnet56-187c023a.pt" }[depth];
  return {
    name: `ResNet-${depth}`,
    source: `resnet${depth}-cifar10:${file}`,
    ...{ data: "cifar10", kind: "channel", samples, reference: exact, estimators },
  };
}

/** Encoders are not: nothing is exact but the Gauss-Newton part, which is what `exact` is there. */
function encoder(
  samples: number,
  draws: number,
  estimators: readonly Draws[] = [
    exact,
    ...withDraws("probe", [1, 3, 10]),
    ...withDraws("hutchinson", [3, 10, 30]),
    ...withDraws("control-variate", [3, 10, 30]),
  ],
): FidelitySubject {
  return {
    name: "MiniLM on SST-2",
    source: { table: "glue-heads" },
    ...{ data: "glue/sst2", kind: "head", samples, estimators },
    reference: { estimator: "hutchinson", draws },
  };
}

export const fidelityPresets: Readonly<Record<PresetName, FidelityPreset>> = {
  smoke: {
    description: "Whether everything works.",
    subjects: [
      network(20, 8, [exact, ...withDraws("probe", [1]), ...withDraws("hutchinson", [1])]),
      encoder(4, 2, [exact, ...withDraws("control-variate", [1])]),
    ],
  },
  quick: {
    description: "An hour and a half on 2 cores, and the training of the encoder.",
    subjects: [network(20, 128), network(56, 128), encoder(64, 100)],
  },
  paper: {
    description: "Networks on as many images as HAP asks for.",
    subjects: [network(20, 512), network(56, 512), encoder(64, 300)],
  },
};

// A single draw is one of many; many are their own mean.
const seedsOf = (draws: number) => (draws === 0 || draws > 30 ? [0] : [0, 1, 2]);
const BATCH = 64;

interface FidelityCell extends Draws {
  readonly subject: FidelitySubject;
  readonly seed: number;
  readonly inputs: object;
  readonly name: string;
}

/** A subject with what is measured of it. */
interface Plan {
  readonly subject: FidelitySubject;
  /** The cell of a table whose dense model it is, if it is one. */
  readonly dense: Cell | undefined;
  /** The file of the scores that others are compared with, so that they are computed once. */
  readonly reference: { readonly inputs: object; readonly name: string };
  readonly cells: readonly FidelityCell[];
}

const resultSchema = z.strictObject({
  seconds: z.number(),
  components: z.int(),
  /** Spearman's, of the scores with those of `exact`. */
  rankCorrelation: z.number(),
  /** Of the lower half by `exact`, the share that is in the lower half. */
  overlap: z.number(),
  /** Of the scores, in the 2-norm. */
  relativeError: z.number(),
  negative: z.int(),
  machine,
});
type FidelityResult = z.infer<typeof resultSchema>;

const referenceSchema = z.strictObject({
  seconds: z.number(),
  scores: z.array(z.number()),
  machine,
});
type FidelityReference = z.infer<typeof referenceSchema>;

const slug = (text: string) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-");

/**
 * What is measured of each subject.
 *
 * @throws EspalierError `invalid-argument` for a table, or data of a table, that is not there.
 */
function plansOf(
  presetName: PresetName,
  { subjects }: FidelityPreset,
  tables: readonly Table[],
): Plan[] {
  return subjects.map((subject) => {
    const { name, source, data, kind, samples, reference } = subject;
    const dense = typeof source === "string" ? undefined : cellOn(data, source, presetName, tables);
    const scored = {
      ...{ source: dense === undefined ? source : denseInputs(dense.inputs) },
      ...{ data, kind, samples },
    };
    const referenceInputs = { ...scored, ...reference };
    const prefix = `${presetName}-${slug(name)}`;
    return {
      subject,
      dense,
      reference: {
        inputs: referenceInputs,
        name: `${prefix}-reference-${hashOf(referenceInputs)}`,
      },
      cells: subject.estimators.flatMap(({ estimator, draws }) =>
        seedsOf(draws).map((seed) => {
          const inputs = { ...scored, estimator, draws, seed, reference };
          const label = `${prefix}-${estimator}-${draws}-seed${seed}`;
          return { subject, estimator, draws, seed, inputs, name: `${label}-${hashOf(inputs)}` };
        }),
      ),
    };
  });
}

function cellOn(
  data: string,
  { table: name }: { readonly table: string },
  presetName: PresetName,
  tables: readonly Table[],
): Cell {
  const table = tables.find((each) => each.name === name);
  const cell = table && cellsOf(table, presetName).find((each) => each.data === data);
  if (cell !== undefined) return cell;
  throw new EspalierError(
    "invalid-argument",
    `${FIDELITY}: expected a table ${name} on ${data}, found none`,
  );
}

const pathOf = (results: string, { name }: { readonly name: string }) =>
  join(results, FIDELITY, `${name}.json`);

const readFidelity = (path: string) => readStored(path, resultSchema);

/** The relative Hessian trace of every component, and how long it took. */
async function score(
  model: Model,
  samples: Samples,
  { kind }: FidelitySubject,
  { estimator, draws }: Draws,
  random: Random,
  { executor, signal }: Bench,
): Promise<{ readonly scores: Float64Array; readonly seconds: number }> {
  const groups = componentGroups(model, "apart", { kinds: [kind] });
  const start = performance.now();
  const scores = await estimatedScores(model, groups, {
    ...{ executor, samples, quantity: "trace", estimator, draws, temperature: 1, signal },
    batchSize: BATCH,
    random,
  });
  return { scores, seconds: (performance.now() - start) / 1000 };
}

/** The positions of the lower half of `scores`. */
function lowerHalf(scores: ArrayLike<number>): Set<number> {
  const order = Array.from({ length: scores.length }, (_, i) => i);
  order.sort((a, b) => scores[a] - scores[b]);
  return new Set(order.slice(0, Math.floor(scores.length / 2)));
}

/** What `scores` are worth, if `reference` are right. */
export function compareScores(
  scores: Float64Array,
  reference: Float64Array,
): Omit<FidelityResult, "seconds" | "machine"> {
  const norm = (values: Float64Array) => Math.hypot(...values);
  const lower = lowerHalf(scores);
  const wanted = [...lowerHalf(reference)];
  return {
    components: scores.length,
    rankCorrelation: spearman(scores, reference),
    overlap: wanted.filter((i) => lower.has(i)).length / wanted.length,
    relativeError: norm(scores.map((value, i) => value - reference[i])) / norm(reference),
    negative: scores.filter((value) => value < 0).length,
  };
}

/** Measures what cells of a preset have no result yet. */
export async function measureFidelity(
  presetName: PresetName,
  bench: Bench,
  tables: readonly Table[],
  preset: FidelityPreset = fidelityPresets[presetName],
): Promise<void> {
  for (const { subject, dense, reference, cells } of plansOf(presetName, preset, tables)) {
    const chosen = cells.filter(({ name }) => bench.cells?.test(name) ?? true);
    const open: FidelityCell[] = [];
    for (const cell of chosen) {
      const known = await readFidelity(pathOf(bench.results, cell));
      if (known === undefined) open.push(cell);
    }
    bench.log(
      `${FIDELITY}, ${subject.name}: ${open.length} of ${chosen.length} cells to be measured`,
    );
    if (open.length === 0) continue;
    const task = await bench.openTask(subject.data);
    const source =
      typeof subject.source === "string"
        ? locate(subject.source, bench)
        : await prepare(dense!, task, bench);
    const { model } = await loadSource(source, bench.families);
    const samples = drawSamples(task.train(model), subject.samples, new Random(0).stream(FIDELITY));
    const measure = (draws: Draws, random: Random) =>
      score(model, samples, subject, draws, random, bench);

    const path = pathOf(bench.results, reference);
    let known = await readStored(path, referenceSchema);
    if (known === undefined) {
      // Other signs than those of any cell.
      const random = new Random(0).stream(FIDELITY, "reference");
      const { scores, seconds } = await measure(subject.reference, random);
      known = { seconds, scores: [...scores], machine: bench.timing.machine };
      await writeJsonAtomic(path, { inputs: reference.inputs, result: known });
      bench.log(`${reference.name}: ${seconds.toFixed(1)} s`);
    }
    const expected = Float64Array.from(known.scores);
    for (const cell of open) {
      throwIfAborted(bench.signal);
      const { scores, seconds } = await measure(cell, new Random(cell.seed).stream(FIDELITY));
      const result: FidelityResult = {
        seconds,
        ...compareScores(scores, expected),
        machine: bench.timing.machine,
      };
      await writeJsonAtomic(pathOf(bench.results, cell), { inputs: cell.inputs, result });
      bench.log(
        `${cell.name}: rank correlation ${result.rankCorrelation.toFixed(3)}, ${seconds.toFixed(1)} s`,
      );
    }
  }
}

interface FidelityRow extends Draws {
  readonly results: readonly FidelityResult[];
}

/** The section of the page, and the plots in it. */
export async function fidelitySection(
  results: string,
  tables: readonly Table[],
  presets: Partial<Readonly<Record<PresetName, FidelityPreset>>> = {
    paper: fidelityPresets.paper,
    quick: fidelityPresets.quick,
  },
): Promise<{
  readonly text: string;
  readonly files: Map<string, string>;
  readonly curves: readonly PlotSection[];
}> {
  const files = new Map<string, string>();
  const curves: PlotSection[] = [];
  const lines = [
    "## Fidelity of estimators",
    "",
    "The relative Hessian trace of every component by each estimator, compared with a reference on the same training samples: rank correlation, share of the lower half that is found, relative error, scores below zero. Compiling is part of the time. Up to 30 draws, figures are means over three seeds. Networks of convolutions are piecewise linear in each layer's weights, so that `exact` is the reference. Encoders are not: there `exact` is the Gauss-Newton trace, and the reference is a long run of `hutchinson` with signs that no other row has, which has errors of its own.",
  ];
  for (const [name, preset] of Object.entries(presets) as [PresetName, FidelityPreset][]) {
    const parts: string[] = [];
    let [measured, total] = [0, 0];
    for (const { subject, reference, cells } of plansOf(name, preset, tables)) {
      const rows: FidelityRow[] = [];
      for (const { estimator, draws } of subject.estimators) {
        const own = cells.filter((cell) => cell.estimator === estimator && cell.draws === draws);
        const found = await Promise.all(own.map((cell) => readFidelity(pathOf(results, cell))));
        const known = found.filter((result) => result !== undefined);
        measured += known.length;
        if (known.length > 0) rows.push({ estimator, draws, results: known });
      }
      total += cells.length;
      if (rows.length === 0) continue;
      const compared = await readStored(pathOf(results, reference), referenceSchema);
      const path = `results/${FIDELITY}/${name}-${slug(subject.name)}.svg`;
      const plot = fidelityPlot(subject.name, rows);
      const introduction = introductionOf(subject, rows[0].results[0], compared);
      files.set(path, linePlot(plot));
      curves.push({
        path: ["Fidelity of estimators", name, subject.name],
        text: introduction.replaceAll("`", ""),
        plots: [plot],
      });
      parts.push(`${introduction}\n\n${fidelityTable(rows)}\n\n![${plot.title}](${path})`);
    }
    const command = `npm run benchmark -- ${FIDELITY}${name === "quick" ? "" : ` --preset ${name}`}`;
    lines.push(
      "",
      `### \`${name}\``,
      "",
      `${preset.description} \`${command}\`: ${measured} of ${total} cells measured.`,
      ...parts.flatMap((part) => ["", part]),
    );
  }
  return { text: lines.join("\n"), files, curves };
}

function introductionOf(
  { name, kind, samples, data, reference: { estimator, draws } }: FidelitySubject,
  { machine, components }: FidelityResult,
  compared: FidelityReference | undefined,
): string {
  const negative = compared?.scores.filter((value) => value < 0).length;
  const time = compared === undefined ? "" : `, ${compared.seconds.toFixed(1)} s`;
  const signs = negative === undefined || draws === 0 ? "" : `, ${negative} of them below zero`;
  return `${name}, ${components.toLocaleString("en")} ${kind}s on ${samples} training samples of ${data}; the reference is \`${estimator}\`${draws === 0 ? "" : ` with ${draws} draws`}${time}${signs}. ${machine.processor}, ${machine.threads} threads, ${machine.runtime}.`;
}

const labelOf = (estimator: Estimator, draws: number) =>
  draws === 0 ? estimator : `${estimator}, ${draws} ${draws === 1 ? "draw" : "draws"}`;

function fidelityTable(rows: readonly FidelityRow[]): string {
  return [
    "| estimator | seconds | rank correlation | lower half | relative error | negative |",
    "|---|---|---|---|---|---|",
    ...rows.map(({ estimator, draws, results }) => {
      const mean = (
        key: "seconds" | "rankCorrelation" | "overlap" | "relativeError" | "negative",
      ) => meanOf(results.map((result) => result[key]));
      return `| ${labelOf(estimator, draws)} | ${mean("seconds").toFixed(2)} | ${mean("rankCorrelation").toFixed(3)} | ${mean("overlap").toFixed(3)} | ${mean("relativeError").toFixed(3)} | ${mean("negative").toFixed(0)} |`;
    }),
  ].join("\n");
}

function fidelityPlot(name: string, rows: readonly FidelityRow[]): LinePlotOptions {
  const kinds = [...new Set(rows.map(({ estimator }) => estimator))];
  const series = kinds.map(
    (kind): PlotSeries => ({
      name: kind,
      points: rows
        .filter(({ estimator }) => estimator === kind)
        .map(({ draws, results }) => {
          const seconds = results.map((result) => result.seconds);
          const correlations = results.map(({ rankCorrelation }) => rankCorrelation);
          const text = [
            labelOf(kind, draws),
            `rank correlation ${withSpread(correlations, 3)} in ${withSpread(seconds)} s`,
            results.length === 1
              ? "1 seed"
              : `mean ± standard deviation of ${results.length} seeds`,
          ].join("\n");
          return {
            x: meanOf(seconds),
            y: meanOf(correlations),
            spread: spreadOf(correlations),
            text,
          };
        }),
    }),
  );
  return {
    title: `${name}: rank fidelity and time`,
    description:
      "Rank correlation with the reference against seconds, one line for each estimator.",
    x: { label: "seconds", scale: "log" },
    y: { label: "rank correlation with the reference" },
    series,
  };
}
