import {
  applyDecisions,
  bindParameters,
  compensate,
  componentGroups,
  type Decision,
  type Model,
  makePlan,
  measureSensitivity,
  Random,
  sitesOf,
  sizeOfModel,
} from "@espalier/core";
import { exportOnnx, float32Data, type Value } from "@espalier/graph";
import { createOnnxExecutor, openOnnxModel } from "@espalier/runtime-onnx";
import { describe, expect, test } from "vitest";
import { cifarLabels } from "./cifar.ts";
import { defineVisionFamily, type VisionConfig, visionConfig } from "./family.ts";
import type { Feature, Network } from "./network.ts";
import { logitsOf, noiseSamples, prunedMinusMasked, randomStatistics } from "./testing/index.ts";

const executor = createOnnxExecutor({ threads: 1 });

/** A network of features that `features` computes, and a linear layer. */
function networkOf(features: (network: Network, image: Feature) => Feature): Model {
  const config: VisionConfig = {
    model_type: "test",
    ...cifarLabels(3),
    image: { shape: [3, 8, 8], mean: [0, 0, 0], std: [1, 1, 1] },
  };
  const family = defineVisionFamily({
    name: "test",
    schema: visionConfig as never,
    presets: { test: config },
    presetFields: [],
    piecewiseLinear: true,
    recognize: () => undefined,
    canonicalName: (name) => name,
    forward: (network, image): Value =>
      network.linear("fc", network.globalAverage(features(network, image)), 3).value,
  });
  return randomStatistics(family.initialize(config, new Random(0)), new Random(1));
}

const conv3 = { kernel: 3, padding: 1 };
const branches = (network: Network, image: Feature) => {
  const x = network.relu(
    network.batchNorm("n0", network.conv("stem", image, { outputs: 6, ...conv3 })),
  );
  const y = network.batchNorm("n1", network.conv("branch", x, { outputs: 6, ...conv3 }));
  return network.relu6(network.join([x, y]));
};

describe("depthwise convolutions", () => {
  const afterJoin = networkOf((network, image) => {
    const y = network.depthwiseConv("depthwise", branches(network, image), {
      ...conv3,
      bias: true,
    });
    return network.conv("last", network.relu6(y), { outputs: 4, kernel: 1 });
  });

  test("after an addition go with its branches", async () => {
    const groups = componentGroups(afterJoin, "together");
    const parameters = groups[0].rows.map(({ parameter }) => parameter);
    expect(parameters).toEqual([
      "stem.weight",
      "branch.weight",
      "depthwise.weight",
      "depthwise.bias",
    ]);
    for (const seed of [1, 2]) {
      expect(await prunedMinusMasked(afterJoin, executor, { seed })).toBeLessThan(1e-4);
    }
  });

  test("lose channels by themselves where the branches do, and those that all branches have lost", () => {
    const groups = componentGroups(afterJoin, "apart");
    expect(groups.map(({ name }) => name)).toEqual(
      ["stem", "branch", "depthwise", "last"].slice(0, groups.length),
    );
    const gone = (...numbers: number[]) =>
      Array.from({ length: 6 }, (_, i): Decision => (numbers.includes(i) ? "prune" : "keep"));
    const pruned = applyDecisions(
      afterJoin,
      groups,
      new Map([
        ["stem", gone(0, 1)],
        ["branch", gone(1, 2)],
        ["depthwise", gone(4)],
      ]),
    );
    const { channels } = pruned.config.pruning as { channels: Record<string, number[]> };
    expect(channels.depthwise).toEqual([0, 2, 3, 5]);
    expect(pruned.parameters.get("depthwise.weight")!.shape).toEqual([4, 1, 3, 3]);
    expect(pruned.parameters.get("last.weight")!.shape).toEqual([4, 4, 1, 1]);
    const config = JSON.parse(JSON.stringify(pruned.config));
    const source = { config, path: "copy", tensors: pruned.parameters };
    expect(sizeOfModel(pruned.family.load(source, config))).toEqual(sizeOfModel(pruned));
  });

  const serial = networkOf((network, image) => {
    const x = network.batchNorm("n0", network.conv("first", image, { outputs: 6, ...conv3 }));
    const y = network.depthwiseConv("depthwise", network.relu6(x), conv3);
    return network.relu6(network.batchNorm("n1", y));
  });

  test("a component is switched off once, where it leaves its last layer", () => {
    const graph = serial.build(1, "evaluation");
    const [group] = componentGroups(serial, "together");
    expect(group.rows.map(({ parameter }) => parameter)).toEqual([
      "first.weight",
      "depthwise.weight",
    ]);
    expect(sitesOf(group, graph).map(({ site }) => site)).toEqual(["depthwise.weight"]);
    const joined = afterJoin.build(1, "evaluation");
    const sites = sitesOf(componentGroups(afterJoin, "together")[0], joined);
    expect(sites.map(({ site }) => site)).toEqual(["depthwise.weight"]);
    const residual = networkOf(branches);
    const both = sitesOf(componentGroups(residual, "together")[0], residual.build(1, "evaluation"));
    expect(both.map(({ site }) => site)).toEqual(["stem.weight", "branch.weight"]);
  });

  test.each(["removal", "hessian-trace", "gradient", "magnitude"] as const)(
    "have scores by %s",
    async (metric) => {
      const { groups } = await measureSensitivity(serial, {
        metric,
        estimator: "auto",
        executor,
        samples: noiseSamples(serial, 8),
        temperature: 1,
        coupling: "together",
        batchSize: 4,
        random: new Random(0),
      });
      expect(groups.map(({ group }) => group.count)).toEqual([6]);
      expect(groups[0].scores.every((score) => score >= 0)).toBe(true);
      expect(groups[0].scores.some((score) => score > 0)).toBe(true);
    },
  );
});

test("a depthwise convolution that ends a branch is exported as it is, whatever becomes of the branch", async () => {
  const dense = networkOf((network, image) => {
    const x = network.relu(
      network.batchNorm("n0", network.conv("stem", image, { outputs: 8, ...conv3 })),
    );
    const y = network.relu(
      network.batchNorm("n1", network.conv("point", x, { outputs: 8, ...conv3 })),
    );
    return network.relu(
      network.join([network.batchNorm("n2", network.depthwiseConv("depth", y, conv3)), x]),
    );
  });
  const groups = componentGroups(dense, "apart");
  const some = (decision: Decision) =>
    Array.from({ length: 8 }, (_, i): Decision => (i % 4 === 1 ? decision : "keep"));
  for (const decision of ["prune", "implant"] as const) {
    const pruned = applyDecisions(dense, groups, new Map([["point", some(decision)]]));
    const onnx = exportOnnx((batch) => {
      const { graph, constants } = bindParameters(pruned, batch, "evaluation");
      return { outputs: { logits: graph.logits }, constants };
    });
    const exported = await openOnnxModel(onnx, { threads: 1 });
    const { feeds } = await noiseSamples(pruned, 3).batch([0, 1, 2]);
    const data = feeds.pixel_values as Float32Array;
    const { logits } = await exported.run({
      pixel_values: { dtype: "float32", shape: [3, 3, 8, 8], data },
    });
    await exported.dispose();
    const expected = await logitsOf(pruned, executor, 3);
    (logits.data as Float32Array).forEach((logit, i) => {
      expect(logit).toBeCloseTo(expected[i], 4);
    });
  }
});

test("what is normalised on one of several ways is switched off before they part", () => {
  const forked = networkOf((network, image) => {
    const x = network.conv("shared", image, { outputs: 6, ...conv3 });
    const y = network.conv("branch", network.relu(network.batchNorm("n1", x)), {
      outputs: 6,
      ...conv3,
    });
    return network.relu(network.join([y, x]));
  });
  const { sites, parameters } = forked.build(1, "evaluation");
  const shared = sites.get("shared.weight")!;
  expect(shared.value.operation.name).toBe("conv");
  expect(shared.value.inputs).toContain(parameters.get("shared.weight"));
  // The mean of one normalisation makes up for nothing on the other way.
  expect(shared.shift).toBeUndefined();
  const { sites: straight } = networkOf(branches).build(1, "evaluation");
  expect(straight.get("branch.weight")!.shift?.parameter).toBe("n1.running_mean");
});

test("where every branch of a sum could go, one stays", () => {
  const twins = networkOf((network, image) => {
    const branch = (name: string) => {
      const x = network.conv(`${name}1`, image, { outputs: 8, ...conv3 });
      return network.conv(`${name}2`, network.relu(x), { outputs: 8, ...conv3 });
    };
    return network.relu(network.join([branch("a"), branch("b")]));
  });
  const groups = componentGroups(twins, "together");
  expect(groups.filter(({ emptiable }) => emptiable).map(({ name }) => name)).toEqual(["b1"]);
  const sensitivity = {
    ...{ metric: "random" as const, temperature: 1, coupling: "together" as const },
    ...{ samples: 0, draws: 0, negative: 0, rankStability: 1 },
    groups: groups.map((group) => ({
      group,
      scores: new Float64Array(group.count).fill(1),
      standardErrors: new Float64Array(group.count),
    })),
  };
  for (const keep of [0.8, 0.5, 0.3]) {
    const plan = makePlan(twins, sensitivity, {
      ...{ budget: { of: "macs", keep }, implant: 0, scope: "kind", rankBy: "score-per-cost" },
      ...{ floor: 0, wholeBranches: true, roundTo: 1 },
    });
    expect(plan.after.macs).toBeLessThanOrEqual(keep * plan.before.macs);
  }
});

test("layers in groups, and what feeds them, are left whole, also behind additions", async () => {
  const grouped = networkOf((network, image) => {
    const y = network.conv("grouped", branches(network, image), {
      outputs: 6,
      groups: 2,
      ...conv3,
    });
    return network.conv("last", network.relu(y), { outputs: 4, kernel: 1 });
  });
  for (const policy of ["together", "apart"] as const) {
    const groups = componentGroups(grouped, policy);
    const names = groups.flatMap(({ rows }) => rows.map(({ parameter }) => parameter));
    expect(names).toEqual(["last.weight"]);
    expect(await prunedMinusMasked(grouped, executor, { policy })).toBeLessThan(1e-4);
  }
});

test("as many groups as channels are refused, with the method that takes them", () => {
  expect(() =>
    networkOf((network, image) =>
      network.conv("wrong", image, { outputs: 3, groups: 3, ...conv3 }),
    ),
  ).toThrow(/wrong: expected 3 groups of at least two channels each, got 3 channels/);
});

test("parameters that nothing uses are no components and do not count", async () => {
  const model = networkOf((network, image) => {
    const x = network.conv("used", image, { outputs: 4, ...conv3 });
    network.conv("unused", x, { outputs: 5, ...conv3 });
    return network.relu(x);
  });
  expect(componentGroups(model, "together").map(({ name }) => name)).toEqual(["used"]);
  expect(sizeOfModel(model).parameters).toBe(4 * 27 + 3 * 4 + 3);
  expect(await prunedMinusMasked(model, executor)).toBeLessThan(1e-4);
  expect((await logitsOf(model, executor)).every(Number.isFinite)).toBe(true);
});

describe("layers in groups are fitted after pruning", () => {
  const count = 16;
  const stem = (network: Network, image: Feature) =>
    network.relu(network.batchNorm("n0", network.conv("stem", image, { outputs: 6, ...conv3 })));
  const decide = (decisions: Readonly<Record<string, readonly Decision[]>>) => (model: Model) =>
    applyDecisions(
      model,
      componentGroups(model, "together"),
      new Map(Object.entries(decisions).map(([name, list]) => [name, [...list]])),
    );

  /** The outputs of the layer of a weight. */
  async function outputsOf(model: Model, layer: string) {
    const { graph, constants } = bindParameters(model, count, "evaluation");
    const site = [...graph.sites.values()].find((each) => each.layer === layer)!;
    const program = await executor.compile({ outputs: { value: site.value }, constants });
    const { feeds } = await noiseSamples(model, count).batch([...Array(count).keys()]);
    const { value } = await program.run(feeds);
    await program.dispose();
    return float32Data(value);
  }

  const two = networkOf((network, image) => {
    const x = network.relu(network.conv("before", stem(network, image), { outputs: 6, kernel: 1 }));
    const y = network.conv("grouped", x, { outputs: 4, groups: 2, bias: true, ...conv3 });
    return network.relu(network.batchNorm("n1", y));
  });
  const depthwise = networkOf((network, image) => {
    const y = network.depthwiseConv("depthwise", stem(network, image), conv3);
    const z = network.relu(network.batchNorm("n1", y));
    return network.conv("last", z, { outputs: 4, kernel: 1 });
  });
  const keep: Decision = "keep";

  test.each([
    ["two groups", two, "grouped", decide({ stem: [keep, "prune", keep, keep, "prune", keep] })],
    [
      "each channel, in another order after implants before",
      depthwise,
      "depthwise",
      decide({ stem: [keep, "implant", keep, keep, "implant", "implant"] }),
    ],
  ] as const)("%s", async (_name, dense, layer, cut) => {
    const pruned = cut(dense);
    const fit = (fits: (weight: string) => boolean) =>
      compensate(dense, pruned, noiseSamples(dense, count), {
        executor,
        batchSize: 6,
        random: new Random(0),
        fits,
      });
    const isOwn = (weight: string) => weight.startsWith(layer);
    const before = await fit((weight) => !isOwn(weight));
    const after = await fit(() => true);
    const wanted = await outputsOf(dense, layer);
    // In the order of the dense network.
    const { channels } = pruned.config.pruning as { channels: Record<string, number[]> };
    const order = channels[layer] ?? [
      ...Array(dense.parameters.get(`${layer}.weight`)!.shape[0]).keys(),
    ];
    const error = async (model: Model) => {
      const made = await outputsOf(model, layer);
      const area = wanted.length / count / order.length;
      const errors = new Array<number>(order.length).fill(0);
      made.forEach((x, i) => {
        const [n, place] = [
          Math.floor(i / area / order.length),
          Math.floor(i / area) % order.length,
        ];
        const at = (n * order.length + order[place]) * area + (i % area);
        errors[place] += (x - wanted[at]) ** 2;
      });
      return errors;
    };
    const [lost, left] = [await error(before), await error(after)];
    const sum = (values: readonly number[]) => values.reduce((a, b) => a + b);
    expect(sum(left)).toBeLessThan(0.9 * sum(lost));
    // Not all positions are looked at.
    lost.forEach((each, c) => {
      expect(left[c]).toBeLessThan(1.1 * each + 1e-3);
    });
  });
});
