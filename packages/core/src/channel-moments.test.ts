import { createReferenceExecutor } from "@espalier/graph/testing";
import { randomSamples, tinyModel } from "@espalier/nlp/testing";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { describe, expect, test } from "vitest";
import { type ChannelMomentsOptions, measureChannelMoments } from "./channel-moments.ts";
import { componentGroups } from "./components.ts";
import type { ChannelMoments } from "./elimination.ts";
import { estimate } from "./estimate.ts";
import type { Model } from "./model.ts";
import { Random } from "./random.ts";
import { type Samples, selectSamples } from "./samples.ts";

const executor = createOnnxExecutor({ threads: 1 });

const measure = async (
  model: Model,
  samples: Samples,
  changes: Partial<ChannelMomentsOptions> = {},
) => {
  const found = await measureChannelMoments(model, componentGroups(model, "together"), {
    executor,
    samples,
    temperature: 1,
    batchSize: 4,
    random: new Random(1),
    ...changes,
  });
  return new Map([...found].map(([{ name }, moments]) => [name, moments]));
};

function expectClose(found: Map<string, ChannelMoments>, wanted: Map<string, ChannelMoments>) {
  expect([...found.keys()]).toEqual([...wanted.keys()]);
  for (const [name, moments] of found) {
    for (const which of ["activations", "gradients"] as const) {
      const [own, other] = [moments[which], wanted.get(name)![which]];
      const scale = Math.max(...other.map(Math.abs));
      own.forEach((value, i) => {
        expect(Math.abs(value - other[i]) / scale).toBeLessThan(1e-5);
      });
    }
  }
}

describe.each([
  ["images", tinyResNet({ widths: [3, 4, 5] }), noiseSamples(tinyResNet(), 7)],
  ["sequences of several lengths", tinyModel(), randomSamples(7)],
] as const)("of %s", (_, model, samples) => {
  test("are of channels that one weight reads", async () => {
    const found = await measure(model, samples);
    expect(found.size).toBeGreaterThan(1);
    for (const { activations, gradients } of found.values()) {
      expect(activations).toHaveLength((Math.sqrt(gradients.length) + 1) ** 2);
      expect(activations[0]).toBe(1);
    }
  });

  test("do not depend on batches or on what computes", async () => {
    const found = await measure(model, samples);
    expectClose(await measure(model, samples, { batchSize: 3 }), found);
    expectClose(await measure(model, samples, { executor: createReferenceExecutor() }), found);
  });

  test("are means over samples and positions", async () => {
    const whole = await measure(model, samples);
    const parts = await Promise.all(
      [0, 1, 2, 3, 4, 5, 6].map((i) => measure(model, selectSamples(samples, [i]))),
    );
    for (const [name, { activations }] of whole) {
      const each = parts.map((part) => part.get(name)!.activations);
      const [least, most] = [
        activations.map((_, k) => Math.min(...each.map((own) => own[k]))),
        activations.map((_, k) => Math.max(...each.map((own) => own[k]))),
      ];
      activations.forEach((value, k) => {
        expect(value).toBeGreaterThanOrEqual(least[k] - 1e-5);
        expect(value).toBeLessThanOrEqual(most[k] + 1e-5);
      });
    }
  });
});

test("there are none of heads", async () => {
  const model = tinyModel();
  const heads = componentGroups(model, "together", { kinds: ["head"] });
  const found = await measureChannelMoments(model, heads, {
    executor,
    samples: randomSamples(3),
    temperature: 1,
    batchSize: 3,
    random: new Random(1),
  });
  expect(found.size).toBe(0);
});

test("of one sample with one position, they are what removal is made of", async () => {
  const model = tinyResNet({ widths: [3, 4, 5], size: 1 });
  const samples = noiseSamples(model, 1);
  const groups = componentGroups(model, "together");
  const found = await measure(model, samples, { batchSize: 1 });
  const { mean } = await estimate(model, groups, {
    ...{ executor, samples, quantity: "removal", estimator: "probe", draws: 1, temperature: 1 },
    ...{ batchSize: 1, random: new Random(1) },
  });
  let offset = 0;
  let compared = 0;
  for (const { name, count } of groups) {
    const own = found.get(name);
    for (let c = 0; own !== undefined && c < count; c++) {
      const square = own.activations[(c + 1) * (count + 2)];
      const removal = mean[offset + c];
      if (removal === 0) continue;
      expect((own.gradients[c * (count + 1)] * square) / removal).toBeCloseTo(1, 4);
      compared++;
    }
    offset += count;
  }
  expect(compared).toBeGreaterThan(3);
});
