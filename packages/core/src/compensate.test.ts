import { float32Data, topologicalOrder, type Value } from "@espalier/graph";
import { randomSamples, tinyModel } from "@espalier/nlp/testing";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { describe, expect, test } from "vitest";
import { bindParameters } from "./bind.ts";
import { type CompensateOptions, compensate } from "./compensate.ts";
import { componentGroups, type Decision } from "./components.ts";
import type { Model, ModelGraph, Parameter } from "./model.ts";
import { applyDecisions } from "./plan.ts";
import { Random } from "./random.ts";
import { selectSamples } from "./samples.ts";

const executor = createOnnxExecutor({ threads: 1 });
const count = 8;

const compensated = (dense: Model, pruned: Model, options: Partial<CompensateOptions> = {}) =>
  compensate(dense, pruned, noiseSamples(dense, count), {
    executor,
    batchSize: count,
    random: new Random(0),
    ...options,
  });

/** Every second component removed, every fourth an implant where that is possible. */
function prunedOf(model: Model, coupling: "together" | "apart", implants: boolean): Model {
  const groups = componentGroups(model, coupling);
  const decisions = new Map(
    groups.map(({ name, count: n, implantable }) => [
      name,
      Array.from({ length: n }, (_, i): Decision => {
        if (i % 2 === 0) return "keep";
        return implants && implantable && i % 4 === 1 ? "implant" : "prune";
      }),
    ]),
  );
  return applyDecisions(model, groups, decisions);
}

/** What `pick` names of `model` on the samples, together. */
async function valuesOf<K extends string>(
  model: Model,
  pick: (graph: ModelGraph) => Record<K, Value>,
): Promise<Record<K, Float32Array>> {
  const { graph, constants } = bindParameters(model, count, "evaluation");
  const program = await executor.compile({ outputs: pick(graph), constants });
  const { feeds } = await noiseSamples(model, count).batch([...Array(count).keys()]);
  const results = await program.run(feeds);
  await program.dispose();
  const entries = Object.entries(results) as [K, (typeof results)[K]][];
  return Object.fromEntries(entries.map(([k, v]) => [k, float32Data(v)])) as Record<
    K,
    Float32Array
  >;
}

const logitsOf = async (model: Model) =>
  (await valuesOf(model, ({ logits }) => ({ logits }))).logits;

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a).reduce((total, x, i) => total + (x - b[i]) ** 2, 0);
}

/** The sum of products of deviations from the means. */
function covariance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const mean = (of: ArrayLike<number>) => Array.from(of).reduce((x, y) => x + y, 0) / of.length;
  const [first, second] = [mean(a), mean(b)];
  return Array.from(a).reduce((total, x, i) => total + (x - first) * (b[i] - second), 0);
}

const varianceOf = (a: ArrayLike<number>) => covariance(a, a);

const correlation = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  covariance(a, b) / Math.sqrt(varianceOf(a) * varianceOf(b) + 1e-12);

const norm = (a: ArrayLike<number>) => distance(a, new Float32Array(a.length));

test("where nothing was pruned, nothing changes", async () => {
  const model = tinyResNet();
  const whole = applyDecisions(model, componentGroups(model, "together"), new Map());
  expect(await compensated(model, whole)).toBe(whole);
});

test("where no weight may be fitted, nothing changes", async () => {
  const model = tinyResNet();
  const pruned = prunedOf(model, "together", false);
  expect(await compensated(model, pruned, { fits: () => false })).toBe(pruned);
});

test("a channel that another one repeats is made up for", async () => {
  const plain = tinyResNet();
  const repeated = ["layer2.0.conv1.weight", "layer2.0.bn1.weight", "layer2.0.bn1.bias"];
  repeated.push("layer2.0.bn1.running_mean", "layer2.0.bn1.running_var");
  const parameters = new Map<string, Parameter>(plain.parameters);
  for (const name of repeated) {
    const parameter = plain.parameters.get(name)!;
    const data = parameter.data.slice();
    const row = data.length / parameter.shape[0];
    data.copyWithin(row, 0, row);
    parameters.set(name, { ...parameter, data });
  }
  const model = plain.withParameters(parameters);
  const decisions = new Map([
    ["layer2.0.conv1", Array.from({ length: 6 }, (_, i): Decision => (i === 1 ? "prune" : "keep"))],
  ]);
  const pruned = applyDecisions(model, componentGroups(model, "together"), decisions);
  const dense = await logitsOf(model);
  const lost = distance(await logitsOf(pruned), dense);
  const left = distance(await logitsOf(await compensated(model, pruned)), dense);
  expect(lost).toBeGreaterThan(1e-3 * norm(dense));
  // The ridge keeps it from being exact.
  expect(left).toBeLessThan(1e-4 * lost);
});

test("weights become at most ten times as large", async () => {
  const plain = tinyModel();
  const layer = "bert.encoder.layer.0";
  const up = plain.parameters.get(`${layer}.intermediate.dense.weight`)!;
  // Neurons that hardly vary, but for the last, which is removed.
  const [neurons, width] = up.shape;
  const data = up.data.map((value, i) => (i < (neurons - 1) * width ? 1e-3 * value : value));
  const model = plain.withParameters(
    new Map(plain.parameters).set(`${layer}.intermediate.dense.weight`, { ...up, data }),
  );
  const groups = componentGroups(model, "together", { kinds: ["neuron"] });
  const decisions = new Map([
    [
      `${layer}.intermediate.dense`,
      Array.from({ length: neurons }, (_, i): Decision => (i < neurons - 1 ? "keep" : "prune")),
    ],
  ]);
  const pruned = applyDecisions(model, groups, decisions);
  const fitted = await compensate(model, pruned, randomSamples(count), {
    executor,
    batchSize: count,
    random: new Random(0),
  });
  const sizeIn = (of: Model) => norm(of.parameters.get(`${layer}.output.dense.weight`)!.data);
  const growth = Math.sqrt(sizeIn(fitted) / sizeIn(pruned));
  expect(growth).toBeGreaterThan(1.2);
  expect(growth).toBeLessThanOrEqual(10 + 1e-6);
});

test("a fit to one sample holds for others", async () => {
  const model = tinyResNet();
  const pruned = prunedOf(model, "together", false);
  const all = noiseSamples(model, count);
  const fitted = await compensate(model, pruned, selectSamples(all, [0]), {
    executor,
    batchSize: 1,
    random: new Random(0),
  });
  const [dense, lost, left] = await Promise.all([model, pruned, fitted].map(logitsOf));
  // With a ridge that does not depend on how many observations there are, others are further off.
  expect(distance(left, dense)).toBeLessThan(0.8 * distance(lost, dense));
});

describe.each([
  ["projected shortcuts, together", "projection", "together"],
  ["projected shortcuts, apart", "projection", "apart"],
  ["padded shortcuts, together", "padding", "together"],
  ["padded shortcuts, apart", "padding", "apart"],
] as const)("%s", (_name, shortcut, coupling) => {
  const model = tinyResNet({ shortcut });
  const pruned = prunedOf(model, coupling, true);
  // So small that all positions are looked at.
  const small = tinyResNet({ shortcut, size: 4 });
  const smallPruned = prunedOf(small, coupling, true);

  /** The outputs of `weight`'s layer in `of`: channel by channel. */
  async function outputsOf(of: Model, weight: string, channels: readonly number[]) {
    const place = (graph: ModelGraph) => {
      const { layer } = smallPruned.build(1, "evaluation").sites.get(weight)!;
      const sites = [...graph.sites.values()].filter((site) => site.layer === layer);
      return { value: sites[0].value, channels: sites.flatMap((site) => site.channels) };
    };
    const { value } = await valuesOf(of, (graph) => ({ value: place(graph).value }));
    const { channels: all } = place(of.build(1, "evaluation"));
    const area = value.length / count / all.length;
    return channels.map((channel) =>
      Array.from({ length: count }, (_, n) => {
        const start = (n * all.length + all.indexOf(channel)) * area;
        return [...value.subarray(start, start + area)];
      }).flat(),
    );
  }

  test("a fitted layer tells no less of what its channels were, and varies as much", async () => {
    const order: string[] = [];
    await compensated(small, smallPruned, {
      fits: (weight) => {
        order.push(weight);
        return true;
      },
    });
    expect(order.length).toBeGreaterThan(6);
    // Those that end a branch are fitted to the sum: see below.
    const endsBranch = (weight: string) => {
      const [, block, layer] = /^(layer\d\.\d)\.(conv2|downsample)/.exec(weight) ?? [];
      const projected = order.some((each) => each.startsWith(`${block}.downsample`));
      return layer === (projected ? "downsample" : "conv2");
    };
    let improved = 0;
    for (const [i, weight] of order.entries()) {
      // Half of them, since each takes two compensations.
      if (i % 2 > 0 || endsBranch(weight)) continue;
      const upTo = (n: number) =>
        compensated(small, smallPruned, { fits: (each) => order.indexOf(each) < n });
      const { channels } = smallPruned.build(1, "evaluation").sites.get(weight)!;
      const wanted = await outputsOf(small, weight, channels);
      const before = await outputsOf(await upTo(i), weight, channels);
      const after = await outputsOf(await upTo(i + 1), weight, channels);
      const isNormalized = weight !== "fc.weight";
      wanted.forEach((dense, c) => {
        // What a channel does not tell of what it was, whatever its mean and scale.
        const [lost, left] = [before[c], after[c]].map((made) => 1 - correlation(made, dense) ** 2);
        expect(left).toBeLessThanOrEqual(lost + 1e-3);
        if (left < 0.9 * lost) improved++;
        if (norm(dense) < 1e-6) return;
        // Least squares alone leave the share of the deviation that is explained.
        const explained = Math.sqrt(1 - left);
        const deviation = Math.sqrt(varianceOf(after[c]) / varianceOf(dense));
        if (isNormalized) expect(deviation).toBeCloseTo(Math.min(1, 2 * explained), 1);
        else expect(deviation).toBeLessThan(explained + 0.05);
      });
    }
    expect(improved).toBeGreaterThan(3);
  });

  test("logits come closer to those of the dense model", async () => {
    const dense = await logitsOf(model);
    const lost = distance(await logitsOf(pruned), dense);
    const left = distance(await logitsOf(await compensated(model, pruned)), dense);
    expect(left).toBeLessThan(0.5 * lost);
  });

  test("batches and a memory limit change nothing but rounding", async () => {
    const { parameters } = await compensated(model, pruned);
    const refused = await compensated(model, pruned, {
      executor: createOnnxExecutor({ threads: 1, memoryLimit: 1 }),
    }).catch((error: { data: { peakBytes: number } }) => error);
    const least = (refused as { data: { peakBytes: number } }).data.peakBytes;
    const limited = createOnnxExecutor({ threads: 1, memoryLimit: 3 * least });
    for (const options of [{ batchSize: 3 }, { executor: limited }]) {
      const { parameters: others } = await compensated(model, pruned, options);
      for (const [name, { data }] of parameters) {
        const scale = Math.max(...data.map(Math.abs));
        const other = others.get(name)!.data;
        data.forEach((x, i) => {
          expect(Math.abs(other[i] - x) / scale).toBeLessThan(2e-3);
        });
      }
    }
  });
});

test("where a whole branch is gone, what reads its sum is fitted", async () => {
  const model = tinyResNet();
  const groups = componentGroups(model, "together");
  const branch = groups.find(({ emptiable }) => emptiable)!;
  const gone = new Map([
    [branch.name, Array.from({ length: branch.count }, () => "prune" as const)],
  ]);
  const pruned = applyDecisions(model, groups, gone);
  // Nothing is left that differs.
  for (const [name, { data }] of pruned.parameters) {
    expect(data).toEqual(model.parameters.get(name)!.data);
  }
  const fitted = await compensated(model, pruned);
  const dense = await logitsOf(model);
  const lost = distance(await logitsOf(pruned), dense);
  expect(distance(await logitsOf(fitted), dense)).toBeLessThan(0.7 * lost);
});

test("a layer that ends a branch makes up for what the shortcut has lost", async () => {
  const model = tinyResNet({ depth: 14, size: 16 });
  const groups = componentGroups(model, "together");
  const gone = groups.find(({ name }) => name === "layer3.0.conv1")!;
  expect(gone.emptiable).toBe(true);
  const decisions = new Map([[gone.name, new Array<Decision>(gone.count).fill("prune")]]);
  const pruned = applyDecisions(model, groups, decisions);
  // Of the last block.
  const pick = ({ logits }: ModelGraph) => {
    const sum = topologicalOrder([logits]).findLast(
      ({ operation, shape }) => operation.name === "add" && shape.length === 4,
    )!;
    const shortcut = sum.inputs.find(({ operation }) => operation.name === "relu")!;
    // The last convolution of the branch, before it is normalised.
    const [made] = sum.inputs.find((value) => value !== shortcut)!.inputs;
    return { sum, shortcut, made };
  };
  const dense = await valuesOf(model, pick);
  const before = await valuesOf(pruned, pick);
  const fitted = await compensated(model, pruned);
  const after = await valuesOf(fitted, pick);
  const off = (values: typeof dense, of: "sum" | "shortcut") => distance(values[of], dense[of]);
  expect(off(before, "sum")).toBeGreaterThan(off(before, "shortcut"));
  expect(off(after, "shortcut")).toBeGreaterThan(0.05 * norm(dense.shortcut));
  // Fitted to its own outputs, the branch would leave the sum at least as far off as the shortcut.
  expect(off(after, "sum")).toBeLessThan(0.5 * off(after, "shortcut"));
  // Stored statistics are those of what it makes now, as tuning will have them (decision 032).
  const [means, variances] = ["mean", "var"].map(
    (name) => fitted.parameters.get(`layer3.1.bn2.running_${name}`)!.data,
  );
  const positions = after.made.length / count / means.length;
  means.forEach((mean, channel) => {
    const made = Array.from({ length: count * positions }, (_, i) => {
      const sample = Math.floor(i / positions);
      return after.made[(sample * means.length + channel) * positions + (i % positions)];
    });
    const average = made.reduce((a, b) => a + b) / made.length;
    expect(average).toBeCloseTo(mean, 4);
    expect(varianceOf(made) / made.length / variances[channel]).toBeCloseTo(1, 3);
  });
});

test("it can be stopped", async () => {
  const model = tinyResNet();
  const signal = AbortSignal.abort(new Error("enough"));
  const pruned = prunedOf(model, "together", false);
  await expect(compensated(model, pruned, { signal })).rejects.toThrow();
});
