/** @file Pruning by Torch-Pruning and by ours: one network, the same images, one budget, one tuning. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EspalierError, throwIfAborted, writeJsonAtomic } from "@espalier/base";
import { type ImagePreprocessing, type Samples, sizeOfModel } from "@espalier/core";
import {
  defaultPruning,
  loadSource,
  type PruneSettings,
  type Task,
  type TuneSettings,
} from "@espalier/pipeline";
import { learningRateAt, type SgdOptions } from "@espalier/train";
import * as z from "zod";
import { type Program, runProgram } from "../program.ts";
import { writeParameters } from "../side-by-side.ts";
import { hashOf, tuningOf } from "./cells.ts";
import { type Bench, limit, locate } from "./measure.ts";
import { type MethodName, methods } from "./methods.ts";
import { model, PEERS, pathOf, unmeasured } from "./peers.ts";
import { machine, readStored } from "./stored.ts";
import type { PresetName, Training } from "./table.ts";

/** The share of the multiply-accumulates that is kept. */
const KEEP = 0.5;
// Every width is possible, so that all come as near to the budget as they can.
const ROUND_TO = 1;
const SEED = 0;

const ours: readonly MethodName[] = ["magnitude", "gradient", "removal", "hessian-trace"];
const importances: Readonly<Record<string, string>> = {
  magnitude: "magnitude of groups",
  taylor: "Taylor",
  hessian: "Hessian, as it is: of the last image alone",
};

interface PruningPreset {
  readonly description: string;
  /** So many; null: all. */
  readonly images: { readonly train: number | null; readonly test: number | null };
  /** Training images that components are scored on, by what scores on images. */
  readonly samples: number;
  /** Training images that Espalier fits layers to. */
  readonly calibration: number;
  readonly tune: Training & { readonly optimizer: SgdOptions };
}

const presets: Readonly<Record<PresetName, PruningPreset>> = {
  smoke: {
    description: "Whether everything works.",
    images: { train: 256, test: 100 },
    samples: 16,
    calibration: 64,
    tune: {
      epochs: 1,
      batchSize: 64,
      optimizer: { name: "sgd", momentum: 0.9, nesterov: true, weightDecay: 5e-4 },
      schedule: { name: "cosine", peak: 0.01, warmup: 0.05 },
    },
  },
  quick: {
    description: "One epoch on a fifth of the training images.",
    images: { train: 10_000, test: null },
    samples: 512,
    calibration: 1024,
    tune: {
      epochs: 1,
      batchSize: 128,
      optimizer: { name: "sgd", momentum: 0.9, nesterov: true, weightDecay: 5e-4 },
      // So few steps do not make up for higher rates: decision 030.
      schedule: { name: "cosine", peak: 0.005, warmup: 0.05 },
    },
  },
  paper: {
    description: "HAP's recipe: 120 epochs on all training images. Days on 2 cores.",
    images: { train: null, test: null },
    samples: 512,
    calibration: 1024,
    tune: {
      epochs: 120,
      batchSize: 64,
      optimizer: { name: "sgd", momentum: 0.9, nesterov: false, weightDecay: 4e-4 },
      schedule: { name: "step", peak: 0.02, warmup: 0 },
    },
  },
};

/** All that a measurement follows from, but for the machine and the versions of programs. */
interface PruningInputs {
  readonly source: string;
  readonly images: PruningPreset["images"];
  /** Of ours. */
  readonly settings?: PruneSettings;
  /** Of Torch-Pruning. */
  readonly peer?: {
    readonly importance: string;
    readonly keep: number;
    readonly roundTo: number;
    readonly samples: number;
    readonly tune: TuneSettings;
    readonly seed: number;
  };
}

/** What a process finds in `case.json`. */
export interface PruningCase extends Partial<NonNullable<PruningInputs["peer"]>> {
  readonly source: string;
  readonly threads: number;
  readonly settings?: PruneSettings | undefined;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  /** Of every step of the tuning. */
  readonly learningRates: readonly number[];
}

interface Contender extends Program {
  readonly inputs: PruningInputs;
  /** Names its result; ends in a hash of `inputs`. */
  readonly name: string;
}

const size = z.strictObject({ parameters: z.int(), macs: z.int(), accuracy: z.number() });
const measurement = z.strictObject({
  versions: z.record(z.string(), z.string()).optional(),
  /** Of scoring and pruning, and their peak memory, that of the whole process until then. */
  seconds: z.number(),
  peakBytes: z.number(),
  /** Of looking for the share of channels that fits the budget, and that share. */
  searchSeconds: z.number().optional(),
  ratio: z.number().optional(),
  dense: size,
  pruned: size,
  tuningSeconds: z.number(),
  /** Accuracy after the last epoch. */
  tuned: z.number(),
});
const resultSchema = measurement.extend({ machine });

/** What a process prints. */
export type PruningMeasurement = z.infer<typeof measurement>;
type PruningResult = z.infer<typeof resultSchema>;

function contendersOf(presetName: PresetName): readonly Contender[] {
  const { images, samples, calibration, tune: training } = presets[presetName];
  const tune = tuningOf(training);
  const contender = (
    { label, ours }: Pick<Program, "label" | "ours">,
    which: string,
    own: Pick<PruningInputs, "settings" | "peer">,
  ): Contender => {
    const inputs = { source: model.source, images, ...own };
    return {
      ...{ label, ours, inputs },
      script: ours ? "tables/pruning-process.js" : "pruning.py",
      name: `${presetName}-pruning-${ours ? "espalier" : "torch-pruning"}-${which}-${hashOf(inputs)}`,
    };
  };
  const base = defaultPruning({ of: "macs", keep: KEEP });
  return [
    ...ours.map((method) =>
      contender({ label: `Espalier, ${method}`, ours: true }, method, {
        settings: methods[method].apply({
          ...base,
          sensitivity: { ...base.sensitivity, samples },
          plan: { ...base.plan, roundTo: ROUND_TO },
          ...{ calibration, tune, seed: SEED },
        }),
      }),
    ),
    ...Object.entries(importances).map(([importance, description]) =>
      contender({ label: `Torch-Pruning, ${description}`, ours: false }, importance, {
        peer: { importance, keep: KEEP, roundTo: ROUND_TO, samples, tune, seed: SEED },
      }),
    ),
  ];
}

const TRAINING_FILES = 5;
const WRITTEN_AT_ONCE = 1000;

/** Writes the samples of `task` as the binary files of CIFAR-10, which every program can read. */
export async function writeCifar10(
  directory: string,
  task: Pick<Task, "classes" | "train" | "test">,
  shape: ImagePreprocessing["shape"],
): Promise<void> {
  const [zeros, ones] = [shape[0], shape[0]].map((count, value) => Array(count).fill(value));
  const consumer = {
    preprocessing: { kind: "image" as const, shape, mean: zeros, std: ones },
    classes: task.classes,
  };
  const write = async (name: string, samples: Samples, from: number, to: number) => {
    const records: Uint8Array[] = [];
    for (let start = from; start < to; start += WRITTEN_AT_ONCE) {
      const indices = Array.from(
        { length: Math.min(WRITTEN_AT_ONCE, to - start) },
        (_, i) => start + i,
      );
      const { feeds, labels } = await samples.batch(indices);
      const pixels = feeds.pixel_values as Float32Array;
      const length = pixels.length / indices.length;
      indices.forEach((_, i) => {
        const image = pixels.subarray(i * length, (i + 1) * length);
        records.push(Uint8Array.of(labels[i], ...image.map((value) => Math.round(255 * value))));
      });
    }
    await writeFile(join(directory, name), Buffer.concat(records));
  };
  await mkdir(directory, { recursive: true });
  const [train, test] = [task.train(consumer), task.test(consumer)];
  const bound = (file: number) => Math.floor((file * train.count) / TRAINING_FILES);
  for (let file = 0; file < TRAINING_FILES; file++) {
    await write(`data_batch_${file + 1}.bin`, train, bound(file), bound(file + 1));
  }
  await write("test_batch.bin", test, 0, test.count);
}

/**
 * Measures the contenders that have no result yet. What needs a Python package that is not installed is
 * left out by name, and is measured when it is there.
 *
 * @param run Runs a program; see `runProgram`.
 * @throws EspalierError `mismatched-model` if a program counts another size for the dense network.
 */
export async function measurePruningPeers(
  presetName: PresetName,
  bench: Bench,
  python: string,
  run: typeof runProgram = runProgram,
): Promise<void> {
  const open = await unmeasured(contendersOf(presetName), bench, resultSchema);
  if (open.length === 0) return;
  const { images, tune } = presets[presetName];
  const source = locate(model.source, bench);
  const { model: network } = await loadSource(source, bench.families);
  const { preprocessing } = network;
  if (preprocessing.kind !== "image") {
    throw new EspalierError("mismatched-model", `${source}: expected a model of images`);
  }
  const task = limit(await bench.openTask("cifar10"), images);
  const directory = await mkdtemp(join(tmpdir(), "espalier-pruning-"));
  try {
    await writeCifar10(directory, task, preprocessing.shape);
    await writeParameters(directory, network.parameters);
    const steps = tune.epochs * Math.floor(task.counts.train / tune.batchSize);
    const { threads } = bench.timing.machine;
    const dense = sizeOfModel(network);
    for (const contender of open) {
      throwIfAborted(bench.signal);
      const { label, inputs } = contender;
      const given: PruningCase = {
        ...{ ...inputs.peer, settings: inputs.settings, source, threads },
        ...{ mean: preprocessing.mean, std: preprocessing.std },
        learningRates: Array.from({ length: steps }, (_, step) =>
          learningRateAt(tune.schedule, step, steps),
        ),
      };
      await writeJsonAtomic(join(directory, "case.json"), given);
      const found = run(contender, [directory], python, measurement);
      if ("missing" in found) {
        bench.log(`${label}: skipped, ${found.missing} is not installed`);
        continue;
      }
      if (found.dense.macs !== dense.macs || found.dense.parameters !== dense.parameters) {
        throw new EspalierError(
          "mismatched-model",
          `${label}: expected it to count ${dense.macs} multiply-accumulates and ${dense.parameters} parameters of the dense network, got ${found.dense.macs} and ${found.dense.parameters}`,
        );
      }
      const result: PruningResult = { ...found, machine: bench.timing.machine };
      await writeJsonAtomic(pathOf(bench.results, contender), { inputs, result });
      const percent = (share: number) => (100 * share).toFixed(2);
      bench.log(
        `${label}: ${found.seconds.toFixed(1)} s, ${percent(found.pruned.macs / dense.macs)} % of the MACs, ${[found.dense.accuracy, found.pruned.accuracy, found.tuned].map(percent).join(" -> ")}`,
      );
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The section of the page. */
export async function pruningPeersSection(
  results: string,
  shown: readonly PresetName[] = ["paper", "quick"],
): Promise<string> {
  const lines = [
    "## Pruning by other programs",
    "",
    `Half of the multiply-accumulates of ${model.name} by Torch-Pruning and by Espalier, each importance in a process of its own: \`npm run benchmark -- ${PEERS} --cells pruning --python COMMAND\`. Both score the same training images, prune widths one by one (multiples of ${ROUND_TO}), rank the channels of all layers together (Espalier by score per multiply-accumulate saved), tune on the same images with the same optimiser, learning rates, batches and augmentation, and are judged on the same test images. Multiply-accumulates are those of convolutions and linear layers, parameters those that are trained; that both programs count the dense network alike is checked.`,
    "",
    "Seconds are of scoring and pruning, with Espalier's fit of layers to calibration images, without which it would not be what its users get; memory is the peak of the process until then. Torch-Pruning has shares of channels for a budget: what it takes to find the share that fits is stated apart. It changes nothing but widths, so its accuracy as pruned is that of weights and statistics as they were. Its Hessian importance (1.6) is meant to be the mean of squared gradients of single images, but keeps those of the last image alone; it is measured as it is. The order of images and the draws of augmentation are each program's own. What Python lacks is left out under its name: it takes torch and torch-pruning.",
  ];
  const start = lines.length;
  for (const preset of shown) {
    const contenders = contendersOf(preset);
    const found = await Promise.all(
      contenders.map((each) => readStored(pathOf(results, each), resultSchema)),
    );
    const known = found.filter((result) => result !== undefined);
    if (known.length === 0) continue;
    const [{ machine, dense }] = known;
    const versions = Object.entries(Object.assign({}, ...known.map((each) => each.versions)));
    const { images, samples, tune, description } = presets[preset];
    const count = (value: number | null) => value?.toLocaleString("en") ?? "all";
    lines.push(
      "",
      `### \`${preset}\``,
      "",
      `${description} Scored on ${samples} training images, tuned on ${count(images.train)} for ${tune.epochs} ${tune.epochs === 1 ? "epoch" : "epochs"}, judged on ${count(images.test)} test images: dense ${(100 * dense.accuracy).toFixed(2)} %, ${(dense.parameters / 1e6).toFixed(3)} M parameters, ${(dense.macs / 1e6).toFixed(2)} M MACs. ${machine.processor}, ${machine.threads} threads, ${[machine.runtime, ...versions.map((each) => each.join(" "))].join(", ")}.`,
      "",
      "| program | seconds | and of search | peak GB | parameters, M | MACs, M (share) | as pruned | tuned | change | seconds of tuning |",
      "|---|---|---|---|---|---|---|---|---|---|",
      ...contenders.map(({ label }, i) => rowOf(label, found[i])),
    );
  }
  if (lines.length === start) lines.push("", "Not measured yet.");
  return lines.join("\n");
}

function rowOf(label: string, result: PruningResult | undefined): string {
  if (result === undefined) return `| ${label} | not measured${" |".repeat(9)}`;
  const { dense, pruned, tuned, seconds, searchSeconds, peakBytes, tuningSeconds } = result;
  const percent = (share: number) => (100 * share).toFixed(2);
  const cells = [
    label,
    seconds.toFixed(1),
    searchSeconds?.toFixed(1) ?? "–",
    (peakBytes / 1e9).toFixed(2),
    (pruned.parameters / 1e6).toFixed(3),
    `${(pruned.macs / 1e6).toFixed(2)} (${percent(pruned.macs / dense.macs)} %)`,
    percent(pruned.accuracy),
    percent(tuned),
    percent(tuned - dense.accuracy).replace(/^-/, "−"),
    tuningSeconds.toFixed(0),
  ];
  return `| ${cells.join(" | ")} |`;
}
