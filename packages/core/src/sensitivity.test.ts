import { createReferenceExecutor } from "@espalier/graph/testing";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { describe, expect, test } from "vitest";
import { componentGroups, readersOf } from "./components.ts";
import { estimate } from "./estimate.ts";
import type { Model, Parameter } from "./model.ts";
import { Random } from "./random.ts";
import { selectSamples } from "./samples.ts";
import {
  type Metric,
  measureSensitivity,
  metrics,
  type SensitivityOptions,
} from "./sensitivity.ts";
import { spearman } from "./spearman.ts";

const model = tinyResNet({ widths: [3, 4, 5] });
const executor = createOnnxExecutor({ threads: 1 });
const options = (
  metric: Metric,
  changes: Partial<SensitivityOptions> = {},
): SensitivityOptions => ({
  executor,
  samples: noiseSamples(model, 8),
  metric,
  estimator: "auto",
  temperature: 1,
  coupling: "apart",
  batchSize: 8,
  random: new Random(1),
  ...changes,
});
const scoresOf = async (metric: Metric, changes: Partial<SensitivityOptions> = {}) =>
  (await measureSensitivity(model, options(metric, changes))).groups.flatMap(({ scores }) => [
    ...scores,
  ]);

describe.each(metrics)("%s", (metric) => {
  test("scores every channel, reproducibly", async () => {
    const first = await measureSensitivity(model, options(metric));
    const second = await measureSensitivity(model, options(metric));
    expect(second).toEqual(first);
    const scores = first.groups.flatMap((group) => [...group.scores]);
    expect(scores).toHaveLength(3 + 2 * 3 + 3 * 4 + 3 * 5);
    expect(scores.every(Number.isFinite)).toBe(true);
    expect(first.negative).toBe(scores.filter((score) => score < 0).length);
    expect(first.rankStability).toBeGreaterThan(0);
  });

  test("does not depend on the executor or the batch size", async () => {
    const scores = await scoresOf(metric);
    const reference = await scoresOf(metric, { executor: createReferenceExecutor(), batchSize: 3 });
    const scale = Math.max(...reference.map(Math.abs));
    scores.forEach((score, i) => {
      expect(Math.abs(score - reference[i]) / scale).toBeLessThan(1e-4);
    });
  });
});

test("hessian-trace is Trace(H) / (2p) · ‖w‖² and magnitude is ‖w‖² / p", async () => {
  const traces = await scoresOf("hessian-trace");
  const magnitudes = await scoresOf("magnitude");
  const { shape, data } = model.parameters.get("conv1.weight")!;
  const length = data.length / shape[0];
  const norm = data.subarray(0, length).reduce((sum, w) => sum + w * w, 0);
  expect(magnitudes[0]).toBeCloseTo(norm / length, 6);
  const groups = componentGroups(model, "apart");
  const { mean } = await estimate(model, groups, {
    ...options("hessian-trace"),
    quantity: "trace",
    estimator: "exact",
    draws: 1,
  });
  expect(traces[0] / ((mean[0] / (2 * length)) * norm)).toBeCloseTo(1, 6);
});

test("three Hutchinson probes leave the ranking unstable, and the result says so", async () => {
  const few = await measureSensitivity(
    model,
    options("hessian-trace", { estimator: "hutchinson", draws: 3 }),
  );
  const exact = await measureSensitivity(model, options("hessian-trace"));
  expect(few.rankStability).toBeLessThan(exact.rankStability);
  expect(few.draws).toBe(3);
  const many = await measureSensitivity(
    model,
    options("hessian-trace", { estimator: "hutchinson", draws: 300 }),
  );
  expect(many.rankStability).toBeGreaterThan(few.rankStability);
});

test("rank stability is how well measurements on other samples agree", async () => {
  const [count, runs] = [4, 6];
  const all = noiseSamples(model, count * runs);
  const measured = await Promise.all(
    Array.from({ length: runs }, (_, run) => {
      const indices = Array.from({ length: count }, (_, i) => run * count + i);
      const samples = selectSamples(all, indices);
      return measureSensitivity(model, options("gradient", { samples, random: new Random(run) }));
    }),
  );
  const scores = measured.map(({ groups }) =>
    Float64Array.from(groups.flatMap((group) => [...group.scores])),
  );
  const agreements = scores.flatMap((one, i) =>
    scores.slice(i + 1).map((other) => spearman(one, other)),
  );
  const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length;
  const expected = mean(measured.map(({ rankStability }) => rankStability));
  expect(Math.abs(expected - mean(agreements))).toBeLessThan(0.1);
});

test("negative estimates are counted, not hidden", async () => {
  const found = await Promise.all(
    [1, 2, 3, 4].map((seed) =>
      measureSensitivity(
        model,
        options("hessian-trace", { estimator: "hutchinson", draws: 1, random: new Random(seed) }),
      ),
    ),
  );
  const negative = found.reduce((sum, sensitivity) => sum + sensitivity.negative, 0);
  const counted = found
    .flatMap(({ groups }) => groups.flatMap(({ scores }) => [...scores]))
    .filter((s) => s < 0);
  expect(negative).toBe(counted.length);
  expect(negative).toBeGreaterThan(0);
});

test("auto takes exact for few classes and probe for many", async () => {
  expect((await measureSensitivity(model, options("removal"))).estimator).toBe("exact");
  const many = tinyResNet({ widths: [2, 2, 2], classes: 30 });
  const result = await measureSensitivity(
    many,
    options("removal", { samples: noiseSamples(many, 4), batchSize: 4 }),
  );
  expect(result).toMatchObject({ estimator: "probe", draws: 3 });
});

test("scores that are no numbers are refused, and their component is named", async () => {
  const samples = noiseSamples(model, 4);
  const broken = {
    ...samples,
    batch: async (indices: Uint32Array | readonly number[]) => {
      const batch = await samples.batch(indices);
      const pixels = (batch.feeds.pixel_values as Float32Array).slice();
      pixels[0] = Number.NaN;
      return { ...batch, feeds: { pixel_values: pixels } };
    },
  };
  for (const metric of ["removal", "fitted-removal", "hessian-trace", "gradient"] as const) {
    await expect(measureSensitivity(model, options(metric, { samples: broken }))).rejects.toThrow(
      `${metric}: expected a finite score for component 0 of conv1, got NaN`,
    );
  }
});

describe("fitted-removal", () => {
  const byGroup = async (of: Model, metric: Metric) => {
    const changes = { samples: noiseSamples(of, 32), batchSize: 32, coupling: "together" } as const;
    const { groups } = await measureSensitivity(of, options(metric, changes));
    return new Map(groups.map(({ group, ...scored }) => [group.name, scored]));
  };

  test("is removal for channels that several weights read", async () => {
    const [plain, fitted] = [
      await byGroup(model, "removal"),
      await byGroup(model, "fitted-removal"),
    ];
    const readers = readersOf(model, componentGroups(model, "together"));
    const shared = [...readers].filter(([, own]) => own.length > 1);
    expect(shared.length).toBeGreaterThan(0);
    for (const [{ name }] of shared) expect(fitted.get(name)).toEqual(plain.get(name));
  });

  test("is next to nothing for a channel that another is a multiple of", async () => {
    const layer = "layer1.0.conv1";
    const copied = copyChannel(model, layer, 0, 1);
    const plain = (await byGroup(copied, "removal")).get(layer)!.scores;
    const { scores } = (await byGroup(copied, "fitted-removal")).get(layer)!;
    const [copy, original] = [Math.min(scores[0], scores[1]), Math.max(scores[0], scores[1])];
    expect(copy).toBeLessThan(0.01 * Math.min(plain[0], plain[1]));
    expect(original).toBeGreaterThan(10 * copy);
  });

  test("has errors that are as large a share as those of removal", async () => {
    const [plain, fitted] = [
      await byGroup(model, "removal"),
      await byGroup(model, "fitted-removal"),
    ];
    const [own, other] = [fitted.get("layer2.0.conv1")!, plain.get("layer2.0.conv1")!];
    own.scores.forEach((score, i) => {
      expect(own.standardErrors[i] / score).toBeCloseTo(
        other.standardErrors[i] / other.scores[i],
        9,
      );
    });
  });
});

/** `of` with one channel of a layer doing what another does. */
function copyChannel(of: Model, layer: string, from: number, to: number): Model {
  const batchNorm = layer.replace("conv", "bn");
  const parameters = [...of.parameters].map(([name, parameter]): [string, Parameter] => {
    const isOf = [layer, batchNorm].some((each) => name.startsWith(`${each}.`));
    if (!isOf) return [name, parameter];
    const data = parameter.data.slice();
    const length = data.length / parameter.shape[0];
    data.copyWithin(to * length, from * length, (from + 1) * length);
    return [name, { ...parameter, data }];
  });
  return of.withParameters(new Map(parameters));
}

test("a temperature that is not above zero is refused", async () => {
  await expect(measureSensitivity(model, options("removal", { temperature: 0 }))).rejects.toThrow(
    /temperature: expected a number above 0, got 0/,
  );
});

test.each([
  [[1, 2, 3, 4], [10, 20, 30, 40], 1],
  [[1, 2, 3, 4], [4, 3, 2, 1], -1],
  [[1, 2, 2, 4], [1, 3, 3, 9], 1],
  [[1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8],
])("spearman of %j and %j is %d", (a, b, expected) => {
  expect(spearman(a, b)).toBeCloseTo(expected, 12);
});
