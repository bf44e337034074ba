import { bindParameters, type Model, Random, sizeOfModel } from "@espalier/core";
import { decodeOnnx, exportOnnx, float32Data, type Tensor } from "@espalier/graph";
import { cifarResNet, cifarResNetConfig, type Shortcut } from "@espalier/vision";
import { describe, expect, test } from "vitest";
import { createOnnxExecutor, openOnnxModel } from "./index.ts";

/** A ResNet-20 whose normalisations are not the identity. */
function resNet(shortcut: Shortcut): Model {
  const random = new Random("export");
  const model = cifarResNet.initialize(cifarResNetConfig(20, shortcut), random);
  const parameters = new Map(
    [...model.parameters].map(([name, parameter]) => {
      const { kind, data } = parameter;
      const numbers = random.stream(name);
      const positive = () => 0.5 + numbers.uniform() + (kind === "statistic" ? 0.5 : 0);
      const any = () => 0.2 * numbers.normal();
      const next = /weight|var/.test(name) ? positive : any;
      const normalized = kind === "normalization" || kind === "statistic";
      return [name, normalized ? { ...parameter, data: data.map(next) } : parameter] as const;
    }),
  );
  return model.withParameters(parameters);
}

/** Three quarters of the rows of every convolution, different ones, a third of them implants. */
function prune(model: Model): Model {
  const { implantable } = model.build(1, "evaluation");
  const random = new Random("prune");
  const selection = [...implantable].map((name) => {
    const rows = model.parameters.get(name)!.shape[0];
    const kept = random
      .stream(name)
      .permutation(rows)
      .slice(0, 0.75 * rows);
    return [name, [...kept].map((row, i) => ({ row, implant: i >= 0.5 * rows }))] as const;
  });
  return model.prune(new Map(selection));
}

const outputsOf = (model: Model) => (batch: number) => {
  const { graph, constants } = bindParameters(model, batch, "evaluation");
  return { outputs: { logits: graph.logits }, constants };
};

const images = (batch: number): Tensor => {
  const random = new Random("images");
  const data = Float32Array.from({ length: batch * 3072 }, () => random.normal());
  return { dtype: "float32", shape: [batch, 3, 32, 32], data };
};

const plain = ["Add", "Conv", "Gemm", "GlobalAveragePool", "Relu", "Reshape"];

describe.each<[string, Model, string[]]>([
  ["whole", resNet("projection"), plain],
  ["with padding shortcuts", resNet("padding"), [...plain, "Pad", "Slice"]],
  ["with implants", prune(resNet("projection")), [...plain, "Concat", "Gather", "Pad"]],
])("an exported ResNet-20, %s,", (_name, model, expectedTypes) => {
  const bytes = exportOnnx(outputsOf(model));

  test("consists of few kinds of nodes", () => {
    const { graph } = decodeOnnx(bytes, "model.onnx");
    const types = new Set(graph.nodes.map(({ type }) => type));
    expect([...types].sort()).toEqual(expectedTypes.sort());
    for (const { name, shape } of graph.inputs) {
      expect([name, shape]).toEqual(["pixel_values", ["batch", 3, 32, 32]]);
    }
    // Every convolution and linear layer has a bias, and nothing else has parameters.
    const layers = graph.nodes.filter(({ inputs }) => inputs.length === 3);
    const parameters = layers.flatMap(({ inputs }) => inputs.slice(1));
    expect(layers.every(({ type }) => type === "Conv" || type === "Gemm")).toBe(true);
    // Implants are rows of the convolutions that they belong to, unless all are whole blocks.
    const weights = parameters.filter((name) => name.endsWith(".weight"));
    const implants = [...model.parameters.keys()].filter((name) => name.endsWith("implant.weight"));
    const merged = implants.filter((name) => !weights.includes(name));
    const apart = implants.filter((name) => weights.includes(name));
    expect(apart.filter((name) => model.parameters.get(name)!.shape[0] % 16 !== 0)).toEqual([]);
    expect(new Set([...weights, ...merged])).toEqual(
      new Set(
        [...model.parameters.keys()].filter((name) =>
          /(conv\d|implant|\.0|fc)\.weight$/.test(name),
        ),
      ),
    );
  });

  test.each([1, 3, 250])("gives the logits of the model at batch %s", async (batch) => {
    const feed = images(batch);
    const { outputs, constants } = outputsOf(model)(batch);
    const program = await createOnnxExecutor().compile({ outputs, constants });
    const expected = await program.run({ pixel_values: feed.data });
    const opened = await openOnnxModel(bytes);
    const { logits } = await opened.run({ pixel_values: feed });
    expect(logits.shape).toEqual([batch, 10]);
    const largest = float32Data(logits).reduce(
      (worst, element, i) => Math.max(worst, Math.abs(element - Number(expected.logits.data[i]))),
      0,
    );
    expect(largest).toBeLessThan(1e-4);
    await Promise.all([program.dispose(), opened.dispose()]);
  });
});

test("half of the multiply-accumulates, in whole blocks of channels, take much less time", async () => {
  const config = cifarResNetConfig(8, "projection", [64, 64, 64]);
  const model = cifarResNet.initialize(config, new Random("speed"));
  const rows = [...Array(32).keys()].map((row) => ({ row, implant: false }));
  const inner = [1, 2, 3].map((stage) => [`layer${stage}.0.conv1.weight`, rows] as const);
  const half = model.prune(new Map(inner));
  const ratio = sizeOfModel(model).macs / sizeOfModel(half).macs;
  expect(ratio).toBeGreaterThan(1.8);
  const feeds = { pixel_values: images(8) };
  const opened = await Promise.all(
    [model, half].map((each) => openOnnxModel(exportOnnx(outputsOf(each)), { threads: 1 })),
  );
  // In turn, and the fastest of many: whatever else the machine does only adds to a time.
  const fastest = opened.map(() => Number.POSITIVE_INFINITY);
  for (let round = 0; round < 15; round++) {
    for (const [i, each] of opened.entries()) {
      const start = performance.now();
      await each.run(feeds);
      fastest[i] = Math.min(fastest[i], performance.now() - start);
    }
  }
  // `npm run bench` measures it strictly: benchmarks/results/speed.md.
  expect(fastest[0] / fastest[1]).toBeGreaterThan(0.6 * ratio);
  await Promise.all(opened.map((each) => each.dispose()));
});
