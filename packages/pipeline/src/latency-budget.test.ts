import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  applyDecisions,
  componentGroups,
  type Model,
  makePlan,
  Random,
  type Sensitivity,
} from "@espalier/core";
import { readOnnx, topologicalOrder, type Value } from "@espalier/graph";
import { createOnnxExecutor, openOnnxModel } from "@espalier/runtime-onnx";
import { cifarResNet } from "@espalier/vision";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { noiseTask } from "../fixtures/noise-task.ts";
import type { PipelineEvent } from "./events.ts";
import { createTiming, type Latency, type TimedModel, type Timing } from "./latency.ts";
import { latencyOutcome, openLatencyTable } from "./latency-budget.ts";
import {
  decodeLatencyTable,
  LATENCY_TABLE,
  type LatencyTable,
  predictLatency,
} from "./latency-table.ts";
import { measureLatencyTable, timedModel } from "./measure-latency-table.ts";
import { type PruneRequest, type PruneResult, prune } from "./prune.ts";
import { RunDirectory } from "./run-directory.ts";
import { defaultPruning, type PruneSettings } from "./settings.ts";

const machine = { processor: "abacus", threads: 1, runtime: "beads 1" };

/** Milliseconds on a machine whose layers come in blocks of `block` channels. */
function timeOnPaper({ onnx, inputs }: TimedModel, block: number): number {
  const [batch] = Object.values(inputs)[0].shape;
  const { outputs } = readOnnx(new Uint8Array(onnx), "model", { batch });
  const blocks = (width: number) => Math.ceil(width / block) * block;
  const timeOf = (value: Value) => {
    const layer = value.operation.layer?.(value);
    if (layer === undefined) return 0;
    const { x, w } = layer.shapes(layer.inputs, layer.outputs);
    const positions = value.shape.length === 4 ? value.shape[2] * value.shape[3] : 1;
    const kernel = w.slice(2).reduce((a, b) => a * b, 1);
    return 1e-7 * x[0] * positions * kernel * blocks(w[0]) * blocks(w[1]);
  };
  return topologicalOrder(Object.values(outputs)).reduce((sum, value) => sum + timeOf(value), 0.05);
}

interface Abacus extends Timing {
  /** How many models were timed. */
  timed: number;
}

/** @param distort What whole models take besides what their layers promise. */
function abacus(block: number, distort: (time: number) => number = (time) => time): Abacus {
  const timing: Abacus = {
    machine,
    timed: 0,
    measure: async (models) =>
      models.map((model): Latency => {
        timing.timed++;
        const time = timeOnPaper(model, block);
        const median = "pixel_values" in model.inputs ? distort(time) : time;
        return { median, quartiles: [median, median], runs: 1 };
      }),
  };
  return timing;
}

const model = tinyResNet({ widths: [16, 32, 32], size: 8, classes: 3 });
const tableOptions = { batch: 2, implants: true, coupling: "together", executor: "none" } as const;

function scored(of: Model): Sensitivity {
  const random = new Random(3);
  return {
    ...{ metric: "random", temperature: 1, coupling: "together", samples: 0 },
    ...{ draws: 0, negative: 0, rankStability: 1 },
    groups: componentGroups(of, "together").map((group) => ({
      group,
      scores: Float64Array.from({ length: group.count }, (_, i) =>
        Math.abs(random.stream(group.name, i).normal()),
      ),
      standardErrors: new Float64Array(group.count),
    })),
  };
}

let directory: string;
// Tables take seconds, even on paper; most tests share one.
let sharedCache: string;
beforeAll(async () => {
  sharedCache = await mkdtemp(join(tmpdir(), "espalier-latency-cache-"));
});
afterAll(() => rm(sharedCache, { recursive: true, force: true }));
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-latency-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe("a table", () => {
  test.each([8, 16, 32])(
    "finds that multiples of %d pay, and predicts whole models",
    async (block) => {
      const timing = abacus(block);
      const table = await measureLatencyTable(model, { ...tableOptions, timing });
      expect(table.multiple).toBe(block);
      // Exports may merge an implant with its layer (decision 012), which a table of layers knows
      // nothing of; so predictions are right within the tolerance of promises.
      for (const { predicted, measured } of table.checks) {
        expect(Math.abs(predicted / measured - 1)).toBeLessThan(0.05);
      }
      const plan = makePlan(
        model,
        scored(model),
        {
          ...{ budget: { of: "latency", keep: 0.6 }, implant: 0.2, scope: "global", floor: 0 },
          ...{ rankBy: "score-per-cost", wholeBranches: true, roundTo: Math.min(block, 16) },
        },
        (of) => predictLatency(table, of),
      );
      const share = plan.after.latency! / plan.before.latency!;
      expect(share).toBeLessThanOrEqual(0.6);
      expect(plan.after.implants + plan.after.components).toBeLessThan(plan.before.components * 2);
    },
  );

  test("rises with widths, whatever noise says", async () => {
    const noise = new Random("noise");
    const timing = abacus(8);
    const noisy: Timing = {
      machine,
      measure: async (models, seconds) =>
        (await timing.measure(models, seconds)).map((latency) => {
          const median = latency.median * (1 + 0.2 * noise.uniform());
          return { median, quartiles: [median, median], runs: 1 };
        }),
    };
    const table = await measureLatencyTable(model, { ...tableOptions, timing: noisy });
    expect(table.noise).toBeGreaterThan(0);
    for (const { milliseconds } of Object.values(table.layers)) {
      milliseconds.forEach((row, i) => {
        row.forEach((time, j) => {
          expect(time).toBeGreaterThanOrEqual(row[j - 1] ?? 0);
          expect(time).toBeGreaterThanOrEqual(milliseconds[i - 1]?.[j] ?? 0);
        });
      });
    }
  });

  test("is kept for other runs, by all that it depends on", async () => {
    const cacheDirectory = join(directory, "cache");
    const open = async (name: string, changes: object = {}) => {
      const events: PipelineEvent[] = [];
      const timing = abacus(8);
      const run = await RunDirectory.open(join(directory, name), {}, fresh);
      const onEvent = (event: PipelineEvent) => events.push(event);
      await openLatencyTable(run, model, {
        ...{ ...tableOptions, timing, cacheDirectory, onEvent },
        ...changes,
      });
      return { timed: timing.timed, events };
    };
    const first = await open("first");
    expect(first.timed).toBeGreaterThan(0);
    expect(first.events.filter(({ type }) => type === "progress").length).toBeGreaterThan(10);
    const second = await open("second");
    expect(second.timed).toBe(0);
    expect(second.events).toMatchObject([{ type: "latency-table", cached: true, multiple: 8 }]);
    expect((await open("batch", { implants: false })).timed).toBeGreaterThan(0);
    const threads = { ...abacus(8), machine: { ...machine, threads: 2 } };
    expect((await open("threads", { timing: threads })).events).toContainEqual(
      expect.objectContaining({ type: "latency-table", cached: false }),
    );
  });

  test("is the run's own where none can be kept for others", async () => {
    const path = join(directory, "alone");
    const cacheDirectory = join(directory, "file");
    await writeFile(cacheDirectory, "");
    const events: PipelineEvent[] = [];
    const onEvent = (event: PipelineEvent) => events.push(event);
    const run = await RunDirectory.open(path, {}, fresh);
    const request = { ...tableOptions, timing: abacus(8), cacheDirectory, onEvent };
    const table = await openLatencyTable(run, model, request);
    expect(events.at(-1)).toMatchObject({ type: "cache-fail", error: { code: "invalid-file" } });
    expect(await openLatencyTable(run, model, { ...request, timing: abacus(16) })).toEqual(table);
    await run.close();
  });

  test("of other makes is refused by name", async () => {
    const table = await measureLatencyTable(model, { ...tableOptions, timing: abacus(8) });
    const [kind] = Object.keys(table.layers);
    const edit = (changes: object) => () =>
      decodeLatencyTable({ ...table, ...changes }, "table.json");
    const layer = table.layers[kind];
    expect(edit({})()).toEqual(table);
    expect(edit({ multiple: 0 })).toThrow(/^table.json: multiple: /);
    expect(edit({ layers: { [kind]: { ...layer, inputs: [8] } } })).toThrow(
      /layers\..*: expected a row for each of inputs/,
    );
    expect(edit({ layers: { [kind]: { ...layer, outputs: layer.outputs.toReversed() } } })).toThrow(
      /expected widths in ascending order/,
    );
    const wrong = layer.milliseconds.map((row) => row.map(() => -1));
    expect(edit({ layers: { [kind]: { ...layer, milliseconds: wrong } } })).toThrow(/milliseconds/);
    expect(() => decodeLatencyTable([], "table.json")).toThrow(/^table.json: /);
    expect(() => predictLatency({ ...table, layers: {} }, model)).toThrow(
      /latency\/table.json: expected times of conv 3x3 .*, got none/,
    );
  });
});

const fresh = { resume: false, overwrite: false };

const task = noiseTask(model, noiseSamples);

function request(
  changes: Partial<PruneRequest>,
  settings: Partial<PruneSettings> = {},
): PruneRequest {
  const defaults = defaultPruning({ of: "latency", keep: 0.6 });
  return {
    source: { model, path: "weights", sha256: "0" },
    sourceName: "weights",
    settings: {
      ...defaults,
      sensitivity: { ...defaults.sensitivity, metric: "magnitude", samples: 8 },
      calibration: 8,
      tune: { ...defaults.tune, validation: 8 },
      ...settings,
    },
    directory: join(directory, "run"),
    cacheDirectory: sharedCache,
    ...fresh,
    ...changes,
  };
}

async function run(
  changes: Partial<PruneRequest>,
  settings?: Partial<PruneSettings>,
): Promise<{ result: PruneResult; events: PipelineEvent[] }> {
  const events: PipelineEvent[] = [];
  const result = await prune(request(changes, settings), {
    ...{ families: [cifarResNet], executor: createOnnxExecutor({ threads: 1 }), task },
    onEvent: (event) => events.push(event),
  });
  return { result, events };
}

async function json(name: string): Promise<unknown> {
  return JSON.parse(await readFile(join(directory, "run", name), "utf8"));
}

describe("a budget of latency", () => {
  test("is met within 1 %, in widths that pay, and checked", async () => {
    const { result, events } = await run({ timing: abacus(8) });
    const { latency, options } = result.plan;
    expect(options.roundTo).toBe(8);
    expect(latency).toMatchObject({ batch: 1, multiple: 8, keep: 0.6, chosen: 0 });
    const [{ predicted, measured }] = latency!.attempts;
    expect(predicted).toBeLessThanOrEqual(0.6);
    expect(predicted).toBeGreaterThan(0.57);
    expect(measured).toBeCloseTo(predicted, 2);
    expect(latencyOutcome(latency!, result.latency!.batches)).toMatchObject({
      kept: true,
      corrections: 0,
    });
    expect(events).toContainEqual(
      expect.objectContaining({ type: "latency-check", accepted: true }),
    );
  });

  test("an explicit multiple wins, other batches are predicted and timed", async () => {
    const plan = { ...defaultPruning({ of: "latency", keep: 0.7 }).plan, roundTo: 4, implant: 0.3 };
    const { result } = await run({ timing: abacus(8) }, { plan, latencyBatch: 3 });
    expect(result.plan.options.roundTo).toBe(4);
    expect(result.plan.latency).toMatchObject({ batch: 3, multiple: 8 });
    expect(Object.keys(result.latency!.batches)).toEqual(["1", "3", "64"]);
  });

  test("in several rounds, the last is checked against the dense model", async () => {
    const { result } = await run({ timing: abacus(8) }, { rounds: 2 });
    const first = (await json("rounds/1/plan.json")) as PruneResult["plan"];
    expect(first.latency).toBeUndefined();
    expect(first.after.latency! / first.before.latency!).toBeCloseTo(Math.sqrt(0.6), 1);
    expect(result.plan.latency!.attempts[0].predicted).toBeLessThanOrEqual(0.6);
  });

  test("what layers do not tell is corrected for, and said", async () => {
    // Models gain less than layers promise: a tenth of the difference is lost.
    const whole = timeOnPaper(timedModel(model, 1), 8);
    let distorted = false;
    const timing = abacus(8, (time) => (distorted ? time + 0.2 * (whole - time) : time));
    const onEvent = (event: PipelineEvent) => {
      if (event.type === "latency-table") distorted = true;
    };
    const result = await prune(request({ timing }), {
      ...{ families: [cifarResNet], executor: createOnnxExecutor({ threads: 1 }), task, onEvent },
    });
    const { attempts, chosen } = result.plan.latency!;
    expect(attempts[0].measured).toBeGreaterThan(0.63);
    expect(attempts.length).toBeGreaterThan(1);
    expect(attempts[1].target).toBeLessThan(0.6);
    expect(attempts[chosen].measured).toBeLessThanOrEqual(0.63);
    expect(latencyOutcome(result.plan.latency!, result.latency!.batches).kept).toBe(true);
  });

  test("a promise that cannot be kept is missed openly", async () => {
    let distorted = false;
    const timing = abacus(8, (time) => (distorted ? 1 : time));
    const onEvent = (event: PipelineEvent) => {
      if (event.type === "latency-table") distorted = true;
    };
    const result = await prune(request({ timing }), {
      ...{ families: [cifarResNet], executor: createOnnxExecutor({ threads: 1 }), task, onEvent },
    });
    const outcome = latencyOutcome(result.plan.latency!, result.latency!.batches);
    expect(outcome).toMatchObject({ kept: false, measured: 1 });
    expect(result.plan.latency!.attempts.length).toBeLessThanOrEqual(3);
  });

  test("that is out of reach says what is not", async () => {
    const plan = defaultPruning({ of: "latency", keep: 0.01 }).plan;
    await expect(run({ timing: abacus(8) }, { plan })).rejects.toThrow(
      /^keep-latency 0.01: at least 0\.\d+ has to be kept/,
    );
  });

  test("needs a way to time", async () => {
    await expect(run({})).rejects.toThrow("keep-latency: expected a way to time models");
  });

  test("a resumed run goes on with the times it has, to the same model", async () => {
    const { result } = await run({ timing: abacus(8) });
    const measured = [LATENCY_TABLE, "latency/check-1.json"];
    const before = await Promise.all(measured.map(json));
    for (const name of ["plan.json", "pruned", "model", "export", "evaluation.json"]) {
      await rm(join(directory, "run", name), { recursive: true });
    }
    // Another mood of the machine, which must not matter any more.
    const moody = abacus(16, (time) => 3 * time);
    const again = await run({ timing: moody, resume: true });
    expect(moody.timed).toBe(0);
    expect(again.result.plan).toEqual(result.plan);
    expect(await Promise.all(measured.map(json))).toEqual(before);
    expect(again.events).toContainEqual({
      type: "stage-end",
      stage: "latency-table",
      reused: true,
    });
  });

  test("a check of another plan is made anew; a damaged file is refused by name", async () => {
    await run({ timing: abacus(8) });
    const path = (name: string) => join(directory, "run", name);
    const table = (await json(LATENCY_TABLE)) as LatencyTable;
    for (const name of [
      "plan.json",
      "budgets.json",
      "pruned",
      "model",
      "training.json",
      "export",
    ]) {
      await rm(path(name), { recursive: true });
    }
    for (const name of ["evaluation.json", "sizes.json", "latency.json"]) await rm(path(name));
    await writeFile(
      path(LATENCY_TABLE),
      JSON.stringify({ ...table, rest: { ...table.rest, run: 0 } }),
    );
    const timing = abacus(8);
    await run({ timing, resume: true });
    expect(timing.timed).toBeGreaterThan(0);
    await rm(path("plan.json"));
    await writeFile(path("latency/check-1.json"), "{}");
    await expect(run({ timing, resume: true })).rejects.toThrow(/check-1.json: /);
    await writeFile(path(LATENCY_TABLE), JSON.stringify({ ...table, batch: 5 }));
    await expect(run({ timing, resume: true })).rejects.toThrow(
      /table.json: expected times of .*, got/,
    );
  });

  test("on another machine a run cannot be resumed", async () => {
    await run({ timing: abacus(8) });
    const other = { ...abacus(8), machine: { ...machine, threads: 4 } };
    await expect(run({ timing: other, resume: true })).rejects.toThrow(
      /run.json: the run to be resumed had machine/,
    );
  });
});

test("on ONNX Runtime, a pruned model is predicted to be faster, and is", async () => {
  const large = tinyResNet({ widths: [32, 64, 128], size: 16 });
  const timing = createTiming({ ...machine, processor: "this" }, (onnx) =>
    openOnnxModel(onnx, { threads: 1 }),
  );
  const table = await measureLatencyTable(large, { ...tableOptions, implants: false, timing });
  expect([4, 8, 16, 32]).toContain(table.multiple);
  const groups = componentGroups(large, "together");
  const half = new Map(
    groups.map(({ name, count }) => [
      name,
      Array.from({ length: count }, (_, i) => (i < count / 2 ? ("keep" as const) : "prune")),
    ]),
  );
  const pruned = applyDecisions(large, groups, half);
  const predicted = predictLatency(table, pruned) / predictLatency(table, large);
  const [dense, smaller] = await timing.measure(
    [large, pruned].map((each) => timedModel(each, 2)),
    1,
  );
  const measured = smaller.quartiles[0] / dense.quartiles[0];
  // Other programs may run beside the tests.
  expect(predicted).toBeGreaterThan(0.1);
  expect(predicted).toBeLessThan(0.9);
  expect(Math.abs(Math.log(predicted / measured))).toBeLessThan(Math.log(2));
});
