/** @file Documents say what results say. */
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { compensationMarkdown } from "./compensation.ts";
import { encodersMarkdown } from "./encoders.ts";
import { exportsMarkdown } from "./exports.ts";
import { headsMarkdown } from "./heads.ts";
import { imagenetMarkdown } from "./imagenet.ts";
import { speedMarkdown } from "./speed-markdown.ts";
import { renderPages } from "./tables/pages.ts";
import {
  meanOf,
  millions,
  of,
  percent as percents,
  type Row,
  readMeasured,
  rowsOf,
} from "./tables/rows.ts";
import { readTable, readTables } from "./tables/table.ts";
import { tunedMarkdown } from "./tuned.ts";
import { untunedMarkdown } from "./untuned.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const results = join(root, "benchmarks/results");

// biome-ignore lint/suspicious/noExplicitAny: results have the shapes that their own modules give them.
const read = async (name: string): Promise<any> =>
  JSON.parse(await readFile(join(results, `${name}.json`), "utf8"));
const percent = (share: number, decimals = 2) => (100 * share).toFixed(decimals);

/** The rows of a table of CIFAR-10, as measured by `quick`. */
async function rowsOfTable(name: string): Promise<Row[]> {
  const table = await readTable(join(root, `benchmarks/tables/${name}.json`));
  return rowsOf(await readMeasured(results, table, "quick")).get("cifar10")!;
}

const rowAt = (rows: readonly Row[], keep: number) => (method: string) =>
  rows.find(({ cell }) => cell.keep === keep && cell.method === method) ??
  expect.unreachable(method);

/** What each method of a table of CIFAR-10 left under a budget, on average: as pruned -> tuned. */
async function leftBy(table: string, keep: number): Promise<(method: string) => string> {
  const at = rowAt(await rowsOfTable(table), keep);
  return (method) =>
    (["pruned", "tuned"] as const)
      .map((state) => percent(meanOf(of(at(method), ({ accuracy }) => accuracy[state]))))
      .join(" -> ");
}

describe("pages of single measurements", () => {
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  const pages: Readonly<Record<string, (result: any) => string>> = {
    speed: speedMarkdown,
    "untuned-accuracy": ({ cells }) => untunedMarkdown(cells),
    compensation: ({ cells }) => compensationMarkdown(cells),
    "tuned-accuracy": tunedMarkdown,
    imagenet: imagenetMarkdown,
    exports: exportsMarkdown,
    encoders: encodersMarkdown,
    heads: ({ rows, subject }) => headsMarkdown(rows, subject),
  };
  // Not every measurement has been made.
  const made = Object.entries(pages).filter(([name]) => existsSync(join(results, `${name}.json`)));
  test.each(made)("%s", async (name, render) => {
    const page = await readFile(join(results, `${name}.md`), "utf8");
    expect(page).toBe(`${render(await read(name))}\n`);
  });
});

test("benchmarks/README.md and its plots are those of the tables and results", async () => {
  const tables = await readTables(join(root, "benchmarks/tables"));
  const pages = await renderPages(tables, results);
  for (const [path, text] of pages) {
    expect(await readFile(join(root, "benchmarks", path), "utf8"), path).toBe(text);
  }
  // No plot is left of what is no longer there.
  for (const { name } of tables) {
    const directory = join(results, name);
    const files = existsSync(directory) ? await readdir(directory) : [];
    for (const file of files.filter((each) => each.endsWith(".svg"))) {
      expect([...pages.keys()]).toContain(`results/${name}/${file}`);
    }
  }
});

describe("what the top README quotes", async () => {
  const readme = (await readFile(join(root, "README.md"), "utf8")).replaceAll(/\s+/g, " ");
  const tuned = (await read("tuned-accuracy")).rows as {
    label: string;
    epochs: number;
    dense: number;
    pruned: number;
    tuned: number;
  }[];
  const speed = await read("speed");
  const imagenet = await read("imagenet");
  const compensation = (await read("compensation")).cells as Record<string, number | string>[];

  const row = (label: string) =>
    tuned.find((each) => each.label === label && each.epochs === 3) ?? expect.unreachable(label);
  const removal = row("removal, T = 4");
  const trace = row("hessian-trace");
  const magnitude = row("magnitude");
  const half = compensation.find(({ metric, keep }) => metric === "removal" && keep === 0.5)!;
  const share = (key: string) => percent(half[key] as number, 1);
  const { ours, peers, resnet56, speedUp } = speed;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  const [peer] = Object.values<any>(peers);
  const seconds = (value: number) => value.toFixed(2);
  const probes = `${(300 * peer.doubleBackwardSeconds).toFixed(0)} s`;
  const wide = speedUp.find(
    ({ roundTo, batch }: { roundTo: number; batch: number }) => roundTo === 16 && batch === 64,
  );
  const encoders = await read("encoders");
  const newest = Object.keys(encoders.peers).find((each) => each.startsWith("2.15"));
  const { ratios } = encoders.peers[newest ?? expect.unreachable("2.15")];
  const base = (metric: string) =>
    encoders.base.find((each: { metric: string }) => each.metric === metric).seconds.toFixed(0);
  const basePeak = Math.max(
    ...encoders.base.map(({ peakBytes }: { peakBytes: number }) => peakBytes),
  );
  const single = imagenet.latencies.find(({ batch }: { batch: number }) => batch === 1);

  test.each([
    [
      "tuned accuracies",
      `keeps ${percent(removal.pruned)} of its ${percent(removal.dense)} %, and has ${percent(removal.tuned)} % after three epochs; by the paper's trace it is ${percent(trace.pruned)} and ${percent(trace.tuned)}, by magnitudes ${percent(magnitude.pruned)} and ${percent(magnitude.tuned)}`,
    ],
    [
      "compensation",
      `${share("none")} % as pruned, ${share("statistics")} % with batch-norm statistics estimated anew and ${share("fitted")} % with layers fitted`,
    ],
    [
      "exact traces",
      `| ${seconds(ours.exactTracesSeconds)} s | ${probes} | ${peer.ratios.exactTraces.toFixed(0)} times faster |`,
    ],
    [
      "probe",
      `rank correlation to exact ${ours.probeRankCorrelation.toFixed(3)} | ${seconds(ours.probeSeconds)} s | ${probes} | ${peer.ratios.probe.toFixed(0)} times faster |`,
    ],
    [
      "one probe of Hutchinson's",
      `| ${seconds(ours.hutchinsonProbeSeconds)} s | ${seconds(peer.doubleBackwardSeconds)} s | ${peer.ratios.hutchinsonProbe.toFixed(1)} times faster |`,
    ],
    [
      "a training step",
      `| ${seconds(ours.trainingStepSeconds)} s | ${seconds(peer.trainingStepSeconds)} s | ${peer.ratios.trainingStep.toFixed(2)} times its time |`,
    ],
    [
      "traces of ResNet-56",
      `take ${resnet56.seconds.toFixed(0)} s and ${(resnet56.peakBytes / 1e9).toFixed(2)} GB. At ${wide.macsRatio.toFixed(2)} times fewer multiply-accumulates, in widths that are multiples of 16, it runs ${wide.speedUp.toFixed(2)} times as fast in batches of 64`,
    ],
    [
      "text encoders",
      `takes ${ratios.trainingStep.toFixed(2)} times PyTorch 2.15's time for a training step on texts with as many words as SST-2's, ${ratios.wholeStep.toFixed(2)} where all 30,522 occur, and ${ratios.hutchinsonProbe.toFixed(2)} of the time of double backward alone for a Hutchinson probe; all heads and neurons of a BERT-base are scored on 128 sequences of 128 tokens in ${base("removal")} s by the default and ${base("hessian-trace")} s by the trace, in ${(basePeak / 1e9).toFixed(0)} GB`,
    ],
    [
      "ResNet-50",
      `all ${imagenet.components.toLocaleString("en")} components scored on ${imagenet.images} photographs: ${imagenet.sensitivitySeconds.toFixed(0)} s and ${(imagenet.peakBytes / 1e9).toFixed(1)} GB; with half of its parameters and ${(imagenet.dense.macs / imagenet.pruned.macs).toFixed(2)} times fewer multiply-accumulates it runs ${single.speedUp.toFixed(2)} times as fast`,
    ],
  ])("%s", (_, quote) => {
    expect(readme).toContain(quote);
  });

  test("ResNets at half of their multiply-accumulates, every method that it names", async () => {
    const tables = ["resnet20-cifar10", "resnet56-cifar10"];
    const rows = await Promise.all(tables.map(rowsOfTable));
    const of20 = rowAt(rows[0], 0.5);
    for (const state of ["pruned", "tuned"] as const) {
      const mean = (method: string) =>
        100 * meanOf(of(of20(method), ({ accuracy }) => accuracy[state]));
      // "adds half a point to it".
      expect(mean("removal + implant") - mean("removal")).toBeCloseTo(0.5, 1);
    }
    const draws = of(of20("hessian-trace + implant"), ({ accuracy }) => accuracy.pruned);
    const [third, ...two] = [...draws].sort((a, b) => a - b).map((share) => percent(share, 1));
    expect(readme).toContain(`two seeds have ${two.join(" and ")} as pruned, the third ${third}`);
    const line = /\| `([^`|]+)` (?:\| [\d.]+(?: ± [\d.]+)? ){2}(?:\| [\d.]+ ){2}\|/g;
    const quoted = [...readme.matchAll(line)];
    const figures = rows
      .flat()
      .filter(({ cell }) => cell.keep === 0.5)
      .map((row) =>
        [
          `\`${row.cell.method}\``,
          percents(of(row, ({ accuracy }) => accuracy.pruned)),
          percents(of(row, ({ accuracy }) => accuracy.tuned)),
          millions(
            of(row, ({ pruned }) => pruned.parameters),
            3,
          ),
          millions(of(row, ({ pruned }) => pruned.macs)),
        ].join(" | "),
      );
    expect(quoted.length).toBeGreaterThan(3);
    expect(quoted.map(([line]) => line).sort()).toEqual(
      figures.map((each) => `| ${each} |`).sort(),
    );
  });

  test("ResNet-56 at three tenths of its multiply-accumulates", async () => {
    const at = rowAt(await rowsOfTable("resnet56-cifar10"), 0.3);
    const accuracies = (method: string, between = " and ") =>
      (["pruned", "tuned"] as const)
        .map((state) => percents(of(at(method), ({ accuracy }) => accuracy[state])))
        .join(between);
    const { dense, pruned } = at("removal").results[0].latency[64];
    expect(readme).toContain(
      `the default score leaves ${accuracies("removal", " % as pruned and ")} after tuning, in batches of 64 ${(dense / pruned).toFixed(2)} times as fast; gradients ${accuracies("gradient")}, the trace ${accuracies("hessian-trace")}, magnitudes ${accuracies("magnitude")}.`,
    );
  });

  test("what decision 039 compares", async () => {
    const decision = await readFile(
      join(root, "docs/decisions/039-what-a-component-saves.md"),
      "utf8",
    );
    for (const [name, network, method, after] of [
      ["resnet56", "ResNet-56, 94.37 %", "hessian-trace", ""],
      ["resnet20", "ResNet-20, 92.60 %", "hessian-trace", " (three seeds)"],
      ["vgg16", "VGG-16, two trainings of 82.26 and 82.85 %", "removal", ""],
    ]) {
      const left = await leftBy(`${name}-cifar10`, 0.5);
      const figures = `${left(method)}${after} | ${left(`${method}, per saving`)}`;
      expect(decision).toContain(`| ${network} | \`${method}\` | ${figures} |`);
    }
  });

  test("what decision 040 compares", async () => {
    const decision = await readFile(
      join(root, "docs/decisions/040-what-other-channels-make-up-for.md"),
      "utf8",
    );
    const at = rowAt(await rowsOfTable("vgg16-cifar10"), 0.3);
    const asPruned = (method: string) =>
      percents(of(at(method), ({ accuracy }) => accuracy.pruned));
    const [{ dense }] = of(at("removal"), ({ accuracy }) => accuracy);
    expect(readme).toContain(
      `keeps ${asPruned("fitted-removal, per saving")} of its ${percent(dense)} %, nothing tuned, where gradients keep ${asPruned("gradient")} and the default ${asPruned("removal")}`,
    );
    for (const keep of [0.3, 0.5]) {
      const left = await leftBy("vgg16-cifar10", keep);
      const methods = ["removal", "gradient", "random", "fitted-removal, per saving"];
      const label = `${100 * keep} % of the multiply-accumulates`;
      expect(decision).toContain(`| ${[label, ...methods.map(left)].join(" | ")} |`);
    }
  });

  test("fidelity of estimators on ResNet-56", async () => {
    const directory = join(results, "fidelity");
    const cells = (await readdir(directory)).filter((name) => /^quick-resnet-56-.*seed/.test(name));
    const measured = await Promise.all(
      cells.map(async (name) => JSON.parse(await readFile(join(directory, name), "utf8"))),
    );
    const mean = (estimator: string, draws: number, key: string, decimals: number) => {
      const values = measured
        .filter(({ inputs }) => inputs.estimator === estimator && inputs.draws === draws)
        .map(({ result }) => result[key]);
      return meanOf(values).toFixed(decimals);
    };
    const of3 = `by ${mean("hutchinson", 3, "rankCorrelation", 2)} in ${mean("hutchinson", 3, "seconds", 1)} s`;
    const of300 = `reach ${mean("hutchinson", 300, "rankCorrelation", 2)} in ${mean("hutchinson", 300, "seconds", 0)} s`;
    expect(readme).toContain(
      `the exact traces take ${mean("exact", 0, "seconds", 1)} s. Three Hutchinson probes, as many as the paper's command line has, rank almost at random, ${of3}; 300, as its function has, ${of300}. \`probe\` has ${mean("probe", 1, "rankCorrelation", 3)} after one draw and ${mean("probe", 1, "seconds", 1)} s`,
    );
  });

  test("pruning beside Torch-Pruning", async () => {
    const files = await readdir(join(results, "peers"));
    const figures = async (program: string) => {
      const [file] = files.filter((name) => name.startsWith(`quick-pruning-${program}-`));
      const { result } = await read(`peers/${file.replace(".json", "")}`);
      return [percent(result.pruned.accuracy), percent(result.tuned)];
    };
    const [ours, ourTuned] = await figures("espalier-removal");
    const [magnitude, magnitudeTuned] = await figures("torch-pruning-magnitude");
    const [taylor, taylorTuned] = await figures("torch-pruning-taylor");
    expect(readme).toContain(
      `the default score leaves ${ours} % as pruned and ${ourTuned} after tuning, Torch-Pruning's magnitude ${magnitude} and ${magnitudeTuned}, its Taylor score ${taylor} and ${taylorTuned}.`,
    );
  });

  test("attention heads on GLUE, every method that it names", async () => {
    const table = await readTable(join(root, "benchmarks/tables/glue-heads.json"));
    const rows = rowsOf(await readMeasured(results, table, "quick"));
    const of40 = (data: string, method: string) =>
      rows.get(data)?.find(({ cell }) => cell.keep === 0.4 && cell.method === method) ??
      expect.unreachable(`${method} on ${data}`);
    const quoted = [...readme.matchAll(/\| `([^`|]+)` (?:\| [\d.]+ ± [\d.]+ ){4}\|/g)];
    expect(quoted).toHaveLength(6);
    for (const [line, method] of quoted) {
      const figures = ["glue/sst2", "glue/mrpc"].flatMap((data) =>
        (["pruned", "tuned"] as const).map((state) =>
          percents(of(of40(data, method), ({ accuracy }) => accuracy[state])),
        ),
      );
      expect(line).toBe(`| \`${method}\` | ${figures.join(" | ")} |`);
    }
    const mean = (data: string, method: string, state: "pruned" | "tuned" | "dense") =>
      100 * meanOf(of(of40(data, method), ({ accuracy }) => accuracy[state]));
    const dense = ["glue/sst2", "glue/mrpc"].map((data) => mean(data, "removal", "dense"));
    expect(readme).toContain(`dense ${dense.map((value) => value.toFixed(2)).join(" and ")} %`);
    const ahead = (method: string, data: string, state: "pruned" | "tuned") =>
      mean(data, method, state) - mean(data, "gradient", state);
    const trace = "hessian-trace + implant";
    const [above, below] = ["glue/mrpc", "glue/sst2"].map((data) =>
      (["tuned", "pruned"] as const).map((state) => Math.abs(ahead(trace, data, state)).toFixed(1)),
    );
    expect(readme).toContain(
      `its trace with implants is ${above[0]} points above gradients on MRPC and ${below[0]} below on SST-2, with three seeds each; straight after pruning ${above[1]} above and ${below[1]} below`,
    );
    for (const state of ["pruned", "tuned"] as const) {
      expect(ahead(trace, "glue/mrpc", state)).toBeGreaterThan(0);
      expect(ahead(trace, "glue/sst2", state)).toBeLessThan(0);
      // "The default score's means are above those of gradients in all four columns".
      for (const data of ["glue/mrpc", "glue/sst2"]) {
        expect(ahead("removal", data, state)).toBeGreaterThan(0);
      }
    }
  });
});
