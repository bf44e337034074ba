/** @file Exported models as users run them, in Transformers.js: accuracy, size, deviation and speed. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  bindParameters,
  type Model,
  makePlan,
  measureSensitivity,
  type Samples,
  selectSamples,
  sizeOfModel,
} from "@espalier/core";
import { type Executor, float32Data } from "@espalier/graph";
import {
  applyPlan,
  CALIBRATION_SAMPLES,
  defaultPlan,
  defaultPruning,
  exportModel,
  type Latency,
  measureLatencies,
  onnxFiles,
  type Precision,
  type PruneSettings,
  type Task,
  undisturbed,
} from "@espalier/pipeline";
import { onnxVersion } from "@espalier/runtime-onnx";
import { env, pipeline, Tensor } from "@huggingface/transformers";
import { openSubject, type Subject } from "./subject.ts";

export interface ExportsOptions {
  readonly source: string;
  readonly task: Task;
  readonly executor: Executor;
  readonly threads: number;
  /** The first so many test images. */
  readonly images: number;
  log(line: string): void;
}

export interface ExportRow {
  readonly model: string;
  readonly precision: Precision;
  readonly macsShare: number;
  readonly bytes: number;
  readonly accuracy: number;
  /** The largest difference of a logit from the float32 model in Espalier, and the largest logit. */
  readonly deviation: number;
  readonly largestLogit: number;
  /** By numbers of images at a time, milliseconds for all of them. */
  readonly latencies: Readonly<Record<number, Latency>>;
  /** How many times as fast as the dense float32 model. */
  readonly speedUps: Readonly<Record<number, number>>;
}

export interface ExportsResult {
  readonly threads: number;
  readonly onnxruntime: string;
  readonly images: number;
  readonly rows: readonly ExportRow[];
}

const PRECISIONS: readonly Precision[] = ["fp32", "fp16", "q8"];
const BATCHES = [1, 64];
const BATCH = 100;
const SECONDS_PER_MODEL = 4;
const IMPLANTS = 0.1;

/** A model in memory as Transformers.js has it. */
interface Loaded {
  readonly model: string;
  readonly precision: Precision;
  readonly macs: number;
  readonly bytes: number;
  /** The model itself, to compare with. */
  readonly original: Model;
  /** Pixels [count, …] to logits. */
  run(pixels: Float32Array, count: number): Promise<Float32Array>;
  dispose(): Promise<unknown>;
}

/** Exports the dense model and what is left of it at half of the MACs, and measures each file. */
export async function measureExports(options: ExportsOptions): Promise<ExportsResult> {
  const { task, executor, threads, log } = options;
  const settings = defaultPruning({ of: "macs", keep: 0.5 });
  const subject = await openSubject({
    ...{ source: options.source, task, executor, images: options.images },
    calibration: settings.calibration,
  });
  const { test } = subject;
  const calibration = selectSamples(subject.calibration, [...Array(CALIBRATION_SAMPLES).keys()]);
  const directory = await mkdtemp(join(tmpdir(), "espalier-exports-"));
  const loaded: Loaded[] = [];
  try {
    env.allowRemoteModels = false;
    env.localModelPath = directory;
    for (const [name, model] of await modelsOf(subject, settings, options)) {
      const files = await exportModel(model, join(directory, name), { executor, calibration });
      for (const precision of PRECISIONS) {
        const session_options = { intraOpNumThreads: threads };
        const classify = await pipeline("image-classification", name, {
          dtype: precision,
          device: "cpu",
          session_options,
        });
        loaded.push({
          model: name,
          precision,
          macs: sizeOfModel(model).macs,
          bytes: files.find(({ path }) => path === onnxFiles[precision])!.bytes,
          original: model,
          run: async (pixels, count) => {
            const pixel_values = new Tensor("float32", pixels, shapeOf(model, count));
            const { logits } = await classify.model({ pixel_values });
            return Float32Array.from(logits.data);
          },
          dispose: () => classify.dispose(),
        });
      }
    }
    const times = await timesOf(loaded, test, log);
    const rows: ExportRow[] = [];
    for (const [i, each] of loaded.entries()) {
      const judged = await judge(each, test, executor);
      rows.push({
        model: each.model,
        precision: each.precision,
        macsShare: each.macs / loaded[0].macs,
        bytes: each.bytes,
        ...judged,
        latencies: Object.fromEntries(BATCHES.map((batch) => [batch, times[batch][i]])),
        speedUps: Object.fromEntries(
          BATCHES.map((batch) => [
            batch,
            undisturbed(times[batch][0]) / undisturbed(times[batch][i]),
          ]),
        ),
      });
      log(`${each.model}, ${each.precision}: ${(100 * judged.accuracy).toFixed(1)} %`);
    }
    return { threads, onnxruntime: onnxVersion(), images: test.count, rows };
  } finally {
    for (const each of loaded) await each.dispose();
    await rm(directory, { recursive: true, force: true });
  }
}

/** The dense model, and pruned ones with their layers fitted but nothing tuned. */
async function modelsOf(
  { dense, random, scoring, calibration }: Subject,
  settings: PruneSettings,
  { executor, log }: ExportsOptions,
): Promise<[string, Model][]> {
  const sensitivity = await measureSensitivity(dense, {
    ...settings.sensitivity,
    executor,
    samples: scoring,
    batchSize: settings.batchSize,
    random: random.stream("scores"),
  });
  const groups = sensitivity.groups.map(({ group }) => group);
  const models: [string, Model][] = [["dense", dense]];
  for (const [name, implant] of [
    ["half", 0],
    ["half-with-implants", IMPLANTS],
  ] as const) {
    log(`${name}: fitting`);
    const { decisions } = makePlan(dense, sensitivity, {
      ...defaultPlan({ of: "macs", keep: 0.5 }),
      implant,
    });
    const pruned = await applyPlan(dense, groups, decisions, settings, {
      executor,
      random: random.stream("plan"),
      drawCalibration: () => calibration,
    });
    models.push([name, pruned]);
  }
  return models;
}

function shapeOf({ preprocessing }: Model, count: number): number[] {
  if (preprocessing.kind !== "image") throw new TypeError("expected a model of images");
  return [count, ...preprocessing.shape];
}

/** For each batch size, the times of all models, which run in turn. */
async function timesOf(
  loaded: readonly Loaded[],
  test: Samples,
  log: ExportsOptions["log"],
): Promise<Record<number, readonly Latency[]>> {
  const times: Record<number, readonly Latency[]> = {};
  for (const size of BATCHES) {
    log(`times, ${size} at a time`);
    const { feeds } = await test.batch([...Array(size).keys()]);
    const pixels = feeds.pixel_values as Float32Array;
    times[size] = await measureLatencies(
      loaded.map(({ run }) => ({ run: () => run(pixels, size) })),
      SECONDS_PER_MODEL * loaded.length,
    );
  }
  return times;
}

/** Accuracy, and how far logits are from those that Espalier computes in float32. */
async function judge({ original, run }: Loaded, test: Samples, executor: Executor) {
  const classes = original.classes.length;
  let [right, deviation, largestLogit] = [0, 0, 0];
  for (let start = 0; start < test.count; start += BATCH) {
    const count = Math.min(BATCH, test.count - start);
    const { feeds, labels } = await test.batch(Array.from({ length: count }, (_, i) => start + i));
    const pixels = feeds.pixel_values as Float32Array;
    const { graph, constants } = bindParameters(original, count, "evaluation");
    const program = await executor.compile({ outputs: { logits: graph.logits }, constants });
    const expected = float32Data((await program.run({ pixel_values: pixels })).logits);
    await program.dispose();
    const logits = await run(pixels, count);
    logits.forEach((logit, i) => {
      deviation = Math.max(deviation, Math.abs(logit - expected[i]));
      largestLogit = Math.max(largestLogit, Math.abs(expected[i]));
    });
    for (let n = 0; n < count; n++) {
      const row = logits.subarray(n * classes, (n + 1) * classes);
      if (row.indexOf(Math.max(...row)) === labels[n]) right++;
    }
  }
  return { accuracy: right / test.count, deviation, largestLogit };
}

/** A Markdown table; times are first quartiles and, in brackets, medians. */
export function exportsMarkdown({ rows, images, threads, onnxruntime }: ExportsResult): string {
  const time = ({ latencies }: ExportRow, batch: number) =>
    `${undisturbed(latencies[batch]).toFixed(2)} (${latencies[batch].median.toFixed(2)})`;
  return [
    "# Exported models",
    "",
    `ResNet-56 and what is left of it at half of its multiply-accumulates (default plan; with implants: a tenth of the channels given up), layers fitted, nothing tuned, as Transformers.js runs the exported files: first ${images.toLocaleString("en")} test images of CIFAR-10, ${threads} threads, ONNX Runtime ${onnxruntime}. Deviation: the largest difference of a logit from Espalier's float32. Times: milliseconds for 1 and for 64 images, first quartile (median), all models in turn. Of the promise: the speed-up over the dense float32 file, divided by that of the multiply-accumulates. \`npm run bench -- exports\``,
    "",
    "| model | numbers | MACs kept | size | accuracy | deviation | 1 image | of the promise | 64 images | of the promise |",
    "|---|---|---|---|---|---|---|---|---|---|",
    ...rows.map((row) => {
      const { model, precision, macsShare, bytes, accuracy, deviation, speedUps } = row;
      const cells = [
        model.replaceAll("-", " "),
        precision,
        `${(100 * macsShare).toFixed(1)} %`,
        `${(bytes / 1e6).toFixed(2)} MB`,
        `${(100 * accuracy).toFixed(1)} %`,
        `${deviation.toPrecision(2)} of ${row.largestLogit.toFixed(1)}`,
        ...BATCHES.flatMap((batch) => [time(row, batch), (speedUps[batch] * macsShare).toFixed(2)]),
      ];
      return `| ${cells.join(" | ")} |`;
    }),
  ].join("\n");
}
