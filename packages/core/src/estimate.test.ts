import {
  crossEntropy,
  type Executor,
  float32Data,
  gradient,
  input,
  jvp,
  mean,
  sizeOf,
} from "@espalier/graph";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { beforeAll, describe, expect, test } from "vitest";
import { bindParameters } from "./bind.ts";
import { type ComponentGroup, componentGroups } from "./components.ts";
import { type EstimateOptions, estimate } from "./estimate.ts";
import type { Model } from "./model.ts";
import { Random } from "./random.ts";
import type { Samples } from "./samples.ts";
import { selectSamples } from "./samples.ts";

const executor: Executor = createOnnxExecutor({ threads: 1 });
const model = tinyResNet({ widths: [2, 3, 4] });
const samples = noiseSamples(model, 6);
const groups = componentGroups(model, "apart");
const total = groups.reduce((sum, { count }) => sum + count, 0);

const options = (changes: Partial<EstimateOptions> = {}): EstimateOptions => ({
  executor,
  samples,
  quantity: "trace",
  estimator: "exact",
  draws: 1,
  temperature: 1,
  batchSize: 6,
  random: new Random(3),
  ...changes,
});

/** The full Hessian of the mean cross-entropy over all rows of all groups, by brute force. */
async function fullHessian(
  of: Model,
  components: readonly ComponentGroup[],
  data: Samples,
): Promise<{ matrix: Float64Array[]; blocks: { start: number; end: number }[] }> {
  const { graph, constants } = bindParameters(of, data.count, "evaluation");
  const names = [...new Set(components.flatMap(({ rows }) => rows.map((r) => r.parameter)))];
  const parameters = names.map((name) => graph.parameters.get(name)!);
  const directions = parameters.map((value, i) => input(`direction.${i}`, value.shape));
  const targets = input("targets", graph.logits.shape);
  const loss = mean(crossEntropy(graph.logits, targets));
  const products = jvp(
    gradient(loss, parameters),
    new Map(parameters.map((value, i) => [value, directions[i]])),
  );
  const program = await executor.compile({
    outputs: Object.fromEntries(products.map((value, i) => [`product.${i}`, value])),
    constants,
  });
  const batch = await data.batch([...Array(data.count).keys()]);
  const classes = of.classes.length;
  const wanted = new Float32Array(data.count * classes);
  Array.from(batch.labels).forEach((label, n) => {
    wanted[n * classes + label] = 1;
  });
  const sizes = parameters.map(({ shape }) => sizeOf(shape));
  const matrix: Float64Array[] = [];
  for (let p = 0; p < sizes.length; p++) {
    for (let k = 0; k < sizes[p]; k++) {
      const feeds = Object.fromEntries(
        sizes.map((size, i) => {
          const direction = new Float32Array(size);
          if (i === p) direction[k] = 1;
          return [`direction.${i}`, direction];
        }),
      );
      const results = await program.run({ ...batch.feeds, ...feeds, targets: wanted });
      matrix.push(
        Float64Array.from(parameters.flatMap((_, i) => [...float32Data(results[`product.${i}`])])),
      );
    }
  }
  const starts = new Map<string, number>();
  let position = 0;
  names.forEach((name, i) => {
    starts.set(name, position);
    position += sizes[i];
  });
  const blocks = components.flatMap(({ count, rows }) =>
    Array.from({ length: count }, (_, c) => {
      const [{ parameter, indices }] = rows;
      const { shape, data: weights } = of.parameters.get(parameter)!;
      const length = weights.length / shape[0];
      const start = starts.get(parameter)! + indices[c] * length;
      return { start, end: start + length };
    }),
  );
  return { matrix, blocks };
}

let hessian: Awaited<ReturnType<typeof fullHessian>>;
beforeAll(async () => {
  hessian = await fullHessian(model, groups, samples);
});

const traceOf = (block: { start: number; end: number }) => {
  let trace = 0;
  for (let i = block.start; i < block.end; i++) trace += hessian.matrix[i][i];
  return trace;
};

describe("exact", () => {
  test("is the trace of every channel's block of the Hessian", async () => {
    const { mean: traces } = await estimate(model, groups, options());
    expect(traces).toHaveLength(total);
    hessian.blocks.forEach((block, c) => {
      expect(traces[c] / traceOf(block)).toBeCloseTo(1, 3);
    });
  });

  test("does not depend on how samples are split into batches", async () => {
    const whole = await estimate(model, groups, options());
    const parts = await estimate(model, groups, options({ batchSize: 4 }));
    whole.mean.forEach((trace, c) => {
      expect(parts.mean[c] / trace).toBeCloseTo(1, 5);
    });
    expect(parts.samples).toBe(6);
  });

  test("is the mean over the samples asked for, each counted once", async () => {
    const single = await Promise.all(
      [0, 1, 2].map((i) =>
        estimate(model, groups, options({ samples: selectSamples(samples, [i]) })),
      ),
    );
    const together = await estimate(
      model,
      groups,
      options({ samples: selectSamples(samples, [0, 1, 2]), batchSize: 2 }),
    );
    together.mean.forEach((trace, c) => {
      const expected = single.reduce((sum, { mean: means }) => sum + means[c], 0) / 3;
      expect(trace / expected).toBeCloseTo(1, 4);
    });
    const spread = single.map(({ mean: means }) => means[0]);
    const average = spread.reduce((a, b) => a + b) / 3;
    const variance = spread.reduce((a, b) => a + (b - average) ** 2, 0) / 2;
    expect(together.standardError[0] / Math.sqrt(variance / 3)).toBeCloseTo(1, 3);
  });

  test("adds up over the layers of a coupled group", async () => {
    const coupled = componentGroups(model, "together");
    const { mean: traces } = await estimate(model, coupled, options());
    const rowTraces = new Map<string, number>();
    groups.forEach(({ rows: [{ parameter, indices }] }, g) => {
      const offset = groups.slice(0, g).reduce((sum, { count }) => sum + count, 0);
      indices.forEach((row, c) => {
        rowTraces.set(`${parameter} ${row}`, traceOf(hessian.blocks[offset + c]));
      });
    });
    let c = 0;
    for (const { count, rows } of coupled) {
      for (let i = 0; i < count; i++, c++) {
        const expected = rows.reduce(
          (sum, { parameter, indices }) => sum + rowTraces.get(`${parameter} ${indices[i]}`)!,
          0,
        );
        expect(traces[c] / expected).toBeCloseTo(1, 3);
      }
    }
  });
});

describe("probe", () => {
  test("agrees with exact within its standard errors", async () => {
    const draws = 400;
    const { mean: exact } = await estimate(model, groups, options());
    // Standard errors are over samples; the error of the draws alone is that of repeated estimates.
    const single = await Promise.all(
      [0, 1, 2, 3].map((seed) =>
        estimate(
          model,
          groups,
          options({ estimator: "probe", draws: draws / 4, random: new Random(seed) }),
        ),
      ),
    );
    exact.forEach((trace, c) => {
      const means = single.map(({ mean: values }) => values[c]);
      const average = means.reduce((a, b) => a + b) / 4;
      const error = Math.sqrt(means.reduce((a, b) => a + (b - average) ** 2, 0) / 12);
      // Student's t with 3 degrees of freedom: 1 in 10,000 lies beyond 22.
      expect(Math.abs(average - trace)).toBeLessThan(22 * error + 1e-4 * trace);
    });
  });

  test("signs belong to samples, not to batches", async () => {
    const probe = options({ estimator: "probe", draws: 2 });
    const whole = await estimate(model, groups, probe);
    const parts = await estimate(model, groups, { ...probe, batchSize: 4 });
    whole.mean.forEach((trace, c) => {
      expect(parts.mean[c] / trace).toBeCloseTo(1, 4);
    });
  });
});

describe("hutchinson", () => {
  const draws = 400;

  test("is within its own standard errors of the trace, and their size is as derived", async () => {
    const result = await estimate(model, groups, options({ estimator: "hutchinson", draws }));
    let [squares, ratios] = [0, 0];
    hessian.blocks.forEach((block, c) => {
      const z = (result.mean[c] - traceOf(block)) / result.standardError[c];
      expect(Math.abs(z)).toBeLessThan(5);
      squares += z * z;
      // Var = 2 ‖offdiag(H_cc)‖² + Σ_{d ≠ c} ‖H_cd‖², Frobenius norms, for signs over all components.
      let variance = 0;
      for (const other of hessian.blocks) {
        for (let i = block.start; i < block.end; i++) {
          for (let j = other.start; j < other.end; j++) {
            if (i === j) continue;
            variance += (other === block ? 2 : 1) * hessian.matrix[i][j] ** 2;
          }
        }
      }
      ratios += result.standardError[c] / Math.sqrt(variance / draws);
    });
    expect(squares / total).toBeGreaterThan(0.5);
    expect(squares / total).toBeLessThan(1.7);
    expect(ratios / total).toBeCloseTo(1, 1);
  });

  test("does not depend on how samples are split into batches", async () => {
    const few = options({ estimator: "hutchinson", draws: 2 });
    const whole = await estimate(model, groups, few);
    const parts = await estimate(model, groups, { ...few, batchSize: 4 });
    const scale = Math.max(...whole.mean.map(Math.abs));
    whole.mean.forEach((trace, c) => {
      expect(Math.abs(parts.mean[c] - trace)).toBeLessThan(1e-4 * scale);
    });
  });

  test("refuses what it cannot estimate", async () => {
    const wrong = options({ estimator: "hutchinson", quantity: "removal" });
    await expect(estimate(model, groups, wrong)).rejects.toThrow(/hessian-trace, got removal/);
  });
});

describe("control-variate", () => {
  const estimator = "control-variate";
  // Errors are those of other samples, too; here the samples are the same.
  test("is the trace, within its standard errors", async () => {
    const result = await estimate(model, groups, options({ estimator, draws: 200 }));
    hessian.blocks.forEach((block, c) => {
      const z = (result.mean[c] - traceOf(block)) / result.standardError[c];
      expect(Math.abs(z)).toBeLessThan(3);
    });
  });

  test("is closer to the trace than hutchinson for the same draws", async () => {
    const errorOf = async (by: EstimateOptions["estimator"]) => {
      const { mean } = await estimate(model, groups, options({ estimator: by, draws: 50 }));
      const errors = hessian.blocks.map((block, c) => (mean[c] - traceOf(block)) ** 2);
      return errors.reduce((a, b) => a + b);
    };
    expect(await errorOf(estimator)).toBeLessThan(0.7 * (await errorOf("hutchinson")));
  });

  test("does not depend on how samples are split into batches", async () => {
    const few = options({ estimator, draws: 2 });
    const whole = await estimate(model, groups, few);
    const parts = await estimate(model, groups, { ...few, batchSize: 4 });
    const scale = Math.max(...whole.mean.map(Math.abs));
    whole.mean.forEach((trace, c) => {
      expect(Math.abs(parts.mean[c] - trace)).toBeLessThan(1e-4 * scale);
    });
  });
});

describe("removal", () => {
  test("is the Gauss-Newton curvature of a factor on the component's output", async () => {
    const temperature = 4;
    const quantity = "removal" as const;
    const { mean: curvatures } = await estimate(model, groups, options({ quantity, temperature }));
    const { graph, constants } = bindParameters(model, samples.count, "evaluation");
    // A factor on a channel after normalisation scales the channel's norm weight and bias.
    const norms = groups.map(({ name }) =>
      name.endsWith("downsample.0") ? name.replace(/0$/, "1") : name.replace(/conv(\d)$/, "bn$1"),
    );
    const fields = norms.flatMap((name) => [`${name}.weight`, `${name}.bias`]);
    const directions = new Map(
      fields.map((name) => [name, input(`along ${name}`, graph.parameters.get(name)!.shape)]),
    );
    const [tangent] = jvp(
      [graph.logits],
      new Map(fields.map((name) => [graph.parameters.get(name)!, directions.get(name)!])),
    );
    const program = await executor.compile({
      outputs: { tangent, logits: graph.logits },
      constants,
    });
    const batch = await samples.batch([...Array(samples.count).keys()]);
    const classes = model.classes.length;
    let c = 0;
    for (const [g, { count }] of groups.entries()) {
      for (let channel = 0; channel < count; channel++, c++) {
        const feeds = Object.fromEntries(
          fields.map((name) => {
            const direction = new Float32Array(model.parameters.get(name)!.data.length);
            if (name.startsWith(`${norms[g]}.`)) {
              direction[channel] = model.parameters.get(name)!.data[channel];
            }
            return [`along ${name}`, direction];
          }),
        );
        const results = await program.run({ ...batch.feeds, ...feeds });
        const [logits, slope] = [float32Data(results.logits), float32Data(results.tangent)];
        let expected = 0;
        for (let n = 0; n < samples.count; n++) {
          const row = (array: Float32Array) => [...array.subarray(n * classes, (n + 1) * classes)];
          const exponentials = row(logits).map((x) => Math.exp(x / temperature));
          const sum = exponentials.reduce((a, b) => a + b);
          const p = exponentials.map((x) => x / sum);
          const d = row(slope);
          const along = p.reduce((a, b, j) => a + b * d[j], 0);
          expected += p.reduce((a, b, j) => a + b * d[j] ** 2, 0) - along ** 2;
        }
        expect(curvatures[c] / (expected / samples.count)).toBeCloseTo(1, 3);
      }
    }
  });
});

test("interruption between passes is an error of its own", async () => {
  const controller = new AbortController();
  controller.abort();
  await expect(
    estimate(model, groups, options({ signal: controller.signal })),
  ).rejects.toMatchObject({ code: "aborted" });
});
