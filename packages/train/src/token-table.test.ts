import { type Model, Random, type Samples, selectSamples } from "@espalier/core";
import { bert, distilbert, roberta } from "@espalier/nlp";
import { randomSamples, tinyModel } from "@espalier/nlp/testing";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { tinyResNet } from "@espalier/vision/testing";
import { describe, expect, test } from "vitest";
import {
  type OptimizerOptions,
  type TrainingCheckpoint,
  type TrainingState,
  type TrainOptions,
  train,
} from "./index.ts";
import { narrowTokenTable } from "./token-table.ts";

const executor = createOnnxExecutor({ threads: 1 });
const adamW = {
  ...{ name: "adamw", betas: [0.9, 0.99], epsilon: 1e-4, weightDecay: 0.1 },
} as const satisfies OptimizerOptions;
const sgd = { name: "sgd", momentum: 0.9, nesterov: true, weightDecay: 0 } as const;

/** The table of words of a model of 20; RoBERTa's like are called otherwise. */
const tableOf = (model: Model) =>
  [...model.parameters.keys()].find((name) => name.endsWith("word_embeddings.weight"))!;

/** Samples of the tokens 3 to 9 alone, which they name. */
function fewTokens(count: number): Samples {
  const samples = randomSamples(count);
  return {
    ...samples,
    batch: async (indices) => {
      const batch = await samples.batch(indices);
      const tokens = batch.feeds.input_ids as BigInt64Array;
      return {
        ...batch,
        feeds: { ...batch.feeds, input_ids: tokens.map((token) => 3n + (token % 7n)) },
      };
    },
    tokens: () => Uint32Array.of(3, 4, 5, 6, 7, 8, 9),
  };
}

const samples = fewTokens(8);
const { tokens: _, ...unnamed } = samples;

const options = (changes: Partial<TrainOptions> = {}): TrainOptions => ({
  ...{ executor, samples, epochs: 3, batchSize: 4, optimizer: adamW, labelSmoothing: 0 },
  schedule: { name: "linear", peak: 0.05, warmup: 0.2 },
  random: new Random(4),
  ...changes,
});

function expectClose(
  actual: ReadonlyMap<string, ArrayLike<number>>,
  expected: ReadonlyMap<string, ArrayLike<number>>,
): void {
  expect([...actual.keys()]).toEqual([...expected.keys()]);
  for (const [name, values] of expected) {
    const got = Array.from(actual.get(name)!);
    const most = Math.max(...got.map((value, i) => Math.abs(value - values[i])));
    expect(most, name).toBeLessThan(1e-5);
  }
}

const dataOf = (model: Model) =>
  new Map([...model.parameters].map(([name, { data }]) => [name, data]));

describe("a training that leaves out rows of the table of tokens", () => {
  test.each([bert, roberta, distilbert])(
    "gives what one with all of them gives: $name",
    async (family) => {
      const model = tinyModel({}, family);
      const narrowed = await train(model, options({ clip: 1 }));
      const whole = await train(model, options({ clip: 1, samples: unnamed }));
      expectClose(dataOf(narrowed.model), dataOf(whole.model));
      expect(narrowed.history[2].loss).toBeCloseTo(whole.history[2].loss, 5);
      const name = tableOf(model);
      const before = model.parameters.get(name)!.data;
      const after = narrowed.model.parameters.get(name)!.data;
      // Rows that nothing reads decay: by six steps at up to 0.05 · 0.1.
      expect(after[0] / before[0]).toBeLessThan(0.99);
      expect(after[0] / before[0]).toBeGreaterThan(0.97);
    },
  );

  test("with distillation, whose teacher reads tokens as they are", async () => {
    const teacher = tinyModel({ num_hidden_layers: 3 });
    const distillation = { weight: 0.5, hiddenWeight: 0, temperature: 2, teacher };
    const narrowed = await train(tinyModel(), options({ distillation }));
    const whole = await train(tinyModel(), options({ distillation, samples: unnamed }));
    expectClose(dataOf(narrowed.model), dataOf(whole.model));
  });

  test("has checkpoints of the whole model, from which either goes on", async () => {
    const model = tinyModel();
    const checkpoints: TrainingCheckpoint[] = [];
    const keep = async (checkpoint: TrainingCheckpoint) => {
      checkpoints.push(checkpoint);
    };
    const once = await train(model, options({ onCheckpoint: keep }));
    const wholes: TrainingCheckpoint[] = [];
    await train(
      model,
      options({
        samples: unnamed,
        onCheckpoint: async (checkpoint) => {
          wholes.push(checkpoint);
        },
      }),
    );
    checkpoints.forEach(({ state }, i) => {
      expectClose(state, wholes[i].state);
    });
    for (const samples of [fewTokens(8), unnamed]) {
      const resumed = await train(model, options({ samples, resume: checkpoints[0] }));
      expectClose(dataOf(resumed.model), dataOf(once.model));
    }
  });

  test("keeps rows that still move by what earlier samples asked for", async () => {
    const model = tinyModel();
    const checkpoints: TrainingCheckpoint[] = [];
    await train(
      model,
      options({
        epochs: 3,
        samples: randomSamples(8),
        onCheckpoint: async (checkpoint) => {
          checkpoints.push(checkpoint);
        },
      }),
    );
    const [resume] = checkpoints;
    const narrowed = await train(model, options({ resume }));
    const whole = await train(model, options({ resume, samples: unnamed }));
    expectClose(dataOf(narrowed.model), dataOf(whole.model));
  });

  test("keeps rows that have moved by what earlier samples asked for, or by other rates", async () => {
    const model = tinyModel();
    const plain = { ...sgd, momentum: 0, nesterov: false };
    for (const [before, after] of [
      [{ samples: randomSamples(8), optimizer: plain }, { optimizer: plain }],
      [{ epochs: 2 }, { epochs: 6 }],
    ] as const) {
      const checkpoints: TrainingCheckpoint[] = [];
      const onCheckpoint = async (checkpoint: TrainingCheckpoint) => {
        checkpoints.push(checkpoint);
      };
      await train(model, options({ ...before, onCheckpoint }));
      const resume = checkpoints[1];
      const narrowed = await train(model, options({ ...after, resume }));
      const whole = await train(model, options({ ...after, resume, samples: unnamed }));
      expectClose(dataOf(narrowed.model), dataOf(whole.model));
    }
  });

  test("stopped after any step goes on to the same bits", async () => {
    const model = tinyModel();
    const once = await train(model, options({ clip: 1 }));
    for (const stop of [1, 2, 3, 5]) {
      const controller = new AbortController();
      let resume: TrainingCheckpoint | undefined;
      const stopped = train(
        model,
        options({
          clip: 1,
          signal: controller.signal,
          onEvent: (event) => {
            if (event.type === "step-end" && event.step === stop) controller.abort();
          },
          onCheckpoint: async (checkpoint) => {
            resume = checkpoint;
          },
        }),
      );
      await expect(stopped).rejects.toMatchObject({ code: "aborted" });
      const resumed = await train(model, options({ clip: 1, resume }));
      expect(dataOf(resumed.model)).toEqual(dataOf(once.model));
    }
  });

  test("refuses a state that lacks what the optimiser keeps", async () => {
    const resume = {
      ...{ step: 1, history: [], partial: { loss: 0, correct: 0, count: 0 } },
      state: dataOf(tinyModel()),
    };
    const optimizer = { ...adamW, weightDecay: 0 };
    await expect(train(tinyModel(), options({ resume, optimizer }))).rejects.toMatchObject({
      code: "invalid-argument",
      message: expect.stringMatching(/discounted gradients: expected 120 numbers/),
    });
  });

  test("by SGD without decay, too", async () => {
    const narrowed = await train(tinyModel(), options({ optimizer: sgd }));
    const whole = await train(tinyModel(), options({ optimizer: sgd, samples: unnamed }));
    expectClose(dataOf(narrowed.model), dataOf(whole.model));
  });

  test("refuses tokens that were not named", async () => {
    const wrong = { ...samples, tokens: () => Uint32Array.of(3, 4) };
    await expect(train(tinyModel(), options({ samples: wrong }))).rejects.toMatchObject({
      code: "invalid-argument",
      message: expect.stringMatching(
        /expected tokens that the model has and its samples have named, got [5-9]/,
      ),
    });
  });
});

describe("what is trained", () => {
  const rowsIn = (model: Model, of: Samples, optimizer: OptimizerOptions = adamW) =>
    narrowTokenTable(model, of, optimizer, undefined).model.parameters.get(tableOf(model))!
      .shape[0];

  test("are the rows of the tokens that the chosen samples have", () => {
    const model = tinyModel();
    expect(rowsIn(model, samples)).toBe(7);
    const each: Samples = { ...samples, tokens: (indices) => Uint32Array.from(indices) };
    expect(rowsIn(model, selectSamples(each, [2, 5]))).toBe(2);
  });

  test.each<[string, Samples, OptimizerOptions]>([
    ["where samples do not name their tokens", unnamed, adamW],
    [
      "where samples have all tokens",
      { ...samples, tokens: () => new Uint32Array(20).map((_, i) => i) },
      adamW,
    ],
    ["by SGD with decay, whose momentum has a part in it", samples, { ...sgd, weightDecay: 0.1 }],
  ])("is the whole table %s", (_name, of, optimizer) => {
    expect(rowsIn(tinyModel(), of, optimizer)).toBe(20);
  });

  test("is all of a model that has no table", () => {
    const model = tinyResNet();
    const { model: trained, narrow } = narrowTokenTable(model, samples, adamW, undefined);
    expect(trained).toBe(model);
    const state: TrainingState = new Map();
    expect(narrow(state)).toBe(state);
  });
});
