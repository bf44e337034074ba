import { EspalierError } from "@espalier/base";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { expect, test } from "vitest";
import { componentGroups } from "./components.ts";
import { type Estimator, estimate } from "./estimate.ts";
import { fitBatch } from "./fit-batch.ts";
import { Random } from "./random.ts";

/** 100 bytes, and 10 more for every sample. */
const prepare = (batchSize: number) => ({ batchSize, peakBytes: 100 + 10 * batchSize });

test("a batch is as large as wanted without a limit, and within one", () => {
  expect(fitBatch({}, 64, prepare).batchSize).toBe(64);
  expect(fitBatch({ memoryLimit: 740 }, 64, prepare).batchSize).toBe(64);
});

test("a batch shrinks to the largest size found below the limit, but not to nothing", () => {
  for (let memoryLimit = 110; memoryLimit < 740; memoryLimit += 7) {
    const { batchSize, peakBytes } = fitBatch({ memoryLimit }, 64, prepare);
    expect(peakBytes).toBeLessThanOrEqual(memoryLimit);
    expect(batchSize).toBeGreaterThanOrEqual(Math.max(1, ((memoryLimit - 100) / 10) * 0.5));
  }
});

test("a limit below the need of one sample is an error that says both", () => {
  const attempt = () => fitBatch({ memoryLimit: 109 }, 64, prepare);
  expect(attempt).toThrow(/at most 0\.000109 MB, got one of 0\.00011 MB/);
  try {
    attempt();
  } catch (error) {
    expect(EspalierError.isInstance(error, "out-of-memory")).toBe(true);
  }
});

test.each<Estimator>(["exact", "probe", "hutchinson"])(
  "%s: a memory limit makes batches smaller and changes nothing but rounding",
  async (estimator) => {
    const model = tinyResNet({ widths: [2, 3, 4] });
    const samples = noiseSamples(model, 12);
    const batches: number[] = [];
    const scores = async (memoryLimit?: number) => {
      const unlimited = createOnnxExecutor({ threads: 1 });
      const executor = { ...unlimited, memoryLimit };
      let passes = 0;
      const { mean } = await estimate(model, componentGroups(model, "apart"), {
        executor,
        samples,
        quantity: "trace",
        estimator,
        draws: 2,
        temperature: 1,
        batchSize: 12,
        random: new Random(3),
        onEvent: (event) => {
          passes = event.passes;
        },
      });
      batches.push(passes);
      return mean;
    };
    const whole = await scores();
    // Enough for three samples or so.
    const refused = await scores(1).catch((error: unknown) => error);
    if (!EspalierError.isInstance(refused)) throw refused;
    const parts = await scores(3 * (refused.data.peakBytes as number));
    expect(batches[1]).toBeGreaterThan(batches[0]);
    const scale = Math.max(...whole.map(Math.abs));
    whole.forEach((value, i) => {
      expect(Math.abs(parts[i] - value)).toBeLessThanOrEqual(1e-5 * scale);
    });
  },
);
