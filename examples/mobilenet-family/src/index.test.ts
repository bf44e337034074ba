import {
  applyDecisions,
  componentGroups,
  type Decision,
  type Model,
  Random,
  sizeOfModel,
} from "@espalier/core";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import {
  logitsOf,
  prunedMinusMasked,
  randomDecisions,
  randomStatistics,
} from "@espalier/vision/testing";
import { describe, expect, test } from "vitest";
import { mobileNet } from "./index.ts";

const executor = createOnnxExecutor({ threads: 1 });
const tiny = mobileNet.presets["mobilenetv2-tiny-cifar10"];
const fresh = mobileNet.initialize(tiny, new Random(0));
const model = randomStatistics(fresh, new Random(1));

test("the network for ImageNet has torchvision's size", () => {
  const { parameters, macs } = sizeOfModel(
    mobileNet.initialize(mobileNet.presets["mobilenetv2-imagenet"], new Random(0)),
  );
  expect(parameters).toBe(3_504_872);
  // Torchvision's documentation: 0.30 GFLOPS.
  expect(macs).toBe(300_774_272);
});

test.each(["together", "apart"] as const)(
  "pruned %s, it computes what the masked network does",
  async (policy) => {
    for (const seed of [1, 2, 3]) {
      expect(await prunedMinusMasked(model, executor, { policy, seed })).toBeLessThan(1e-4);
    }
  },
);

test("a checkpoint is recognised by its tensors, a saved model by its configuration", () => {
  const tensors = new Map(fresh.parameters);
  tensors.set("features.0.1.num_batches_tracked", {
    shape: [],
    kind: "statistic",
    data: new Float32Array(1),
  });
  const source = { config: undefined, path: "weights.pt", tensors };
  expect(mobileNet.detect(source)).toEqual(tiny);
  expect(mobileNet.load(source, tiny).parameters.size).toBe(fresh.parameters.size);
  expect(mobileNet.presetOf(tiny)).toBe("mobilenetv2-tiny-cifar10");
  tensors.delete("features.1.conv.0.0.weight");
  expect(mobileNet.detect(source)).toBeUndefined();
});

describe("components", () => {
  const groups = componentGroups(model, "together");
  const weights = (of: Model) =>
    Object.fromEntries(
      [...of.parameters].flatMap(([name, { shape, kind }]) =>
        kind === "weight" ? [[name.replace(/\.weight$/, ""), shape]] : [],
      ),
    );
  /** The network without, or with an implant for, the first channel of one group. */
  const decided = (name: string, decision: Decision) => {
    const { count } = groups.find((group) => group.name === name)!;
    const decisions = Array<Decision>(count).fill("keep").fill(decision, 0, 1);
    return applyDecisions(model, groups, new Map([[name, decisions]]));
  };

  test("a depthwise convolution goes with the pointwise one before it", () => {
    const name = "features.2.conv.0.0";
    const group = groups.find((each) => each.name === name)!;
    expect(group.rows.map(({ parameter }) => parameter)).toEqual([
      `${name}.weight`,
      "features.2.conv.1.0.weight",
    ]);
    const before = weights(model);
    const after = weights(decided(name, "prune"));
    expect(before[name]).toEqual([32, 8, 1, 1]);
    expect(after[name]).toEqual([31, 8, 1, 1]);
    expect(after["features.2.conv.1.0"]).toEqual([31, 1, 3, 3]);
    expect(after["features.2.conv.2"]).toEqual([16, 31, 1, 1]);
  });

  test("of a channel with an implant, the 3×3 kernel alone becomes smaller", () => {
    const after = weights(decided("features.2.conv.0.0", "implant"));
    expect(after["features.2.conv.0.0"]).toEqual([32, 8, 1, 1]);
    expect(after["features.2.conv.1.0"]).toEqual([31, 1, 3, 3]);
    expect(after["features.2.conv.1.0.implant"]).toEqual([1, 1, 1, 1]);
    expect(Object.keys(after).filter((name) => name.endsWith(".implant"))).toHaveLength(1);
  });

  test("implants go where they save something: not into groups of 1×1 convolutions alone", () => {
    const kernels = weights(model);
    for (const { name, rows, implantable } of groups) {
      const sizes = rows
        .filter(({ parameter }) => parameter.endsWith(".weight"))
        .map(({ parameter }) => kernels[parameter.replace(/\.weight$/, "")][2] ?? 1);
      expect(implantable, name).toBe(sizes.some((side) => side > 1));
      if (!implantable) continue;
      const implanted = decided(name, "implant");
      expect(sizeOfModel(implanted).parameters).toBeLessThan(sizeOfModel(model).parameters);
      expect(sizeOfModel(implanted).macs).toBeLessThan(sizeOfModel(model).macs);
    }
  });
});

test("pruned with implants, again, it is rebuilt from its configuration and tensors", async () => {
  let pruned = model;
  for (const seed of [1, 2]) {
    const groups = componentGroups(pruned, "together");
    const before = pruned;
    pruned = applyDecisions(pruned, groups, randomDecisions(groups, new Random(seed), true));
    expect(sizeOfModel(pruned).parameters).toBeLessThan(sizeOfModel(before).parameters);
    const config = JSON.parse(JSON.stringify(pruned.config));
    const source = { config, path: "copy", tensors: pruned.parameters };
    const copy = mobileNet.load(source, mobileNet.detect(source)!);
    expect(await logitsOf(copy, executor)).toEqual(await logitsOf(pruned, executor));
  }
  const groups = componentGroups(pruned, "together");
  expect(groups.some(({ implants }) => implants)).toBe(true);
  expect(await prunedMinusMasked(pruned, executor)).toBeLessThan(1e-4);
});

test("a depthwise implant is the centre of the kernel that it replaces", async () => {
  // Where kernels are nothing but their centre, implants can be what they replace.
  const centred = model.withParameters(
    new Map(
      [...model.parameters].map(([name, parameter]) => {
        const taps = (parameter.shape[2] ?? 1) * (parameter.shape[3] ?? 1);
        const centre = (taps - 1) / 2;
        const data = parameter.data.map((w, i) => (i % taps === centre ? w : 0));
        return [name, { ...parameter, data }];
      }),
    ),
  );
  const groups = componentGroups(centred, "together");
  const name = "features.3.conv.0.0";
  const decisions = Array.from({ length: 64 }, (_, i): Decision => (i % 2 ? "keep" : "implant"));
  const implanted = applyDecisions(centred, groups, new Map([[name, decisions]]));
  expect(implanted.parameters.get("features.3.conv.1.0.implant.weight")!.shape).toEqual([
    32, 1, 1, 1,
  ]);
  const [actual, expected] = [
    await logitsOf(implanted, executor),
    await logitsOf(centred, executor),
  ];
  expected.forEach((logit, i) => {
    expect(actual[i]).toBeCloseTo(logit, 3);
  });
  const pruned = new Map([[name, decisions.map((d): Decision => (d === "keep" ? d : "prune"))]]);
  expect(await logitsOf(applyDecisions(centred, groups, pruned), executor)).not.toEqual(expected);
});
