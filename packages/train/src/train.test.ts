import { EspalierError } from "@espalier/base";
import { bindParameters, type Model, objectives, Random, type Samples } from "@espalier/core";
import { crossEntropy, float32Data, gradient, input, isDeviceTensor, mean } from "@espalier/graph";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { describe, expect, test, vi } from "vitest";
import { Score } from "./evaluate.ts";
import {
  compileTrainingStep,
  evaluate,
  expectSmoothing,
  type OptimizerOptions,
  parametersIn,
  readState,
  reestimateStatistics,
  type TrainingCheckpoint,
  type TrainingState,
  type TrainOptions,
  train,
} from "./index.ts";

const executor = createOnnxExecutor({ threads: 1 });
const model = tinyResNet();
const samples = noiseSamples(model, 24);
const others = noiseSamples(model, 24, 2);
const sgd: OptimizerOptions = { name: "sgd", momentum: 0.9, nesterov: true, weightDecay: 0.01 };

const options = (changes: Partial<TrainOptions> = {}): TrainOptions => ({
  executor,
  samples,
  epochs: 3,
  batchSize: 8,
  optimizer: sgd,
  schedule: { name: "cosine", peak: 0.05, warmup: 0.2 },
  labelSmoothing: 0,
  random: new Random(4),
  ...changes,
});

function bytes(of: Model): string {
  return [...of.parameters]
    .map(([name, { data }]) => `${name}:${Buffer.from(data.buffer).toString("base64")}`)
    .join();
}

/** Gradients of the mean loss in training mode, by the graph itself. */
async function gradientsOf(of: Model, data: Samples): Promise<Map<string, Float32Array>> {
  const { graph, constants } = bindParameters(of, data.count, "training");
  const names = [...of.parameters.keys()].filter((name) => !graph.statistics.has(name));
  const targets = input("targets", graph.logits.shape);
  const gradients = gradient(
    mean(crossEntropy(graph.logits, targets)),
    names.map((name) => graph.parameters.get(name)!),
  );
  const program = await executor.compile({
    outputs: Object.fromEntries(names.map((name, i) => [name, gradients[i]])),
    constants,
  });
  const batch = await data.batch([...Array(data.count).keys()]);
  const results = await program.run({ ...batch.feeds, targets: oneHot(batch.labels, 3) });
  return new Map(names.map((name) => [name, float32Data(results[name])]));
}

function oneHot(labels: ArrayLike<number>, classes: number): Float32Array {
  const targets = new Float32Array(labels.length * classes);
  Array.from(labels).forEach((label, n) => {
    targets[n * classes + label] = 1;
  });
  return targets;
}

/** `gradients`, made shorter together where their norm exceeds `most`. */
function clipped(gradients: Map<string, Float32Array>, most = Infinity): Map<string, Float32Array> {
  const squares = [...gradients.values()].flatMap((g) => Array.from(g, (x) => x * x));
  const scale = Math.min(1, most / Math.sqrt(squares.reduce((a, b) => a + b)));
  return new Map([...gradients].map(([name, g]) => [name, g.map((x) => x * scale)]));
}

describe("one step", () => {
  const adamW: OptimizerOptions = {
    name: "adamw",
    betas: [0.9, 0.99],
    epsilon: 1e-3,
    weightDecay: 0.1,
  };

  test.each([
    ["sgd", sgd, undefined],
    ["adamw", adamW, undefined],
    // The norms are 4.2 and about 1.5: the first step is clipped.
    ["sgd, clipped,", sgd, 2],
    ["adamw, clipped,", adamW, 2],
  ] as const)("of %s is the optimiser's formula, twice", async (_name, optimizer, clip) => {
    const data = noiseSamples(model, 8);
    const rate = 0.1;
    const step = await compileTrainingStep(model, executor, {
      batchSize: 8,
      optimizer,
      clip,
      statisticsMomentum: 0.1,
    });
    const batch = await data.batch([...Array(8).keys()]);
    const inputs = { feeds: batch.feeds, targets: oneHot(batch.labels, 3), learningRate: rate };
    let state: TrainingState = step.initialState();
    let current = model;
    const memory = new Map<string, [Float64Array, Float64Array]>();
    for (const n of [1, 2]) {
      const gradients = clipped(await gradientsOf(current, data), clip);
      state = await readState((await step.run(state, { ...inputs, step: n })).state);
      for (const [name, g] of gradients) {
        const { data: before, kind } = current.parameters.get(name)!;
        const [first, second] = memory.get(name) ?? [
          new Float64Array(g.length),
          new Float64Array(g.length),
        ];
        memory.set(name, [first, second]);
        const decay = kind === "weight" ? optimizer.weightDecay : 0;
        before.forEach((w, i) => {
          let expected: number;
          if (optimizer.name === "sgd") {
            const total = g[i] + decay * w;
            first[i] = 0.9 * first[i] + total;
            expected = w - rate * (total + 0.9 * first[i]);
          } else {
            first[i] = 0.9 * first[i] + 0.1 * g[i];
            second[i] = 0.99 * second[i] + 0.01 * g[i] ** 2;
            const direction =
              first[i] / (1 - 0.9 ** n) / (Math.sqrt(second[i] / (1 - 0.99 ** n)) + 1e-3);
            expected = w - rate * (direction + decay * w);
          }
          expect(state.get(name)![i]).toBeCloseTo(expected, 4);
        });
      }
      current = current.withParameters(parametersIn(model, state));
    }
  });

  test("moves statistics a tenth of the way to those of the batch", async () => {
    const step = await compileTrainingStep(model, executor, {
      batchSize: 8,
      optimizer: sgd,
      statisticsMomentum: 0.1,
    });
    const batch = await samples.batch([0, 1, 2, 3, 4, 5, 6, 7]);
    const result = await step.run(step.initialState(), {
      feeds: batch.feeds,
      targets: oneHot(batch.labels, 3),
      learningRate: 0,
      step: 1,
    });
    const state = await readState(result.state);
    const { graph, constants } = bindParameters(model, 8, "training");
    const program = await executor.compile({
      outputs: Object.fromEntries(graph.statistics),
      constants,
    });
    const observed = await program.run(batch.feeds);
    for (const name of graph.statistics.keys()) {
      const before = model.parameters.get(name)!.data;
      float32Data(observed[name]).forEach((value, i) => {
        expect(state.get(name)![i]).toBeCloseTo(0.9 * before[i] + 0.1 * value, 4);
      });
    }
  });

  test("distilling from itself asks for nothing but the labels' share", async () => {
    const settings = { batchSize: 8, optimizer: sgd, statisticsMomentum: 0 };
    const plain = await compileTrainingStep(model, executor, settings);
    const distilling = await compileTrainingStep(model, executor, {
      ...settings,
      distillation: { weight: 0.5, hiddenWeight: 0, temperature: 4 },
    });
    const batch = await samples.batch([0, 1, 2, 3, 4, 5, 6, 7]);
    const inputs = {
      feeds: batch.feeds,
      targets: oneHot(batch.labels, 3),
      learningRate: 0,
      step: 1,
    };
    const { loss, logits } = await plain.run(plain.initialState(), inputs);
    const half = await distilling.run(distilling.initialState(), {
      ...inputs,
      teacher: { logits },
    });
    expect(half.loss).toBeCloseTo(loss / 2, 5);
    const other = { logits: logits.map((x, i) => x + (i % 3)) };
    const apart = await distilling.run(distilling.initialState(), { ...inputs, teacher: other });
    expect(apart.loss).toBeGreaterThan(half.loss + 0.1);
  });

  test("a family that does not say what its layers put out has no hidden states to distil", async () => {
    const distilling = compileTrainingStep(model, executor, {
      ...{ batchSize: 8, optimizer: sgd, statisticsMomentum: 0 },
      distillation: { weight: 0, hiddenWeight: 0.5, temperature: 4 },
    });
    await expect(distilling).rejects.toMatchObject({
      code: "mismatched-model",
      message: expect.stringContaining(`got one of the family ${model.family.name}`),
    });
  });
});

describe("training", () => {
  test("lowers the loss, reports every epoch and leaves the given model as it was", async () => {
    const before = bytes(model);
    const { model: trained, history } = await train(
      model,
      options({ epochs: 12, validation: samples, test: others }),
    );
    expect(history).toHaveLength(12);
    expect(history[11].loss).toBeLessThan(history[0].loss / 2);
    expect(history[11].validationAccuracy).toBeGreaterThan(0.8);
    expect(bytes(model)).toBe(before);
    const { accuracy } = await evaluate(trained, samples, { executor, batchSize: 8 });
    expect(accuracy).toBe(history[11].validationAccuracy);
    const onOthers = await evaluate(trained, others, { executor, batchSize: 8 });
    expect(onOthers.accuracy).toBe(history[11].testAccuracy);
  });

  test("the same seed gives the same bytes, another seed others", async () => {
    const [first, second] = [await train(model, options()), await train(model, options())];
    expect(bytes(first.model)).toBe(bytes(second.model));
    const other = await train(model, options({ random: new Random(5) }));
    expect(bytes(other.model)).not.toBe(bytes(first.model));
  });

  test("stopped at any step and resumed, it ends in the same bytes", async () => {
    const whole = await train(model, options());
    for (const stop of [1, 3, 4, 8]) {
      const controller = new AbortController();
      let saved: TrainingCheckpoint | undefined;
      const stopped = train(
        model,
        options({
          signal: controller.signal,
          onCheckpoint: async (checkpoint) => {
            saved = checkpoint;
          },
          onEvent: (event) => {
            if (event.type === "step-end" && event.step === stop) controller.abort();
          },
        }),
      );
      await expect(stopped).rejects.toMatchObject({ code: "aborted" });
      expect(saved!.step).toBe(stop);
      const resumed = await train(model, options({ resume: saved }));
      expect(bytes(resumed.model)).toBe(bytes(whole.model));
      expect(resumed.history).toEqual(whole.history);
    }
  });

  test("killed within an epoch, it goes on from a checkpoint of that epoch to the same bytes", async () => {
    const saved: TrainingCheckpoint[] = [];
    const onCheckpoint = async (checkpoint: TrainingCheckpoint) => {
      saved.push(checkpoint);
    };
    const whole = await train(model, options({ checkpointInterval: 0, onCheckpoint }));
    const steps = saved.map(({ step }) => step);
    expect(steps).toEqual(Array.from({ length: steps.length }, (_, i) => i + 1));
    for (const resume of [saved[0], saved[3], saved.at(-2)!]) {
      const resumed = await train(model, options({ resume }));
      expect(bytes(resumed.model)).toBe(bytes(whole.model));
      expect(resumed.history).toEqual(whole.history);
    }
    saved.length = 0;
    await train(model, options({ onCheckpoint }));
    expect(saved).toHaveLength(whole.history.length);
  });

  test("reads every tensor of the state once an epoch, and not again at the end", async () => {
    const reads = new Map<string, number>();
    const compile = executor.compile.bind(executor);
    const compiling = vi.spyOn(executor, "compile").mockImplementation(async (source) => {
      const program = await compile(source);
      const run = program.run.bind(program);
      vi.spyOn(program, "run").mockImplementation(async (feeds) => {
        const results = await run(feeds);
        for (const [name, tensor] of Object.entries(results)) {
          if (!isDeviceTensor(tensor)) continue;
          const read = tensor.read.bind(tensor);
          vi.spyOn(tensor, "read").mockImplementation(() => {
            reads.set(name, (reads.get(name) ?? 0) + 1);
            return read();
          });
        }
        return results;
      });
      return program;
    });
    try {
      await train(model, options());
    } finally {
      compiling.mockRestore();
    }
    expect(reads.size).toBeGreaterThan(model.parameters.size);
    expect(new Set(reads.values())).toEqual(new Set([3]));
  });

  test("too few samples and a loss that is not finite are errors that say so", async () => {
    await expect(train(model, options({ batchSize: 25 }))).rejects.toThrow(
      "expected at least one batch of 25 samples, got 24 samples",
    );
    const wild = options({ schedule: { name: "linear", peak: 1e30, warmup: 0 } });
    const error = await train(model, wild).catch((caught: unknown) => caught);
    expect(EspalierError.isInstance(error, "not-finite")).toBe(true);
  });

  test("a last step that ruins the weights is an error before anything is saved", async () => {
    let saved = 0;
    const last = train(
      model,
      options({
        ...{ epochs: 1, batchSize: 24 },
        // As float32 it is infinite.
        schedule: { name: "linear", peak: 1e39, warmup: 0 },
        onCheckpoint: async () => {
          saved++;
        },
      }),
    );
    await expect(last).rejects.toMatchObject({
      code: "not-finite",
      message: expect.stringMatching(
        /^training: expected finite numbers in \S+ after step 1, got \S+; try a lower learning rate than 1e\+39$/,
      ),
    });
    expect(saved).toBe(0);
  });
});

describe("evaluation", () => {
  test("counts every sample once, whatever the batch size", async () => {
    const results = await Promise.all(
      [5, 8, 24, 100].map((batchSize) => evaluate(model, samples, { executor, batchSize })),
    );
    for (const result of results) {
      expect(result.count).toBe(24);
      expect(result.accuracy).toBe(results[0].accuracy);
      expect(result.loss).toBeCloseTo(results[0].loss, 5);
    }
  });

  test("outputs that are not finite are an error that names the first such sample", async () => {
    const name = "bn1.weight";
    const bad = model.parameters.get(name)!;
    const broken = model.withParameters(
      new Map([...model.parameters, [name, { ...bad, data: bad.data.map(() => Number.NaN) }]]),
    );
    await expect(evaluate(broken, samples, { executor, batchSize: 8 })).rejects.toMatchObject({
      code: "not-finite",
      message:
        "evaluation: expected finite outputs, got NaN as output 0 of sample 0, counted from 0 in the order of evaluation",
    });
    const score = new Score({ classes: ["yes", "no"], objective: undefined });
    const labels = [0, 1, 0];
    const substitutes = new Set([1]);
    score.add(Float32Array.of(1, 2, NaN, NaN, 1, 2), { labels, substitutes }, 3);
    // The last row only fills the batch.
    score.add(Float32Array.of(1, 2, 3, 4, NaN, NaN), { labels }, 2);
    expect(score.result().count).toBe(4);
    expect(() => score.add(Float32Array.of(1, 2, 1, -Infinity), { labels }, 2)).toThrow(
      /got -Infinity as output 1 of sample 6/,
    );
  });

  test("no samples are an error", async () => {
    const none = { ...samples, count: 0 };
    await expect(evaluate(model, none, { executor, batchSize: 8 })).rejects.toMatchObject({
      code: "invalid-argument",
      message: "evaluation: expected at least one sample that can be judged, got 0",
    });
    const score = new Score(model);
    score.add(new Float32Array(3), { labels: [0], substitutes: new Set([0]) }, 1);
    expect(() => score.result()).toThrow("expected at least one sample that can be judged, got 0");
  });
});

test("re-estimated statistics are those of the batches", async () => {
  const options = { executor, batchSize: 8, augmentation: undefined };
  const first = await reestimateStatistics(model, samples, options);
  const again = await reestimateStatistics(first, samples, options);
  for (const [name, { kind, data }] of first.parameters) {
    const before = model.parameters.get(name)!.data;
    if (kind !== "statistic") expect(data).toBe(before);
    else expect([...data]).not.toEqual([...before]);
    // In training mode nothing depends on stored statistics.
    expect([...again.parameters.get(name)!.data]).toEqual([...data]);
  }
  // The first layer's mean is that of its outputs, which depend on nothing estimated.
  const { graph, constants } = bindParameters(model, 24, "training");
  const program = await executor.compile({
    outputs: { mean: graph.statistics.get("bn1.running_mean")! },
    constants,
  });
  const { feeds } = await samples.batch([...Array(24).keys()]);
  const expected = float32Data((await program.run(feeds)).mean);
  first.parameters.get("bn1.running_mean")!.data.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i], 5);
  });
});

describe("what is said of predictions", () => {
  const regression = { classes: ["score"], objective: objectives.regression };

  test("a correlation that is not defined is 0, which JSON can hold", () => {
    const score = new Score(regression);
    score.add(Float32Array.of(2, 2), { labels: [1, 3] }, 2);
    expect(score.result(["pearson", "spearman"])).toEqual({
      ...{ count: 2, accuracy: 0, loss: 0.5 },
      measures: { pearson: 0, spearman: 0 },
    });
  });

  test("measures are of the task's classes, whatever numbers they have in the model", () => {
    // Logits of three classes, of which the task knows two: its 0 is 2 here, its 1 is 0.
    const rows = [
      [9, 0, 0],
      [9, 0, 0],
      [0, 0, 9],
      [0, 9, 0],
    ];
    const score = new Score({ classes: ["yes", "other", "no"], objective: undefined });
    score.add(Float32Array.from(rows.flat()), { labels: [0, 2, 2, 0] }, 4);
    const { accuracy, measures } = score.result(["f1"], [2, 0]);
    expect(accuracy).toBe(0.5);
    // Of "yes": one right of two predicted and two there.
    expect(measures?.f1).toBeCloseTo(0.5);
  });

  test("numbers to be predicted are not smoothed", () => {
    expect(() => expectSmoothing(objectives.regression, 0.1)).toThrow(
      "label-smoothing: expected 0 where a number is to be predicted, got 0.1",
    );
    expectSmoothing(objectives.regression, 0);
    expectSmoothing(objectives.classification, 0.1);
  });
});
