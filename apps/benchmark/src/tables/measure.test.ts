import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type PipelineEvent, saveModel, type Task, type Timing } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { cifarResNet } from "@espalier/vision";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { cellsOf } from "./cells.ts";
import { type Bench, measureTable } from "./measure.ts";
import { renderPages } from "./pages.ts";
import { readResult, resultPath } from "./results.ts";
import { percent } from "./rows.ts";
import type { Preset, Table } from "./table.ts";

const model = tinyResNet({ widths: [16, 16, 32] });
const task: Task = {
  name: "noise",
  spec: "noise",
  classes: model.classes,
  objective: "classification",
  classesIn: () => undefined,
  measures: [],
  verified: true,
  counts: { train: 64, test: 40 },
  digest: async () => "noise",
  train: () => noiseSamples(model, 64, 1),
  test: () => noiseSamples(model, 40, 2),
};
const training = {
  epochs: 2,
  batchSize: 16,
  optimizer: { name: "sgd" as const, momentum: 0.9, nesterov: false, weightDecay: 0 },
  schedule: { name: "step" as const, peak: 0.01, warmup: 0 },
};
const preset: Preset = {
  description: "In seconds.",
  source: "model",
  images: { train: 48, test: 24 },
  samples: 16,
  calibration: 16,
  keep: [0.6],
  seeds: [0, 1],
  tune: training,
  methods: ["removal + implant", "hap"],
};
const table: Table = {
  name: "tiny",
  title: "A tiny network on noise",
  model: "Tiny",
  data: ["noise"],
  budget: "macs",
  hapFlops: [],
  methods: ["random"],
  presets: { smoke: preset, quick: preset, paper: { ...preset, seeds: [0] } },
  paper: [],
  published: [
    {
      method: "theirs",
      accuracy: 50,
      baseAccuracy: 51.25,
      parameters: null,
      macs: null,
      macsRatio: 2,
      source: "them",
    },
  ],
};
/** With one cell in its preset smoke. */
const oneCell: Table = {
  ...table,
  presets: { ...table.presets, smoke: { ...preset, seeds: [0], methods: ["hap"] } },
};
// What is asked is whether times arrive, not how long anything takes.
const timing: Timing = {
  machine: { processor: "none", threads: 1, runtime: "none" },
  measure: async (models) =>
    models.map((_, i) => ({ median: 6 - i, quartiles: [4 - 2 * i, 7] as const, runs: 3 })),
};

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-benchmark-"));
  await saveModel(model, join(directory, "models", "model"));
});
afterAll(() => rm(directory, { recursive: true }));

/** A bench whose runs and results are in a directory of their own. */
function benchIn(name: string, changes: Partial<Bench> = {}): Bench & { readonly lines: string[] } {
  const lines: string[] = [];
  return {
    families: [cifarResNet],
    executor: createOnnxExecutor({ threads: 1 }),
    timing,
    models: [join(directory, "models")],
    runs: join(directory, name, "runs"),
    results: join(directory, name, "results"),
    openTask: async () => task,
    log: (line) => lines.push(line),
    lines,
    ...changes,
  };
}

test("measures every cell once, and shows means and spreads beside what is published", async () => {
  const bench = benchIn("whole");
  await measureTable(table, "quick", bench);
  const cells = cellsOf(table, "quick");
  const results = await Promise.all(
    cells.map(async (cell) => (await readResult(resultPath(bench.results, cell)))!),
  );
  for (const result of results) {
    const digest = await task.digest();
    expect(result.data).toEqual({ train: 48, test: 24, digest, verified: true });
    expect(result.pruned.macs).toBeLessThanOrEqual(0.6 * result.dense.macs);
    expect(result.pruned.hapFlops).toBeLessThan(result.dense.hapFlops!);
    expect(result.accuracy.bestOnTest).toBeGreaterThanOrEqual(result.accuracy.tuned);
    expect(result.epochs).toBe(2);
    const { before, after, groups = [] } = result.components;
    const sum = (key: "before" | "after") => groups.reduce((all, group) => all + group[key], 0);
    expect([sum("before"), sum("after")]).toEqual([before, after]);
  }
  // Only the first seed's cells are timed.
  cells.forEach(({ seed }, i) => {
    const times = { dense: 4, pruned: 2 };
    expect(results[i].latency).toEqual(seed === 0 ? { 1: times, 64: times } : {});
  });
  const files = await readdir(join(bench.results, "tiny"));
  expect(files.sort()).toEqual(cells.map(({ name }) => `${name}.json`).sort());

  // What is there is believed, and not measured again.
  const path = resultPath(bench.results, cells[0]);
  const changed = JSON.parse(await readFile(path, "utf8"));
  changed.result.accuracy.tuned = 0.5;
  await writeFile(path, JSON.stringify(changed));
  const again = benchIn("whole", {
    openTask: () => Promise.reject(new Error("nothing is to be measured")),
  });
  await measureTable(table, "quick", again);
  expect(again.lines.filter((line) => line.endsWith("measured before"))).toHaveLength(4);

  const one = benchIn("whole", { cells: /seed1/ });
  await measureTable(table, "quick", one);
  expect(one.lines).toHaveLength(cells.filter(({ seed }) => seed === 1).length);

  const pages = await renderPages([table], bench.results, {});
  const page = pages.get("README.md")!;
  expect(page).toContain("4 of 4 cells measured");
  expect(page).toContain("0 of 2 cells measured");
  // Seeds 0 and 1 of the first method.
  const tuned = [50, 100 * results[2].accuracy.tuned];
  const mean = (tuned[0] + tuned[1]) / 2;
  const spread = Math.abs(tuned[0] - tuned[1]) / Math.SQRT2;
  const row = page.split("\n").find((line) => line.includes("| removal + implant | "))!;
  expect(page).toContain(`| ${mean.toFixed(2)} ± ${spread.toFixed(2)} |`);
  expect(row).toBeDefined();
  expect(page).toContain("| 2.00 | 2.00 | 2 |");
  expect(page).toContain(
    "| theirs | 50.00 | 51.25 | −1.25 | not known | not known | 2.00× | them |",
  );
  const plots = [...pages.keys()].filter((name) => name.endsWith(".svg"));
  expect(plots.sort()).toEqual(
    ["accuracy-macs", "accuracy-parameters", "speed-up"].map(
      (end) => `results/tiny/quick-${end}.svg`,
    ),
  );
  for (const plot of plots) expect(page).toContain(`](${plot})`);
  expect(pages.get("results/tiny/quick-accuracy-macs.svg")).toContain(
    "theirs, as published\n50.00 %; dense 51.25 %\n2.00 times fewer MACs\nthem",
  );
  // Every method and seed is in the page of curves, as tuned and as pruned.
  const curves = pages.get("results/index.html")!;
  expect(curves).toContain(`${mean.toFixed(2)} ± ${spread.toFixed(2)} % tuned`);
  expect(curves.match(/data-variant="tuned"/g)).toHaveLength(2);
  expect(curves.match(/data-variant="pruned|data-variant="as pruned"/g)).toHaveLength(2);

  // Trained anew on another machine, the dense network is another one.
  const dense = percent([changed.result.accuracy.dense]);
  expect(page).toContain(`dense ${dense} % of 24 test samples`);
  changed.result.accuracy.dense = 0.123;
  await writeFile(path, JSON.stringify(changed));
  const both = (await renderPages([table], bench.results, {})).get("README.md")!;
  expect(both).toContain(`dense ${dense} % of 24 test samples`);
  expect(both).toContain(`From a dense network of 12.30 %: ${cells[0].method} (60 %).`);
});

test("a cell that was stopped goes on, and ends in the same result", async () => {
  const one = oneCell;
  const [cell] = cellsOf(one, "smoke");
  const whole = benchIn("whole-cell");
  await measureTable(one, "smoke", whole);

  const controller = new AbortController();
  const stopped = benchIn("stopped", {
    signal: controller.signal,
    onEvent: (event: PipelineEvent) => {
      if (event.type === "epoch-end") controller.abort();
    },
  });
  await expect(measureTable(one, "smoke", stopped)).rejects.toMatchObject({ code: "aborted" });
  expect(await readResult(resultPath(stopped.results, cell))).toBeUndefined();
  const reused: string[] = [];
  const resumed = benchIn("stopped", {
    onEvent: (event: PipelineEvent) => {
      if (event.type === "stage-end" && event.reused) reused.push(event.stage);
    },
  });
  await measureTable(one, "smoke", resumed);
  expect(reused).toContain("plan");
  const result = (bench: Bench) => readResult(resultPath(bench.results, cell));
  expect(await result(resumed)).toEqual(await result(whole));
});

test("a run that was stopped goes on where its model and data have other paths", async () => {
  const controller = new AbortController();
  const stopped = benchIn("moved", {
    signal: controller.signal,
    openTask: async () => ({ ...task, spec: "noise:here" }),
    onEvent: (event) => {
      if (event.type === "epoch-end") controller.abort();
    },
  });
  await expect(measureTable(oneCell, "smoke", stopped)).rejects.toMatchObject({ code: "aborted" });
  const elsewhere = join(directory, "elsewhere");
  await cp(join(directory, "models"), elsewhere, { recursive: true });
  const reused: string[] = [];
  const moved = benchIn("moved", {
    models: [elsewhere],
    openTask: async () => ({ ...task, spec: "noise:there" }),
    onEvent: (event) => {
      if (event.type === "stage-end" && event.reused) reused.push(event.stage);
    },
  });
  await measureTable(oneCell, "smoke", moved);
  expect(reused).toContain("plan");
});

test("a result that was removed is measured anew, not read from its old run", async () => {
  const [cell] = cellsOf(oneCell, "smoke");
  await measureTable(oneCell, "smoke", benchIn("removed"));
  const path = resultPath(benchIn("removed").results, cell);
  const before = await readResult(path);
  await rm(path);
  const reused: string[] = [];
  const faster: Timing = {
    machine: { ...timing.machine, processor: "another" },
    measure: async (models) =>
      models.map(() => ({ median: 1, quartiles: [1, 1] as const, runs: 3 })),
  };
  const again = benchIn("removed", {
    timing: faster,
    onEvent: (event) => {
      if (event.type === "stage-end" && event.reused) reused.push(event.stage);
    },
  });
  await measureTable(oneCell, "smoke", again);
  const after = await readResult(path);
  expect(reused).toEqual([]);
  expect(after?.machine.processor).toBe("another");
  expect(after?.latency).toEqual({ 1: { dense: 1, pruned: 1 }, 64: { dense: 1, pruned: 1 } });
  expect(after?.accuracy).toEqual(before?.accuracy);
});

test("cells of one table are measured on the same data", async () => {
  await measureTable(table, "quick", benchIn("data", { cells: /hap.*seed0/ }));
  const changed = { ...task, digest: async () => "other noise" };
  const other = benchIn("data", { openTask: async () => changed });
  await expect(measureTable(table, "quick", other)).rejects.toThrow(
    /noise: expected the data that quick-hap-0.6-seed0-\w+ was measured on, got other data/,
  );
});

test("a network without a checkpoint is trained first, once for all cells", async () => {
  const trained: Table = {
    ...table,
    presets: { ...table.presets, smoke: { ...preset, training, seeds: [0] } },
  };
  const epochs: number[] = [];
  const bench = benchIn("trained", {
    onEvent: (event: PipelineEvent) => {
      if (event.type === "epoch-end") epochs.push(event.record.epoch);
    },
  });
  await measureTable(trained, "smoke", bench);
  // Two epochs for the dense model, and for each of both cells.
  expect(epochs).toEqual([1, 2, 1, 2, 1, 2]);
});

test("another model than the table's is refused, and one that is not there is named", async () => {
  const withModel = (changes: Partial<Preset>): Table => ({
    ...table,
    presets: { ...table.presets, smoke: { ...preset, ...changes } },
  });
  const bench = benchIn("refused");
  await expect(
    measureTable(withModel({ sha256: "00000000" }), "smoke", bench),
  ).rejects.toMatchObject({ code: "mismatched-model" });
  await expect(
    measureTable(withModel({ source: "resnet20-cifar10:absent.pt" }), "smoke", bench),
  ).rejects.toThrow(/absent\.pt: expected it in .*--models/);
  await expect(readdir(bench.results)).rejects.toMatchObject({ code: "ENOENT" });
});
