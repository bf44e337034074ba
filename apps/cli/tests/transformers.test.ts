/** @file Exported directories in Transformers.js, as users load them, and back in Espalier. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  applyDecisions,
  bindParameters,
  componentGroups,
  type Decision,
  type ImagePreprocessing,
  type Model,
  Random,
  selectSamples,
} from "@espalier/core";
import { defaultCacheDirectory } from "@espalier/data";
import { float32Data } from "@espalier/graph";
import { exportModel, loadSource, openTask } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import {
  cifarResNet,
  preResNet,
  preResNetConfig,
  resNet,
  resNetConfig,
  vgg,
  vggConfig,
} from "@espalier/vision";
import { randomStatistics, tinyResNet } from "@espalier/vision/testing";
import {
  env,
  type ImageClassificationPipeline,
  pipeline,
  RawImage,
  Tensor,
} from "@huggingface/transformers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const families = [cifarResNet, preResNet, vgg, resNet];
const executor = createOnnxExecutor({ threads: 1 });

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-transformers-"));
  env.allowRemoteModels = false;
  env.localModelPath = directory;
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** Two in ten channels of every group removed, two in ten made implants. */
function prune(model: Model): Model {
  const groups = componentGroups(model, "together");
  const decide = (implantable: boolean) => (i: number) =>
    (["keep", "keep", "prune", "keep", implantable ? "implant" : "keep"] as Decision[])[i % 5];
  const decisions = new Map(
    groups.map(({ name, count, implantable }) => [
      name,
      Array.from({ length: count }, (_, i) => decide(implantable)(i)),
    ]),
  );
  return applyDecisions(model, groups, decisions);
}

const random = () => new Random(0);
const small = { shape: [3, 32, 32] as const, mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3] };
const models: [string, () => Model][] = [
  ["a ResNet for CIFAR", () => tinyResNet({ size: 32, classes: 10, widths: [8, 12, 16] })],
  [
    "a PreResNet",
    () =>
      randomStatistics(preResNet.initialize(preResNetConfig(11, [8, 16, 24]), random()), random()),
  ],
  [
    "a VGG",
    () =>
      randomStatistics(
        vgg.initialize({ ...vggConfig(11), hidden_sizes: [8, 8, 16, 16, 24] }, random()),
        random(),
      ),
  ],
  [
    "a ResNet for ImageNet",
    () => {
      const config = {
        ...resNetConfig(50, 7),
        embedding_size: 8,
        hidden_sizes: [16, 32],
        depths: [1, 2],
        image: small,
      };
      return randomStatistics(resNet.initialize(config, random()), random());
    },
  ],
];

const IMAGES = 4;

function images(): { raw: RawImage[]; pixels: Uint8ClampedArray[] } {
  const pixels = Array.from({ length: IMAGES }, (_, n) => {
    const stream = new Random(n);
    return Uint8ClampedArray.from({ length: 3072 }, () => stream.integer(256));
  });
  return { pixels, raw: pixels.map((data) => new RawImage(data, 32, 32, 3)) };
}

function preparationOf({ preprocessing }: Model): ImagePreprocessing {
  if (preprocessing.kind !== "image") throw new TypeError("expected a model of images");
  return preprocessing;
}

/** Pixels [n, height, width, channel] as `espalier` gives them to the model. */
function prepared(model: Model, pixels: Uint8ClampedArray[]) {
  const { mean, std } = preparationOf(model);
  const plane = 1024;
  return Float32Array.from({ length: pixels.length * 3 * plane }, (_, i) => {
    const channel = Math.floor(i / plane) % 3;
    const pixel = pixels[Math.floor(i / (3 * plane))][(i % plane) * 3 + channel];
    return (pixel / 255 - mean[channel]) / std[channel];
  });
}

async function logitsOf(model: Model, pixels: Float32Array, count: number): Promise<Float32Array> {
  const { graph, constants } = bindParameters(model, count, "evaluation");
  const program = await executor.compile({ outputs: { logits: graph.logits }, constants });
  const { logits } = await program.run({ pixel_values: pixels });
  await program.dispose();
  return float32Data(logits);
}

const load = (name: string, dtype: "fp32" | "fp16" | "q8") =>
  pipeline("image-classification", name, { dtype, device: "cpu" });

async function logitsIn(classify: ImageClassificationPipeline, pixel_values: Tensor) {
  const { logits } = await classify.model({ pixel_values });
  return Float32Array.from(logits.data);
}

const largest = (numbers: Float32Array) => numbers.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
const difference = (a: Float32Array, b: Float32Array) => largest(a.map((n, i) => n - b[i]));

describe.each(
  models.flatMap(([name, make]) => [
    [name, "whole", make] as const,
    [name, "pruned, with implants", () => prune(make())] as const,
  ]),
)("%s, %s,", (name, state, make) => {
  const folder = `${name} ${state}`.replaceAll(/\W+/g, "-");
  let model: Model;
  let expected: Float32Array;
  const { raw, pixels } = images();
  beforeAll(async () => {
    model = make();
    await exportModel(model, join(directory, folder), { executor });
    expected = await logitsOf(model, prepared(model, pixels), IMAGES);
  });

  test("is an Espalier model again, with the same logits", async () => {
    const loaded = await loadSource(join(directory, folder), families);
    expect(loaded.model.config).toEqual(JSON.parse(JSON.stringify(model.config)));
    expect(await logitsOf(loaded.model, prepared(model, pixels), IMAGES)).toEqual(expected);
  });

  test("is prepared, run and named by Transformers.js as by Espalier", async () => {
    const classify = await load(folder, "fp32");
    const { pixel_values } = await classify.processor(raw);
    expect(pixel_values.dims).toEqual([IMAGES, 3, 32, 32]);
    // Both round to float32, at other moments.
    const prepare = difference(Float32Array.from(pixel_values.data), prepared(model, pixels));
    expect(prepare).toBeLessThan(1e-6);
    const logits = await logitsIn(classify, pixel_values);
    expect(difference(logits, expected)).toBeLessThan(1e-4 * Math.max(1, largest(expected)));
    const answers = (await classify(raw, { top_k: 1 })) as { label: string }[][];
    answers.forEach(([{ label }], n) => {
      const row = [...expected.subarray(n * model.classes.length).slice(0, model.classes.length)];
      expect(label).toBe(model.classes[row.indexOf(Math.max(...row))]);
    });
    await classify.dispose();
  });

  test.each([
    ["fp16", 1e-2],
    ["q8", 0.25],
  ] as const)("runs in %s", async (dtype, tolerance) => {
    const classify = await load(folder, dtype);
    const { pixel_values } = await classify.processor(raw);
    const error = difference(await logitsIn(classify, pixel_values), expected);
    expect(error).toBeGreaterThan(0);
    expect(error / largest(expected)).toBeLessThan(tolerance);
    await classify.dispose();
  });
});

test("images of other sizes are scaled and cut to the model's", async () => {
  const model = tinyResNet({ size: 32, classes: 10 });
  await exportModel(model, join(directory, "sizes"), { executor, precisions: ["fp32"] });
  const classify = await load("sizes", "fp32");
  const image = new RawImage(new Uint8ClampedArray(100 * 70 * 3).fill(128), 100, 70, 3);
  const { pixel_values } = await classify.processor(image);
  expect(pixel_values.dims).toEqual([1, 3, 32, 32]);
  const { mean, std } = preparationOf(model);
  const grey = Number(pixel_values.data[500]);
  expect(grey).toBeCloseTo((128 / 255 - mean[0]) / std[0], 5);
  const { size, crop_size } = JSON.parse(
    await readFile(join(directory, "sizes", "preprocessor_config.json"), "utf8"),
  );
  expect({ size, crop_size }).toEqual({
    size: { shortest_edge: 32 },
    crop_size: { height: 32, width: 32 },
  });
  await classify.dispose();
});

const root = fileURLToPath(new URL("../../..", import.meta.url));
const cached = existsSync(join(defaultCacheDirectory(), "datasets/cifar10/test_batch.bin"));

describe.skipIf(!cached)("on 1,000 images of CIFAR-10 (skipped where it is not cached)", () => {
  test("8 bits cost less than a point of accuracy, and float16 next to nothing", async () => {
    const source = join(root, "examples/resnet20-cifar10");
    const { model } = await loadSource(source, families);
    await exportModel(model, join(directory, "example"), { executor });
    const task = await openTask("cifar10");
    const samples = selectSamples(task.test(model), [...Array(1000).keys()]);
    const accuracies: Record<string, number> = {};
    for (const dtype of ["fp32", "fp16", "q8"] as const) {
      const classify = await load("example", dtype);
      let right = 0;
      for (let start = 0; start < 1000; start += 100) {
        const indices = Array.from({ length: 100 }, (_, i) => start + i);
        const { feeds, labels } = await samples.batch(indices);
        const pixels = new Tensor("float32", feeds.pixel_values as Float32Array, [100, 3, 32, 32]);
        const logits = await logitsIn(classify, pixels);
        for (let n = 0; n < 100; n++) {
          const row = [...logits.subarray(10 * n, 10 * n + 10)];
          if (row.indexOf(Math.max(...row)) === labels[n]) right++;
        }
      }
      accuracies[dtype] = right / 1000;
      await classify.dispose();
    }
    expect(accuracies.fp32).toBeGreaterThan(0.9);
    expect(Math.abs(accuracies.fp16 - accuracies.fp32)).toBeLessThanOrEqual(0.002);
    expect(accuracies.q8).toBeGreaterThan(accuracies.fp32 - 0.01);
  });
});
