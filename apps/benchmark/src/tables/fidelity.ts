/** @file How well each estimator ranks channels, and how long it takes: rank fidelity against time. */
import { join } from "node:path";
import { throwIfAborted, writeJsonAtomic } from "@espalier/base";
import {
  componentGroups,
  drawSamples,
  type Estimator,
  estimate,
  type Model,
  Random,
  rowMeanSquares,
  type Samples,
  spearman,
} from "@espalier/core";
import { loadSource } from "@espalier/pipeline";
import { linePlot, type PlotSeries } from "@espalier/report";
import * as z from "zod";
import { hashOf } from "./cells.ts";
import { type Bench, locate } from "./measure.ts";
import { machine, readStored } from "./stored.ts";
import type { PresetName } from "./table.ts";

export const FIDELITY = "fidelity";

export interface FidelityModel {
  readonly name: string;
  readonly source: string;
}

export interface FidelityPreset {
  readonly description: string;
  readonly data: string;
  readonly models: readonly FidelityModel[];
  readonly images: number;
  /** Draws of each estimator; `exact` has none. */
  readonly estimators: readonly { readonly estimator: Estimator; readonly draws: number }[];
}

const resnet20 = { name: "ResNet-20", source: "resnet20-cifar10:cifar10_resnet20-4118986f.pt" };
const resnet56 = { name: "ResNet-56", source: "resnet56-cifar10:cifar10_resnet56-187c023a.pt" };

const withDraws = (estimator: Estimator, draws: readonly number[]) =>
  draws.map((count) => ({ estimator, draws: count }));

const exact = { estimator: "exact" as const, draws: 0 };
// The dearest last; HAP's command line draws 3, its function 300.
const estimators = [
  exact,
  ...withDraws("probe", [1, 3, 10]),
  ...withDraws("hutchinson", [1, 3, 10]),
  ...withDraws("flipout", [3, 10]),
  ...withDraws("control-variate", [3, 10]),
  ...withDraws("hutchinson", [30, 100, 300]),
];

export const fidelityPresets: Readonly<Record<PresetName, FidelityPreset>> = {
  smoke: {
    description: "Whether everything works.",
    data: "cifar10",
    models: [resnet20],
    images: 8,
    estimators: [exact, ...withDraws("probe", [1]), ...withDraws("hutchinson", [1])],
  },
  quick: {
    description: "An hour on 2 cores.",
    data: "cifar10",
    models: [resnet20, resnet56],
    images: 128,
    estimators,
  },
  paper: {
    description: "On as many images as HAP asks for.",
    data: "cifar10",
    models: [resnet20, resnet56],
    images: 512,
    estimators,
  },
};

// A single draw is one of many; many are their own mean.
const seedsOf = (draws: number) => (draws === 0 || draws > 30 ? [0] : [0, 1, 2]);
const BATCH = 64;

interface FidelityCell {
  readonly model: FidelityModel;
  readonly estimator: Estimator;
  readonly draws: number;
  readonly seed: number;
  readonly inputs: object;
  readonly name: string;
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

function fidelityCells(presetName: PresetName, preset: FidelityPreset): FidelityCell[] {
  const { data, images } = preset;
  return preset.models.flatMap((model) =>
    preset.estimators.flatMap(({ estimator, draws }) =>
      seedsOf(draws).map((seed) => {
        const inputs = { source: model.source, data, images, estimator, draws, seed };
        const label = [presetName, model.name, estimator, draws].join("-").toLowerCase();
        return {
          model,
          estimator,
          draws,
          seed,
          inputs,
          name: `${label}-seed${seed}-${hashOf(inputs)}`,
        };
      }),
    ),
  );
}

const pathOf = (results: string, { name }: FidelityCell) => join(results, FIDELITY, `${name}.json`);

const readFidelity = (path: string) => readStored(path, resultSchema);

/** The relative Hessian trace of every channel, and how long it took. */
async function score(
  model: Model,
  samples: Samples,
  { estimator, draws, seed }: Pick<FidelityCell, "estimator" | "draws" | "seed">,
  { executor, signal }: Bench,
): Promise<{ readonly scores: Float64Array; readonly seconds: number }> {
  const groups = componentGroups(model, "apart");
  const start = performance.now();
  const { mean } = await estimate(model, groups, {
    ...{ executor, samples, quantity: "trace" as const, estimator, draws, temperature: 1, signal },
    rowFactors: rowMeanSquares(model, groups),
    batchSize: BATCH,
    random: new Random(seed).stream(FIDELITY),
  });
  return { scores: mean, seconds: (performance.now() - start) / 1000 };
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
  preset: FidelityPreset = fidelityPresets[presetName],
): Promise<void> {
  const cells = fidelityCells(presetName, preset);
  const task = await bench.openTask(preset.data);
  for (const own of preset.models) {
    const open: FidelityCell[] = [];
    for (const cell of cells.filter(({ model }) => model === own)) {
      const known = await readFidelity(pathOf(bench.results, cell));
      if (known === undefined) open.push(cell);
    }
    bench.log(`${FIDELITY}, ${own.name}: ${open.length} of ${cells.length} cells to be measured`);
    if (open.length === 0) continue;
    const { model } = await loadSource(locate(own.source, bench), bench.families);
    const samples = drawSamples(task.train(model), preset.images, new Random(0).stream(FIDELITY));
    const { scores: reference } = await score(model, samples, { ...exact, seed: 0 }, bench);
    for (const cell of open) {
      throwIfAborted(bench.signal);
      const { scores, seconds } = await score(model, samples, cell, bench);
      const result: FidelityResult = {
        seconds,
        ...compareScores(scores, reference),
        machine: bench.timing.machine,
      };
      await writeJsonAtomic(pathOf(bench.results, cell), { inputs: cell.inputs, result });
      bench.log(
        `${cell.name}: rank correlation ${result.rankCorrelation.toFixed(3)}, ${seconds.toFixed(1)} s`,
      );
    }
  }
}

const meanOf = (values: readonly number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;

interface FidelityRow extends Pick<FidelityCell, "model" | "estimator" | "draws"> {
  readonly results: readonly FidelityResult[];
}

/** The section of the page, and the plots in it. */
export async function fidelitySection(
  results: string,
  presets: Partial<Readonly<Record<PresetName, FidelityPreset>>> = {
    paper: fidelityPresets.paper,
    quick: fidelityPresets.quick,
  },
): Promise<{ readonly text: string; readonly files: Map<string, string> }> {
  const files = new Map<string, string>();
  const lines = [
    "## Fidelity of estimators",
    "",
    "The relative Hessian trace of every channel by each estimator, compared with the exact one on the same training images: rank correlation, share of the lower half that is found, relative error, scores below zero. Compiling is part of the time. Up to 30 draws, figures are means over three seeds.",
  ];
  for (const [name, preset] of Object.entries(presets) as [PresetName, FidelityPreset][]) {
    const cells = fidelityCells(name, preset);
    const rows: FidelityRow[] = [];
    let measured = 0;
    for (const model of preset.models) {
      for (const { estimator, draws } of preset.estimators) {
        const own = cells.filter(
          (cell) => cell.model === model && cell.estimator === estimator && cell.draws === draws,
        );
        const found = await Promise.all(own.map((cell) => readFidelity(pathOf(results, cell))));
        const known = found.filter((result) => result !== undefined);
        measured += known.length;
        if (known.length > 0) rows.push({ model, estimator, draws, results: known });
      }
    }
    const command = `npm run benchmark -- ${FIDELITY}${name === "quick" ? "" : ` --preset ${name}`}`;
    lines.push(
      "",
      `### \`${name}\``,
      "",
      `${preset.images} images. ${preset.description} \`${command}\`: ${measured} of ${cells.length} cells measured.`,
    );
    for (const model of preset.models) {
      const own = rows.filter((row) => row.model === model);
      if (own.length === 0) continue;
      const [{ machine, components }] = own[0].results;
      const path = `results/${FIDELITY}/${name}-${model.name.toLowerCase()}.svg`;
      const svg = fidelityPlot(model.name, own);
      files.set(path, svg);
      lines.push(
        "",
        `${model.name}, ${components.toLocaleString("en")} channels. ${machine.processor}, ${machine.threads} threads, ${machine.runtime}.`,
        "",
        fidelityTable(own),
        "",
        `![${model.name}: rank fidelity and time](${path})`,
      );
    }
  }
  return { text: lines.join("\n"), files };
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

function fidelityPlot(name: string, rows: readonly FidelityRow[]): string {
  const kinds = [...new Set(rows.map(({ estimator }) => estimator))];
  const series = kinds.map(
    (kind): PlotSeries => ({
      name: kind,
      points: rows
        .filter(({ estimator }) => estimator === kind)
        .map(({ draws, results }) => {
          const [x, y] = [
            meanOf(results.map(({ seconds }) => seconds)),
            meanOf(results.map(({ rankCorrelation }) => rankCorrelation)),
          ];
          return { x, y, text: `${labelOf(kind, draws)}: ${y.toFixed(3)} in ${x.toFixed(2)} s` };
        }),
    }),
  );
  return linePlot({
    title: `${name}: rank fidelity and time`,
    description: "Rank correlation with exact traces against seconds, one line for each estimator.",
    x: { label: "seconds", scale: "log" },
    y: { label: "rank correlation with exact traces" },
    series,
  });
}
