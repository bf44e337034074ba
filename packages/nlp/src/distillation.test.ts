/** Training that asks for what the layers of another encoder put out. */
import { bindParameters, type Model, oneHot, Random } from "@espalier/core";
import { float32Data } from "@espalier/graph";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { compileTrainingStep, train } from "@espalier/train";
import { describe, expect, test } from "vitest";
import { randomSamples, tinyModel } from "./testing/index.ts";

const executor = createOnnxExecutor({ threads: 1 });
const samples = randomSamples(4);
const indices = [0, 1, 2, 3];
const optimizer = { name: "adamw", betas: [0.9, 0.999], epsilon: 1e-8, weightDecay: 0 } as const;

/** What the layers of `model` put out for all samples, [4, 8, 6] each. */
async function hiddenOf(model: Model): Promise<Float32Array[]> {
  const { feeds, length } = await samples.batch(indices);
  const { graph, constants } = bindParameters(model, 4, "evaluation", length);
  const outputs = Object.fromEntries(graph.hidden!.map((value, i) => [`${i}`, value]));
  const program = await executor.compile({ outputs, constants });
  const results = await program.run(feeds);
  await program.dispose();
  return graph.hidden!.map((_, i) => float32Data(results[`${i}`]));
}

/** The loss before a step that asks for `hidden` by a weight. */
async function lossOf(model: Model, hiddenWeight: number, hidden: readonly Float32Array[]) {
  const { feeds, labels, length } = await samples.batch(indices);
  const step = await compileTrainingStep(model, executor, {
    ...{ batchSize: 4, length, optimizer, statisticsMomentum: 0 },
    distillation: { weight: 0, hiddenWeight, temperature: 1 },
  });
  const { loss } = await step.run(step.initialState(), {
    ...{ feeds, targets: oneHot(labels, 3), learningRate: 0, step: 1 },
    teacher: { logits: new Float32Array(12), hidden },
  });
  await step.dispose();
  return loss;
}

describe("distillation from hidden states", () => {
  const model = tinyModel();

  test("there is one of each layer, which pruning leaves in its shape; of the last one token", async () => {
    const shapes = (of: Model) => of.build(2, "training", 8).hidden!.map(({ shape }) => shape);
    expect(shapes(model)).toEqual([
      [2, 8, 6],
      [2, 1, 6],
    ]);
    const value = "bert.encoder.layer.0.attention.self.value.weight";
    expect(shapes(model.prune(new Map([[value, []]])))).toEqual(shapes(model));
  });

  test("from itself asks for nothing but the labels' share", async () => {
    const own = await hiddenOf(model);
    const whole = await lossOf(model, 0, []);
    expect(await lossOf(model, 0.25, own)).toBeCloseTo(0.75 * whole, 5);
  });

  test("is the mean squared difference over layers, numbers and positions that are not filled up", async () => {
    const own = await hiddenOf(model);
    const random = new Random(9);
    const other = own.map((values) => values.map((value) => value + random.normal()));
    const mask = (await samples.batch(indices)).feeds.attention_mask as BigInt64Array;
    let expected = 0;
    for (let n = 0; n < 4; n++) {
      const real = mask.slice(n * 8, n * 8 + 8).reduce((count, bit) => count + Number(bit), 0);
      for (const [layer, values] of own.entries()) {
        const positions = [8, 1][layer];
        const counted = [real, 1][layer];
        for (let i = n * positions * 6; i < (n + 1) * positions * 6; i++) {
          if (layer === 0 && mask[Math.floor(i / 6)] === 0n) continue;
          expected += (values[i] - other[layer][i]) ** 2 / (6 * counted * 2 * 4);
        }
      }
    }
    expect(await lossOf(model, 1, other)).toBeCloseTo(expected, 5);
  });

  test("brings an encoder with other weights nearer to its teacher", async () => {
    const student = model.withParameters(
      new Map(
        [...model.parameters].map(([name, parameter]) => {
          const noise = new Random(name);
          return [
            name,
            { ...parameter, data: parameter.data.map((x) => x + 0.1 * noise.normal()) },
          ];
        }),
      ),
    );
    const { history } = await train(student, {
      ...{ executor, samples, epochs: 60, batchSize: 4, optimizer, labelSmoothing: 0 },
      schedule: { name: "linear", peak: 0.01, warmup: 0 },
      distillation: { weight: 0, hiddenWeight: 1, temperature: 1, teacher: model },
      random: new Random(0),
    });
    expect(history[59].loss).toBeLessThan(history[0].loss / 4);
  });
});
