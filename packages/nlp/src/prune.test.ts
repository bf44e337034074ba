import {
  applyDecisions,
  bindParameters,
  type ComponentGroup,
  componentGroups,
  type Decision,
  estimate,
  type Metric,
  type Model,
  type ModelConfig,
  makePlan,
  measureSensitivity,
  objectiveOf,
  type PlanOptions,
  Random,
  type Samples,
  sizeOfModel,
} from "@espalier/core";
import { float32Data, gradient, input, jvp, mean, sizeOf } from "@espalier/graph";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { describe, expect, test } from "vitest";
import { bert, distilbert, electra } from "./index.ts";
import { randomSamples, tinyLogits, tinyModel } from "./testing/index.ts";

const executor = createOnnxExecutor({ threads: 1 });
const SPAN = 2;

const logitsOf = (model: Model, samples?: Samples) => tinyLogits(executor, model, samples);

/** `model` with the outputs of one component of a group scaled. */
function scaled(model: Model, group: ComponentGroup, component: number, factor: number): Model {
  const parameters = new Map(model.parameters);
  const span = group.kind === "head" ? SPAN : 1;
  // Of heads the values, of neurons what is made of them.
  const value = group.rows.find(({ parameter }) => /value\.weight$/.test(parameter));
  const names =
    value === undefined
      ? [group.name.replace("intermediate.dense", "output.dense.weight")]
      : [value.parameter, value.parameter.replace("weight", "bias")];
  for (const name of names) {
    const parameter = parameters.get(name)!;
    const columns = parameter.shape[1] ?? 1;
    const data = parameter.data.map((w, i) => {
      const unit = value === undefined ? i % columns : Math.floor(i / columns);
      return Math.floor(unit / span) === component ? w * factor : w;
    });
    parameters.set(name, { ...parameter, data });
  }
  return model.withParameters(parameters);
}

const close = (actual: ArrayLike<number>, expected: ArrayLike<number>) => {
  expect(actual).toHaveLength(expected.length);
  for (let i = 0; i < expected.length; i++) expect(actual[i]).toBeCloseTo(expected[i], 4);
};

const keepAll = (groups: readonly ComponentGroup[]) =>
  new Map(groups.map(({ name, count }) => [name, new Array<Decision>(count).fill("keep")]));

describe("heads and neurons", () => {
  const model = tinyModel();
  const groups = componentGroups(model, "apart");

  test("are the components of every layer, and nothing else is", () => {
    expect(groups.map(({ kind, count, emptiable }) => [kind, count, emptiable])).toEqual([
      ["head", 3, true],
      ["neuron", 5, true],
      ["head", 3, true],
      ["neuron", 5, true],
    ]);
    const [heads] = groups;
    expect(heads.span).toBe(SPAN);
    expect(heads.rows.map(({ parameter }) => parameter.replace(/.*self\./, ""))).toEqual(
      ["query", "key", "value"].flatMap((name) => [`${name}.weight`, `${name}.bias`]),
    );
    expect(componentGroups(model, "together")).toEqual(groups);
    for (const family of [electra, distilbert]) {
      const other = tinyModel(family === electra ? { embedding_size: 4 } : {}, family);
      expect(componentGroups(other, "apart").map(({ kind }) => kind)).toEqual(
        groups.map(({ kind }) => kind),
      );
    }
  });

  test("keeping everything changes nothing", async () => {
    const same = applyDecisions(model, groups, keepAll(groups));
    expect([...(await logitsOf(same))]).toEqual([...(await logitsOf(model))]);
    expect(same.config).toEqual({
      ...model.config,
      pruning: { heads: {}, implants: {}, neurons: {} },
    });
  });

  test("a pruned model computes what the masked one does, pruned again too", async () => {
    const random = new Random(1);
    let masked = model;
    const decisions = keepAll(groups);
    for (const group of groups) {
      for (let i = 0; i < group.count; i++) {
        if (random.uniform() < 0.5) continue;
        decisions.get(group.name)![i] = "prune";
        masked = scaled(masked, group, i, 0);
      }
    }
    const pruned = applyDecisions(model, groups, decisions);
    expect(sizeOfModel(pruned).macs).toBeLessThan(sizeOfModel(model).macs);
    close(await logitsOf(pruned), await logitsOf(masked));

    const left = componentGroups(pruned, "apart");
    const group = left.find(({ count }) => count > 1)!;
    const again = keepAll(left);
    again.get(group.name)![0] = "prune";
    const original = groups.find(({ name }) => name === group.name)!;
    const first = decisions.get(group.name)!.indexOf("keep");
    close(
      await logitsOf(applyDecisions(pruned, left, again)),
      await logitsOf(scaled(masked, original, first, 0)),
    );
  });

  test("a layer may lose all of them, and a model all of its layers' parts", async () => {
    const all = new Map(
      groups.map(({ name, count }) => [name, new Array<Decision>(count).fill("prune")]),
    );
    let masked = model;
    for (const group of groups) {
      for (let i = 0; i < group.count; i++) masked = scaled(masked, group, i, 0);
    }
    const pruned = applyDecisions(model, groups, all);
    close(await logitsOf(pruned), await logitsOf(masked));
    expect([...pruned.parameters.keys()].some((name) => name.includes("query"))).toBe(false);
    expect(componentGroups(pruned, "apart")).toEqual([]);
  });

  test("what is saved is the whole of a pruned model", async () => {
    const decisions = keepAll(groups);
    decisions.set(groups[0].name, ["prune", "keep", "prune"]);
    decisions.set(groups[3].name, ["keep", "prune", "keep", "keep", "prune"]);
    const pruned = applyDecisions(model, groups, decisions);
    const config = JSON.parse(JSON.stringify(pruned.config)) as ModelConfig;
    expect(config.pruning).toEqual({
      heads: { 0: [1] },
      implants: {},
      neurons: { 1: [0, 2, 3] },
    });
    const source = { config, path: "file", tensors: pruned.parameters };
    close(await logitsOf(bert.load(source, config)), await logitsOf(pruned));
  });
});

describe("scores", () => {
  const model = tinyModel();
  const groups = componentGroups(model, "apart");
  const samples = randomSamples(5);
  const options = { executor, samples, batchSize: 2, random: new Random(0), temperature: 1 };

  const half: PlanOptions = {
    budget: { of: "components", keep: 0.5 },
    implant: 0,
    scope: "kind",
    rankBy: "score",
    floor: 0,
    wholeBranches: true,
    roundTo: 1,
  };

  /** d logits / d factor of a component, by central differences. */
  async function slopes(group: ComponentGroup, component: number): Promise<Float64Array> {
    const step = 1e-2;
    const [up, down] = await Promise.all(
      [1 + step, 1 - step].map((factor) =>
        logitsOf(scaled(model, group, component, factor), samples),
      ),
    );
    return Float64Array.from(up, (value, i) => (value - down[i]) / (2 * step));
  }

  test("of removal and by the gradient are those of a factor on the component", async () => {
    const common = { ...options, estimator: "exact", coupling: "apart" } as const;
    const removal = await measureSensitivity(model, { ...common, metric: "removal" });
    const slope = await measureSensitivity(model, { ...common, metric: "gradient" });
    const logits = await logitsOf(model, samples);
    for (const [g, group] of groups.entries()) {
      for (let component = 0; component < group.count; component++) {
        const j = await slopes(group, component);
        let [curvature, importance] = [0, 0];
        for (let n = 0; n < samples.count; n++) {
          const row = logits.subarray(3 * n, 3 * n + 3);
          const total = row.reduce((sum, x) => sum + Math.exp(x), 0);
          const p = Array.from(row, (x) => Math.exp(x) / total);
          const along = p.reduce((sum, each, c) => sum + each * j[3 * n + c], 0);
          curvature += p.reduce((sum, each, c) => sum + each * (j[3 * n + c] - along) ** 2, 0);
          importance += Math.abs(along - j[3 * n + (n % 3)]);
        }
        const near = (actual: number, expected: number) =>
          expect(Math.abs(actual - expected)).toBeLessThan(0.02 * Math.abs(expected) + 1e-4);
        near(removal.groups[g].scores[component], curvature / samples.count / 2);
        near(slope.groups[g].scores[component], importance / samples.count);
      }
    }
  });

  test("of heads alone are those that heads have among neurons, and plans keep the neurons", async () => {
    const common = {
      ...options,
      estimator: "exact",
      coupling: "apart",
      metric: "removal",
    } as const;
    const all = await measureSensitivity(model, common);
    const heads = await measureSensitivity(model, { ...common, kinds: ["head"] });
    const expected = all.groups.filter(({ group }) => group.kind === "head");
    expect(heads.groups.map(({ group }) => group)).toEqual(expected.map(({ group }) => group));
    for (const [g, { scores }] of heads.groups.entries()) close(scores, expected[g].scores);
    const plan = makePlan(model, heads, half);
    // Half of the heads, not half of heads and neurons.
    expect([plan.before.components, plan.after.components]).toEqual([6, 3]);
    const pruned = applyDecisions(model, componentGroups(model, "apart"), plan.decisions);
    const count = (of: Model, kind: string) =>
      componentGroups(of, "apart", { kinds: [kind as "head"] }).reduce(
        (sum, group) => sum + group.count,
        0,
      );
    expect([count(pruned, "head"), count(pruned, "neuron")]).toEqual([3, 10]);
    await expect(measureSensitivity(model, { ...common, kinds: ["channel"] })).rejects.toThrow(
      "expected a model with removable channels, found none",
    );
  });

  test("by auto are those of control-variate for traces, since networks are not piecewise linear", async () => {
    const estimatorOf = async (metric: Metric) => {
      const { estimator } = await measureSensitivity(model, {
        ...options,
        ...{ metric, estimator: "auto", draws: 2, coupling: "apart" },
      });
      return estimator;
    };
    expect(await estimatorOf("hessian-trace")).toBe("control-variate");
    expect(await estimatorOf("removal")).toBe("exact");
  });

  test("do not depend on how samples are split into batches", async () => {
    const common = { ...options, quantity: "trace", estimator: "probe", draws: 2 } as const;
    const [small, large] = await Promise.all(
      [1, 5].map((batchSize) => estimate(model, groups, { ...common, batchSize })),
    );
    small.mean.forEach((value, i) => {
      expect(Math.abs(value - large.mean[i])).toBeLessThan(1e-3 * Math.abs(value) + 1e-6);
    });
  });

  test.each(["hutchinson", "control-variate"] as const)(
    "by %s are the Hessian's own traces, within their errors",
    async (estimator) => {
      const few = randomSamples(2);
      const batch = await few.batch([0, 1]);
      const { graph, constants } = bindParameters(model, 2, "evaluation", batch.length);
      const targets = input("targets", graph.logits.shape);
      const loss = mean(objectiveOf(model).loss(graph.logits, targets));
      const [group] = groups;
      const head = 1;
      let trace = 0;
      for (const { parameter } of group.rows) {
        const value = graph.parameters.get(parameter)!;
        const direction = input("direction", value.shape);
        const [product] = jvp(gradient(loss, [value]), new Map([[value, direction]]));
        const program = await executor.compile({ outputs: { product }, constants });
        const rowLength = sizeOf(value.shape) / value.shape[0];
        for (let i = head * SPAN * rowLength; i < (head + 1) * SPAN * rowLength; i++) {
          const unit = new Float32Array(sizeOf(value.shape));
          unit[i] = 1;
          const feeds = {
            ...batch.feeds,
            direction: unit,
            targets: objectiveOf(model).targets(batch.labels, 3),
          };
          trace += float32Data((await program.run(feeds)).product)[i];
        }
        await program.dispose();
      }
      const { mean: means, standardError } = await estimate(model, groups, {
        ...options,
        samples: few,
        quantity: "trace",
        estimator,
        draws: 400,
      });
      expect(Math.abs(means[head] - trace)).toBeLessThan(4 * standardError[head]);
      expect(standardError[head]).toBeGreaterThan(0);
    },
  );

  test("plans rank kinds in scopes of their own, and may take single heads", async () => {
    const sensitivity = await measureSensitivity(model, {
      ...options,
      metric: "magnitude",
      estimator: "auto",
      coupling: "apart",
    });
    const plan = makePlan(model, sensitivity, half);
    const gone = (kind: string) =>
      groups
        .filter((group) => group.kind === kind)
        .flatMap(({ name }) => plan.decisions.get(name)!)
        .filter((decision) => decision === "prune").length;
    expect(gone("head")).toBe(3);
    expect(gone("neuron")).toBe(5);
  });
});
