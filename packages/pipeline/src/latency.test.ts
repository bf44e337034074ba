import { setTimeout } from "node:timers/promises";
import { afterEach, describe, expect, test, vi } from "vitest";
import { createTiming, measureLatencies, timedBatches } from "./latency.ts";

afterEach(() => vi.restoreAllMocks());

/** Candidates on a clock of their own, each of whose runs takes its number of milliseconds. */
function candidatesTaking(...milliseconds: readonly number[]) {
  let now = 0;
  vi.spyOn(performance, "now").mockImplementation(() => now);
  const runs = milliseconds.map(() => 0);
  const candidates = milliseconds.map((duration, i) => ({
    run: async () => {
      runs[i]++;
      now += duration;
    },
  }));
  return { candidates, runs };
}

describe("how often something is run", () => {
  test("short runs several times a turn, each after one that does not count", async () => {
    const { candidates, runs } = candidatesTaking(1, 100);
    const [short, longer] = await measureLatencies(candidates, 0.5);
    expect(short).toEqual({ median: 1, quartiles: [1, 1], runs: 15 });
    expect(longer).toEqual({ median: 100, quartiles: [100, 100], runs: 6 });
    expect(runs).toEqual([18, 9]);
  });

  test("runs of seconds once a turn, and the first alone does not count", async () => {
    const { candidates, runs } = candidatesTaking(5000, 2500);
    const latencies = await measureLatencies(candidates, 3);
    expect(latencies.map(({ median }) => median)).toEqual([5000, 2500]);
    expect(latencies.map((each) => each.runs)).toEqual([3, 3]);
    expect(runs).toEqual([4, 4]);
  });
});

test("nothing is run after an abort, and opened models are disposed of", async () => {
  const controller = new AbortController();
  let [runs, disposed] = [0, 0];
  const timing = createTiming({ processor: "none", threads: 1, runtime: "none" }, async () => ({
    run: async () => {
      await setTimeout(1);
      if (++runs === 4) controller.abort();
      return {};
    },
    dispose: async () => {
      disposed++;
    },
  }));
  const model = { onnx: new Uint8Array(), inputs: {} };
  await expect(timing.measure([model, model], 60, controller.signal)).rejects.toMatchObject({
    code: "aborted",
  });
  expect([runs, disposed]).toEqual([4, 2]);
});

test("the batches of a model are 1, and 64 or as many as stay short", () => {
  // ResNet-56 on CIFAR-10, MiniLM, ResNet-50 on ImageNet, BERT-large on 512 tokens.
  expect([0.126e9, 1.43e9, 4.1e9, 170e9].map(timedBatches)).toEqual([
    [1, 64],
    [1, 64],
    [1, 16],
    [1, 2],
  ]);
});
