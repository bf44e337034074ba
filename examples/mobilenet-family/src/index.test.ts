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

  test("implants go where they save something: into the first convolution alone", () => {
    for (const { name, implantable } of groups) {
      expect(implantable, name).toBe(name === "features.0.0");
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
