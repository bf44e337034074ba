/** @file How well an exported file does what its model does. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { EspalierError, readBytes } from "@espalier/base";
import type { Batch, Model, ModelGraph, Samples } from "@espalier/core";
import { float32Data } from "@espalier/graph";
import { type EvaluateOptions, type Evaluation, judge } from "@espalier/train";
import { onnxFiles, type Precision } from "./export.ts";
import type { OpenModel } from "./latency.ts";

export interface EvaluateExportOptions extends Omit<EvaluateOptions, "executor"> {
  readonly precision: Precision;
  /** What runs ONNX files. */
  readonly open: OpenModel;
}

/**
 * Runs the ONNX file of a precision on all of `samples`.
 *
 * @param directory An export of `model`, or the run that made one.
 * @throws EspalierError `missing-file` if there is no such file; as `evaluate` and `open`.
 */
export async function evaluateExport(
  directory: string,
  model: Model,
  samples: Samples,
  { precision, open, ...options }: EvaluateExportOptions,
): Promise<Evaluation> {
  const path = [directory, join(directory, "export/pruned")]
    .map((each) => join(each, onnxFiles[precision]))
    .find((each) => existsSync(each));
  if (path === undefined) {
    throw new EspalierError(
      "missing-file",
      `${directory}: expected an export with ${onnxFiles[precision]}, or a run that has made one`,
      { path: directory },
    );
  }
  const opened = await open(await readBytes(path));
  // Every batch has as many samples.
  const size = Math.min(options.batchSize, samples.count);
  const inputs = new Map<number | undefined, ModelGraph["inputs"]>();
  const logitsOf = async ({ feeds, length }: Batch) => {
    const expected = inputs.get(length) ?? model.build(size, "evaluation", length).inputs;
    inputs.set(length, expected);
    const given = Object.entries(expected).map(([name, { dtype, shape }]) => [
      name,
      { dtype, shape, data: feeds[name] },
    ]);
    return float32Data((await opened.run(Object.fromEntries(given))).logits);
  };
  try {
    return await judge(model, samples, logitsOf, options);
  } finally {
    await opened.dispose();
  }
}
