import {
  applyDecisions,
  compensate,
  componentGroups,
  type Decision,
  type Model,
  type Parameter,
  Random,
  sizeOfModel,
} from "@espalier/core";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { describe, expect, test } from "vitest";
import { cifarResNet, cifarResNetConfig } from "./cifar-resnet.ts";
import {
  logitsOf as logits,
  noiseSamples,
  prunedMinusMasked,
  randomDecisions,
  tinyResNet,
} from "./testing/index.ts";

const executor = createOnnxExecutor({ threads: 1 });

const logitsOf = (model: Model) => logits(model, executor, 4);

function expectClose(actual: Float32Array, expected: Float32Array, tolerance = 1e-4): void {
  expect(actual).toHaveLength(expected.length);
  const scale = Math.max(...expected.map(Math.abs), 1e-3);
  actual.forEach((x, i) => {
    expect(Math.abs(x - expected[i]) / scale).toBeLessThan(tolerance);
  });
}

describe("sizes equal the published ones to the unit", () => {
  test.each([
    ["resnet20-cifar10", cifarResNetConfig(20), 272_474, 40_813_184],
    ["resnet56-cifar10", cifarResNetConfig(56), 855_770, 125_747_840],
    ["ResNet-20, zero-padded shortcuts", cifarResNetConfig(20, "padding"), 269_722, undefined],
    ["ResNet-56, zero-padded shortcuts", cifarResNetConfig(56, "padding"), 853_018, 125_485_696],
    [
      "WideResNet32 of HAP",
      cifarResNetConfig(32, "projection", [64, 128, 256]),
      7_427_914,
      1_100_679_680,
    ],
  ])("%s", (_name, config, parameters, macs) => {
    const size = sizeOfModel(cifarResNet.initialize(config, new Random(0)));
    expect(size.parameters).toBe(parameters);
    if (macs !== undefined) expect(size.macs).toBe(macs);
  });
});

function decide(model: Model, coupling: "together" | "apart", seed: number) {
  const groups = componentGroups(model, coupling);
  return { groups, decisions: randomDecisions(groups, new Random(seed), true) };
}

describe.each(["projection", "padding"] as const)("shortcut by %s", (shortcut) => {
  const model = tinyResNet({ shortcut, widths: [6, 10, 14], depth: 14 });

  test.each(["together", "apart"] as const)(
    "pruned %s, it computes what the masked model does",
    async (coupling) => {
      for (const seed of [1, 2, 3]) {
        const difference = await prunedMinusMasked(model, executor, { policy: coupling, seed });
        expect(difference).toBeLessThan(1e-4);
      }
    },
  );

  test("pruned again, it still computes what the masked model does", async () => {
    const first = decide(model, "together", 5);
    const once = applyDecisions(model, first.groups, first.decisions);
    const groups = componentGroups(once, "together");
    expect(groups.some(({ implants }) => implants)).toBe(true);
    // Removing nothing in the second step changes nothing.
    const keepAll = new Map(
      groups.map(({ name, count }) => [name, new Array<Decision>(count).fill("keep")]),
    );
    expectClose(await logitsOf(applyDecisions(once, groups, keepAll)), await logitsOf(once));
    const second = decide(once, "together", 6);
    const twice = applyDecisions(once, second.groups, second.decisions);
    expect(sizeOfModel(twice).parameters).toBeLessThan(sizeOfModel(once).parameters);
    expect([...(await logitsOf(twice))].every(Number.isFinite)).toBe(true);
  });

  test("keeping everything changes nothing", async () => {
    const pruned = applyDecisions(model, componentGroups(model, "together"), new Map());
    expect([...(await logitsOf(pruned))]).toEqual([...(await logitsOf(model))]);
    expect(pruned.parameters.size).toBe(model.parameters.size);
  });

  test("where kernels are nothing but their centre, implants change nothing", async () => {
    const centred = model.withParameters(
      new Map(
        [...model.parameters].map(([name, parameter]) => {
          const taps = parameter.shape.slice(2).reduce((a, b) => a * b, 1);
          const data = parameter.data.map((w, i) =>
            taps > 1 && i % taps !== (taps - 1) / 2 ? 0 : w,
          );
          return [name, { ...parameter, data }];
        }),
      ),
    );
    const groups = componentGroups(centred, "together");
    const decisions = new Map(
      groups.map(({ name, count, implantable }) => [
        name,
        Array.from(
          { length: count },
          (_, i): Decision => (implantable && i % 2 === 0 ? "implant" : "keep"),
        ),
      ]),
    );
    const implanted = applyDecisions(centred, groups, decisions);
    expect(sizeOfModel(implanted).parameters).toBeLessThan(sizeOfModel(centred).parameters);
    expectClose(await logitsOf(implanted), await logitsOf(centred));
    // Least squares finds the same implants, but for a ridge that holds them to where they start.
    const zeroed = implanted.withParameters(
      new Map(
        [...implanted.parameters].map(([name, parameter]) => [
          name,
          name.includes(".implant.")
            ? { ...parameter, data: new Float32Array(parameter.data.length) }
            : parameter,
        ]),
      ),
    );
    const options = {
      batchSize: 16,
      random: new Random(0),
      fits: (weight: string) => weight.includes(".implant."),
    };
    const samples = noiseSamples(centred, 64);
    const fitted = await compensate(centred, zeroed, samples, { ...options, executor });
    for (const [name, { data }] of implanted.parameters) {
      if (name.startsWith("conv1.implant"))
        expectClose(fitted.parameters.get(name)!.data, data, 1e-2);
    }
    expectClose(await logitsOf(fitted), await logitsOf(centred), 2e-2);

    const limited = createOnnxExecutor({ memoryLimit: 2e6 });
    const again = await compensate(centred, zeroed, samples, { ...options, executor: limited });
    expectClose(await logitsOf(again), await logitsOf(centred), 2e-2);
  });

  test("an implant costs a ninth of the row it replaces", () => {
    const groups = componentGroups(model, "together");
    const inner = groups.find(({ name }) => name === "layer1.0.conv1")!;
    const one = (decision: Decision) =>
      applyDecisions(
        model,
        groups,
        new Map([
          [
            inner.name,
            Array.from({ length: inner.count }, (_, i): Decision => (i === 0 ? decision : "keep")),
          ],
        ]),
      );
    const weights = (of: Model) =>
      [...of.parameters].reduce(
        (sum, [name, { data }]) => (name.startsWith("layer1.0.conv1") ? sum + data.length : sum),
        0,
      );
    const row = weights(one("keep")) - weights(one("prune"));
    expect(weights(one("implant")) - weights(one("prune"))).toBe(row / 9);
  });

  test("statistics of the whole are what a saved copy says", () => {
    const { groups, decisions } = decide(model, "apart", 9);
    const pruned = applyDecisions(model, groups, decisions);
    const config = JSON.parse(JSON.stringify(pruned.config));
    const source = { config, path: "copy", tensors: pruned.parameters };
    const copy = cifarResNet.load(source, cifarResNet.detect(source)!);
    expect(copy.config).toEqual(pruned.config);
    expect(sizeOfModel(copy)).toEqual(sizeOfModel(pruned));
  });
});

describe("residual additions apart", () => {
  test("the sum has the channels of all branches, in ascending order", () => {
    const model = tinyResNet({ widths: [40, 40, 40] });
    const keepOnly = (numbers: readonly number[]) =>
      Array.from({ length: 40 }, (_, i): Decision => (numbers.includes(i) ? "keep" : "prune"));
    const groups = componentGroups(model, "apart");
    // Numbers whose text order differs from their numeric order.
    const decisions = new Map([
      ["conv1", keepOnly([33, 4, 10])],
      ["layer1.0.conv2", keepOnly([9, 21, 4])],
    ]);
    const pruned = applyDecisions(model, groups, decisions);
    const consumer = pruned.parameters.get("layer2.0.conv1.weight")!;
    expect(consumer.shape[1]).toBe(5);
    const dense = model.parameters.get("layer2.0.conv1.weight")!;
    [4, 9, 10, 21, 33].forEach((channel, column) => {
      expect(consumer.data[column * 9]).toBe(dense.data[channel * 9]);
    });
  });
});

describe("recognition", () => {
  const model = tinyResNet({ depth: 20, widths: [16, 32, 64], size: 32, classes: 10 });
  const source = (rename: (name: string) => string, config?: Record<string, unknown>) => ({
    config: config as never,
    path: "weights.pt",
    tensors: new Map([...model.parameters].map(([name, parameter]) => [rename(name), parameter])),
  });

  test("from the names of two public collections", () => {
    const config = cifarResNet.detect(source((name) => name));
    expect(config).toMatchObject({ depth: 20, shortcut: "projection" });
    expect(cifarResNet.presetOf(config!)).toBe("resnet20-cifar10");
    const renamed = source((name) =>
      name.replace("downsample", "shortcut").replace("fc.", "linear."),
    );
    expect(cifarResNet.load(renamed, cifarResNet.detect(renamed)!).parameters.size).toBe(
      model.parameters.size,
    );
  });

  test("without projections the normalisation is ImageNet's, as that collection was trained", () => {
    const padded = tinyResNet({
      shortcut: "padding",
      depth: 20,
      widths: [16, 32, 64],
      size: 32,
      classes: 10,
    });
    const config = cifarResNet.detect({ config: undefined, path: "x", tensors: padded.parameters });
    expect(config).toMatchObject({ shortcut: "padding", image: { mean: [0.485, 0.456, 0.406] } });
  });

  test("not for other networks", () => {
    const other = new Map([
      ["features.0.weight", { shape: [64, 3, 3, 3], data: new Float32Array(1728) }],
    ]);
    expect(cifarResNet.detect({ config: undefined, path: "x", tensors: other })).toBeUndefined();
    expect(cifarResNet.detect(source((name) => name, { model_type: "bert" }))).toBeUndefined();
  });

  test.each([
    [
      "a missing tensor",
      (tensors: Map<string, Parameter>) => tensors.delete("bn1.bias"),
      /x: tensor bn1.bias is missing, expected shape \[16\]/,
    ],
    [
      "a tensor of the wrong shape",
      (tensors: Map<string, Parameter>) =>
        tensors.set("bn1.bias", { shape: [3], data: new Float32Array(3), kind: "bias" }),
      /x: tensor bn1.bias: expected shape \[16\], got \[3\]/,
    ],
    [
      "a tensor too many",
      (tensors: Map<string, Parameter>) =>
        tensors.set("extra.weight", { shape: [3], data: new Float32Array(3), kind: "bias" }),
      /x: tensor extra.weight has no place in the model/,
    ],
    [
      "NaN",
      (tensors: Map<string, Parameter>) =>
        tensors.set("bn1.bias", {
          shape: [16],
          data: new Float32Array(16).fill(Number.NaN, 3, 4),
          kind: "bias",
        }),
      /x: tensor bn1.bias: expected finite numbers, got NaN at 3/,
    ],
    [
      "infinity",
      (tensors: Map<string, Parameter>) =>
        tensors.set("bn1.bias", {
          shape: [16],
          data: new Float32Array(16).fill(Number.POSITIVE_INFINITY),
          kind: "bias",
        }),
      /got Infinity at 0/,
    ],
  ])("%s is named", (_name, damage, message) => {
    const tensors = new Map(model.parameters);
    damage(tensors);
    expect(() => cifarResNet.load({ config: undefined, path: "x", tensors }, model.config)).toThrow(
      message,
    );
  });

  test.each([
    [{ num_labels: 0 }, /config.num_labels: Too small: expected number to be >=1, got 0$/],
    [
      { image: { shape: [3, 32, 32], mean: [0, 0], std: [1, 1, 1] } },
      /config.image: expected a mean/,
    ],
    [
      { image: { shape: [3, 32, 32], mean: [0, 0, 0], std: [1, 0, 1] } },
      /config.image.std.1: Too small/,
    ],
    [
      { pruning: { channels: { conv1: [1, 1] }, implants: {} } },
      /config.pruning.channels.conv1: expected distinct channel numbers, got \[1,1\]/,
    ],
    [
      { pruning: { channels: { conv1: [] }, implants: {} } },
      /x: fc: expected channels to reach it, got none/,
    ],
    [
      { pruning: { channels: { conv1: [1] }, implants: { conv1: 2 } } },
      /no more implants than channels/,
    ],
    [{ pruning: 7 }, /config.pruning: Invalid input: expected object, received number/],
    [{ widths: undefined }, /config.widths: Invalid input: expected tuple, received undefined/],
    [{ widths: [16, "a", 64] }, /config.widths.1: Invalid input: expected number/],
    [{ depth: 1e9 }, /config.depth: Too big/],
    [{ depth: 21 }, /config.depth: expected 6n \+ 2, got 21/],
    [{ shortcut: "padding", widths: [4, 7, 9] }, /config.widths: expected each stage/],
  ])("a configuration with %j is refused", (changes, message) => {
    const config = { ...model.config, ...changes } as never;
    expect(() =>
      cifarResNet.load({ config, path: "x", tensors: model.parameters }, config),
    ).toThrow(message);
  });
});

describe("whole branches", () => {
  const model = tinyResNet({ widths: [6, 10, 14], depth: 14 });
  const groups = componentGroups(model, "together");

  test("only what lies inside a branch can be removed as a whole", () => {
    expect(groups.filter(({ emptiable }) => emptiable).map(({ name }) => name)).toEqual([
      "layer1.0.conv1",
      "layer1.1.conv1",
      "layer2.0.conv1",
      "layer2.1.conv1",
      "layer3.0.conv1",
      "layer3.1.conv1",
    ]);
  });

  test("without them, a network computes what is left when the branches put out nothing", async () => {
    const emptied = ["layer1.1", "layer2.0", "layer3.1"];
    const decisions = new Map(
      groups.map(({ name, count }) => [
        name,
        new Array<Decision>(count).fill(
          emptied.includes(name.replace(".conv1", "")) ? "prune" : "keep",
        ),
      ]),
    );
    const pruned = applyDecisions(model, groups, decisions);
    expect([...pruned.parameters.keys()].some((name) => name.startsWith("layer2.0.conv"))).toBe(
      false,
    );
    expect(pruned.parameters.has("layer2.0.downsample.0.weight")).toBe(true);
    const silenced = new Map(model.parameters);
    for (const block of emptied) {
      for (const field of ["weight", "bias"]) {
        const name = `${block}.bn2.${field}`;
        const parameter = silenced.get(name)!;
        silenced.set(name, { ...parameter, data: new Float32Array(parameter.data.length) });
      }
    }
    expectClose(await logitsOf(pruned), await logitsOf(model.withParameters(silenced)));
    // It can be saved, loaded and pruned again.
    const config = JSON.parse(JSON.stringify(pruned.config));
    const copy = cifarResNet.load({ config, path: "copy", tensors: pruned.parameters }, config);
    const again = componentGroups(copy, "together");
    expect(again.map(({ name }) => name)).not.toContain("layer2.0.conv1");
    expectClose(await logitsOf(applyDecisions(copy, again, new Map())), await logitsOf(pruned));
  });
});
