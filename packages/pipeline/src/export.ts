/** @file Models for use elsewhere: directories that Transformers.js loads, and Espalier again. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { hashFile, throwIfAborted, writeFileAtomic, writeJsonAtomic } from "@espalier/base";
import { bindParameters, type Model, Random, type Samples } from "@espalier/core";
import {
  type Executor,
  encodeOnnx,
  inferenceOnnx,
  type OnnxGraph,
  pytorchModule,
  quantize,
  type Range,
  type StoredType,
  tensorsToCalibrate,
  toFloat16,
} from "@espalier/graph";
import { calibrate, syntheticImages } from "./calibrate.ts";
import type { OnPipelineEvent } from "./events.ts";
import type { PruningRecord } from "./pruning-record.ts";
import { saveWeights } from "./save-model.ts";
import {
  COMPACT,
  PREPROCESSOR,
  PYTORCH,
  preprocessingFiles,
  transformersConfig,
} from "./transformers-files.ts";

/** In what numbers a model computes, as Transformers.js calls it. */
export type Precision = "fp32" | "fp16" | "q8";

/** The files of each, as Transformers.js looks for them. */
export const onnxFiles: Readonly<Record<Precision, string>> = {
  fp32: "onnx/model.onnx",
  fp16: "onnx/model_fp16.onnx",
  q8: "onnx/model_quantized.onnx",
};

const CONFIG = "config.json";
const WEIGHTS = "model.safetensors";
const PRUNING = "pruning.json";

/** Everything that an export may consist of, besides the files that go with the model. */
export const exportedNames = [
  ...["README.md", CONFIG, WEIGHTS, PYTORCH, COMPACT, "onnx", PREPROCESSOR, PRUNING],
];

export interface ExportOptions {
  readonly executor: Executor;
  /** Default: all. */
  readonly precisions?: readonly Precision[];
  /**
   * Samples by which activations are rounded to 8 bits, such as training samples; default: images
   * made for the purpose.
   */
  readonly calibration?: Samples | undefined;
  /** Properties of the ONNX models. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** What pruning has made of the model, if it was pruned. */
  readonly pruning?: PruningRecord | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: OnPipelineEvent;
}

export interface ExportedFile {
  /** Relative to the directory. */
  readonly path: string;
  readonly bytes: number;
}

// Enough for the extremes of every layer; more only adds outliers.
export const CALIBRATION_SAMPLES = 128;
const CALIBRATION_BATCH = 16;

/**
 * Writes `model` into `directory` as Transformers.js loads it: `config.json`, how inputs are prepared
 * (`preprocessor_config.json` for images, the tokenizer for texts) and `onnx/` (output `logits`, open
 * batch size and length of sequences); with `model.safetensors` it is also a source for `loadSource`,
 * and `model.py` is the network as a PyTorch module that reads those weights (decision 042). Of a pruned
 * model that has a dense equivalent, `config.json` and `model.safetensors` are the equivalent's, and the
 * model itself is in `compact/`, where `loadSource` looks first (decision 021). The configuration comes
 * last: a directory that has one is complete.
 *
 * @throws EspalierError `disk-full` or `invalid-argument` naming a file that cannot be written.
 */
export async function exportModel(
  model: Model,
  directory: string,
  options: ExportOptions,
): Promise<ExportedFile[]> {
  const { precisions = ["fp32", "fp16", "q8"], metadata, pruning, signal, onEvent } = options;
  const graph = inferenceOnnx((batch, length) => {
    const bound = bindParameters(model, batch, "evaluation", length);
    return { outputs: { logits: bound.graph.logits }, constants: bound.constants };
  });
  const convert: Readonly<
    Record<Precision, () => OnnxGraph<StoredType> | Promise<OnnxGraph<StoredType>>>
  > = {
    fp32: () => graph,
    fp16: () => toFloat16(graph),
    q8: async () => quantize(graph, await rangesOf(graph, model, options)),
  };
  const file = (name: string) => join(directory, name);
  const published = model.denseEquivalent?.() ?? model;
  const own = published === model ? "" : `${COMPACT}/`;
  const compact: [string, () => Promise<void>][] =
    published === model
      ? []
      : [
          [`${COMPACT}/${WEIGHTS}`, () => saveWeights(model, file(COMPACT))],
          [
            `${COMPACT}/${CONFIG}`,
            () => writeJsonAtomic(file(`${COMPACT}/${CONFIG}`), model.config),
          ],
        ];
  const prepared = preprocessingFiles(model);
  const hashes: Record<string, string> = {};
  const writers: [string, () => Promise<void>][] = [
    ...precisions.map((precision): [string, () => Promise<void>] => [
      onnxFiles[precision],
      async () => {
        const bytes = encodeOnnx(await convert[precision](), metadata);
        await writeFileAtomic(file(onnxFiles[precision]), bytes);
      },
    ]),
    [WEIGHTS, () => saveWeights(published, directory)],
    ...compact,
    [`${own}${PYTORCH}`, () => writeFileAtomic(file(`${own}${PYTORCH}`), pytorchSource(model))],
    ...[...(model.files ?? [])]
      .filter(([name]) => !Object.hasOwn(prepared, name))
      .map(([name, bytes]): [string, () => Promise<void>] => [
        name,
        () => writeFileAtomic(file(name), bytes),
      ]),
    ...Object.entries(prepared).map(([name, content]): [string, () => Promise<void>] => [
      name,
      () => writeJsonAtomic(file(name), content),
    ]),
  ];
  if (pruning !== undefined) {
    writers.push([PRUNING, () => writeJsonAtomic(file(PRUNING), { ...pruning, files: hashes })]);
  }
  writers.push([CONFIG, () => writeJsonAtomic(file(CONFIG), transformersConfig(published))]);
  const files: ExportedFile[] = [];
  for (const [path, write] of writers) {
    throwIfAborted(signal);
    onEvent?.({
      type: "progress",
      stage: "export",
      unit: "files",
      done: files.length,
      total: writers.length,
      subject: path,
    });
    await write();
    if (pruning !== undefined && path !== PRUNING)
      hashes[path] = await hashFile(file(path), "sha256");
    files.push({ path, bytes: (await stat(file(path))).size });
  }
  return files;
}

/** The model as PyTorch has it, beside its weights. */
function pytorchSource(model: Model): Uint8Array {
  const named = [...model.parameters];
  const statistics = new Set(
    named.filter(([, { kind }]) => kind === "statistic").map(([name]) => name),
  );
  const source = pytorchModule((batch, length) => {
    const { logits, parameters } = model.build(batch, "evaluation", length);
    return { output: logits, parameters, statistics };
  }, WEIGHTS);
  return new TextEncoder().encode(source);
}

/** SOURCE without the directories that it lies in, which concern nobody else. */
export function fileName(source: string): string {
  return source.replace(/[/\\]+$/, "").replace(/[^:]*[/\\]/, "");
}

async function rangesOf(
  graph: OnnxGraph,
  { preprocessing }: Model,
  { executor, calibration, signal }: ExportOptions,
) {
  const names = tensorsToCalibrate(graph);
  // Products of matrices alone, such as those of texts, find their ranges when they run.
  if (names.length === 0 || preprocessing.kind === "text") return new Map<string, Range>();
  const random = new Random("calibration");
  const samples = calibration ?? syntheticImages(preprocessing, CALIBRATION_SAMPLES, random);
  return calibrate(graph, names, {
    executor,
    samples,
    batchSize: CALIBRATION_BATCH,
    signal,
  });
}
