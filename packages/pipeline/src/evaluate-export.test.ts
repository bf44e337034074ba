import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createOnnxExecutor, openOnnxModel } from "@espalier/runtime-onnx";
import { evaluate } from "@espalier/train";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { evaluateExport } from "./evaluate-export.ts";
import { exportModel, type Precision } from "./export.ts";

let root: string;
const model = tinyResNet();
const samples = noiseSamples(model, 40);
const executor = createOnnxExecutor({ threads: 1 });
const at = (...names: string[]) => join(root, ...names);

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-evaluate-"));
  await exportModel(model, at("export"), { executor, calibration: samples });
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** By the file of a precision, 16 samples at a time, which do not divide all. */
const judged = (directory: string, precision: Precision) =>
  evaluateExport(directory, model, samples, {
    ...{ precision, batchSize: 16 },
    open: (onnx) => openOnnxModel(onnx, { threads: 1 }),
  });

test("files of all precisions are judged, and are not the same", async () => {
  const own = await evaluate(model, samples, { executor, batchSize: 16 });
  const single = await judged(at("export"), "fp32");
  expect(single.count).toBe(40);
  expect(single.accuracy).toBe(own.accuracy);
  expect(single.loss).toBeCloseTo(own.loss, 5);
  const half = await judged(at("export"), "fp16");
  expect(half.loss).not.toBe(single.loss);
  expect(Math.abs(half.loss - own.loss)).toBeLessThan(0.01);
  const eight = await judged(at("export"), "q8");
  expect(Math.abs(eight.loss - own.loss)).toBeGreaterThan(1e-5);
  expect(Math.abs(eight.loss - own.loss)).toBeLessThan(0.1 * own.loss);
});

test("those of a run are in its export, and what is not there is said", async () => {
  await expect(judged(root, "q8")).rejects.toThrow(
    /expected an export with onnx.model_quantized\.onnx, or a run that has made one$/,
  );
  await mkdir(at("run/export"), { recursive: true });
  await rename(at("export"), at("run/export/pruned"));
  expect((await judged(at("run"), "q8")).count).toBe(40);
});
