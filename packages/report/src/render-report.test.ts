import {
  cp,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EspalierError, readJson, writeJsonAtomic } from "@espalier/base";
import type { BudgetsRecord, PlanRecord, SensitivityRecord, SizeRecord } from "@espalier/pipeline";
import { cifarResNet, resNet } from "@espalier/vision";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  evaluation,
  latency,
  renameGroup,
  syntheticTraining,
  writeSyntheticRun,
} from "../fixtures/synthetic-run.ts";
import type { PageData } from "./page-data.ts";
import { type Report, renderReport } from "./render-report.ts";
import type { Summary } from "./summary.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-report-"));
  await writeSyntheticRun(join(root, "half"), { ...resnet20, implant: 0.2, epochs: 3 });
});
afterAll(() => rm(root, { recursive: true, force: true }));

const resnet20 = { family: cifarResNet, preset: "resnet20-cifar10" };

/** A rendered run: its text, and its elements with a given data attribute. */
async function open(name: string) {
  const directory = join(root, name);
  const report: Report = await renderReport(directory);
  const html = await readFile(report.html, "utf8");
  return {
    report,
    html,
    card: await readFile(report.card, "utf8"),
    summary: (await readJson(report.summary)) as Summary,
    json: async <T>(file: string) => (await readJson(join(directory, file))) as T,
    elements: (attribute: string) => elementsWith(html, attribute),
    text: html.replaceAll(/<(style|script)\b.*?<\/\1>/gs, "").replaceAll(/<[^>]*>/g, " "),
    data: embeddedData(html),
  };
}

function embeddedData(html: string): PageData | undefined {
  const json = html.match(/<script type="application\/json" id="data">(.*?)<\/script>/s)?.[1];
  return json === undefined ? undefined : JSON.parse(json);
}

/** What happens to each component of a group, by its number. */
function decisionsOf({ components, decisions }: PageData["groups"][number]): string[] {
  const fates = decisions!.flatMap((length, i) =>
    new Array<string>(length).fill(["prune", "implant", "keep"][i % 3]),
  );
  return components.map((_, number) => fates[components.indexOf(number)]);
}

function elementsWith(html: string, attribute: string): Record<string, string>[] {
  return [...html.matchAll(/<\w+((?: [\w:-]+(?:="[^"]*")?)+)\/?>/g)]
    .map(([, attributes]) =>
      Object.fromEntries(
        [...attributes.matchAll(/ ([\w:-]+)(?:="([^"]*)")?/g)].map(([, key, value]) => [
          key,
          value,
        ]),
      ),
    )
    .filter((found) => attribute in found);
}

/** A copy of a finished run, for a test to change. */
async function copyRun(name: string): Promise<string> {
  const directory = join(root, name);
  await cp(join(root, "half"), directory, { recursive: true });
  return directory;
}

/** Changes the JSON in a file of a run. */
async function edit<T>(directory: string, file: string, change: (content: T) => unknown) {
  const path = join(directory, file);
  await writeJsonAtomic(path, change((await readJson(path)) as T));
}

/** The model card of the export of a finished run. */
const exportCard = (name: string) => readFile(join(root, name, "export/pruned/README.md"), "utf8");

describe("a finished run", () => {
  let page: Awaited<ReturnType<typeof open>>;
  beforeAll(async () => {
    page = await open("half");
  });

  test("is written atomically into the run directory", async () => {
    const names = ["report.html", "README.md", "summary.json"].map((name) =>
      join(root, "half", name),
    );
    expect(Object.values(page.report)).toEqual(names);
    expect(await readdir(join(root, "half"))).toEqual(
      expect.not.arrayContaining([expect.stringMatching(/partial/)]),
    );
  });

  test("shows the numbers of its files", async () => {
    const cells = Object.fromEntries(
      [...page.html.matchAll(/<tr data-row="([^"]+)">(.*?)<\/tr>/gs)].map(([, row, content]) => [
        row,
        elementsWith(content, "data-value").map((cell) => Number(cell["data-value"])),
      ]),
    );
    const sizes = await page.json<{ dense: SizeRecord; pruned: SizeRecord }>("sizes.json");
    expect(cells).toEqual({
      accuracy: [0.9353, 0.8761, 0.9377],
      loss: [0.2512, 0.4377, 0.2498],
      parameters: [sizes.dense.parameters, sizes.pruned.parameters],
      macs: [sizes.dense.macs, sizes.pruned.macs],
      "latency-1": [1.58, 1.02],
      "latency-64": [90.1, 92.2],
      checkpoint: [sizes.dense.checkpointBytes, sizes.pruned.checkpointBytes],
      onnx: [sizes.dense.onnxBytes, sizes.pruned.onnxBytes],
    });
  });

  test("compares them rightly", () => {
    const row = (name: string) =>
      page.html.match(new RegExp(`<tr data-row="${name}">(.*?)</tr>`, "s"))![1];
    const changes = (name: string) =>
      [...row(name).matchAll(/<small class="change">(.*?)<\/small>/g)].map(([, change]) => change);
    expect(changes("accuracy")).toEqual(["−5.92 points", "+0.24 points"]);
    expect(changes("loss")).toEqual(["+0.1865", "−0.0014"]);
    expect(changes("latency-1")).toEqual(["1.55× faster"]);
    expect(changes("latency-64")).toEqual(["1.02× slower, but the quartiles overlap"]);
    const { macs } = page.summary.sizes!;
    expect(changes("macs")).toEqual([`${(macs.dense / macs.pruned).toFixed(2)}× fewer`]);
    expect(page.card).toContain("| +0.24 points |");
  });

  test("shows every component once, with its score, its error and its decision", async () => {
    const sensitivity = await page.json<SensitivityRecord>("sensitivity.json");
    const plan = await page.json<PlanRecord>("plan.json");
    expect(page.data!.groups.map(({ name }) => name)).toEqual(Object.keys(plan.groups));
    for (const [k, { name, count, scores, standardErrors }] of sensitivity.groups.entries()) {
      const shown = page.data!.groups[k];
      const { implant, prune } = plan.groups[name];
      expect([...shown.components].sort((a, b) => a - b)).toEqual(scores.map((_, i) => i));
      shown.components.forEach((component, place) => {
        // Three digits are shown.
        expect(Number(shown.scores[place]) / scores[component]).toBeCloseTo(1, 2);
        expect(Number(shown.errors[place]) / standardErrors[component]!).toBeCloseTo(1, 2);
        if (place > 0) {
          expect(scores[component]).toBeGreaterThanOrEqual(scores[shown.components[place - 1]]);
        }
      });
      expect(decisionsOf(shown)).toEqual(
        scores.map((_, i) =>
          implant.includes(i) ? "implant" : prune.includes(i) ? "prune" : "keep",
        ),
      );
      expect(shown.levels.reduce((a, b) => a + b)).toBe(count);
    }
  });

  test("draws a dot and an error for each component", async () => {
    const panels = [...page.html.matchAll(/data-scores="\d+".*?<\/svg><\/svg>/gs)];
    expect(panels).toHaveLength(page.data!.groups.length);
    panels.forEach(([panel], k) => {
      const drawn = (kind: string) =>
        elementsWith(panel, "d")
          .filter((path) => path.class.startsWith(`${kind} `))
          .map((path) => path.d.split("M").length - 1)
          .reduce((a, b) => a + b);
      expect(drawn("dots")).toBe(page.data!.groups[k].components.length);
      expect(drawn("errors")).toBe(page.data!.groups[k].components.length);
    });
  });

  test("knows the plans of other budgets, and the run's among them", async () => {
    const { budgets } = await page.json<BudgetsRecord>("budgets.json");
    const plan = await page.json<PlanRecord>("plan.json");
    const { data, summary } = page;
    const run = data!.budgets.find(({ isRun }) => isRun)!;
    expect(run.facts).toMatchObject({
      share: "50 %",
      macs: plan.after.macs.toLocaleString("en"),
      parameters: plan.after.parameters.toLocaleString("en"),
      prune: String(summary.counts!.prune),
    });
    expect(run.groups).toEqual(data!.groups.map(({ decisions }) => decisions));
    const shares = data!.budgets.map(({ facts }) => Number.parseFloat(facts.share));
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(new Set([...budgets.map(({ keep }) => Number((100 * keep).toFixed(4))), 50])).toEqual(
      new Set(shares),
    );
    for (const { facts, groups } of data!.budgets) {
      const total = groups.flat().reduce((a, b) => a + b, 0);
      expect(total).toBe(448);
      expect(Number(facts.keep) + Number(facts.implant) + Number(facts.prune)).toBe(448);
    }
    const rows = elementsWith(page.html, "data-budget").map((row) => Number(row["data-budget"]));
    expect(rows.map((keep) => Number((100 * keep).toFixed(4)))).toEqual(shares);
  });

  test("counts every decision once", async () => {
    const plan = await page.json<PlanRecord>("plan.json");
    const rows = [...page.html.matchAll(/<tr data-group="([^"]+)">(.*?)<\/tr>/gs)];
    expect(rows.map(([, name]) => name)).toEqual(Object.keys(plan.groups));
    const total = { keep: 0, implant: 0, prune: 0 };
    for (const [, name, content] of rows) {
      const { components, implant, prune } = plan.groups[name];
      const [keep, replaced, removed] = elementsWith(content, "data-count").map((cell) =>
        Number(cell["data-value"]),
      );
      expect([keep + replaced + removed, replaced, removed]).toEqual([
        components,
        implant.length,
        prune.length,
      ]);
      total.keep += keep;
      total.implant += replaced;
      total.prune += removed;
    }
    expect(page.summary.counts).toEqual(total);
    expect(page.text).toContain(
      `${total.keep} were kept, ${total.implant} replaced by implants and ${total.prune} removed`,
    );
  });

  test("shows the width of every layer", async () => {
    const { pruning } = await page.json<{
      pruning: { channels: Record<string, number[]>; implants: Record<string, number> };
    }>("model/config.json");
    const shown = page.elements("data-layer");
    expect(shown).toHaveLength(21);
    for (const layer of shown) {
      const name = layer["data-layer"];
      const before = name.startsWith("layer3") ? 64 : name.startsWith("layer2") ? 32 : 16;
      expect(Number(layer["data-before"])).toBe(before);
      expect(Number(layer["data-after"])).toBe(pruning.channels[name]?.length ?? before);
      expect(Number(layer["data-implants"])).toBe(pruning.implants[name] ?? 0);
    }
  });

  test("shows the course of tuning and the measured times", () => {
    expect(
      page.elements("data-epoch").map((mark) => ({
        epoch: Number(mark["data-epoch"]),
        training: Number(mark["data-training"]),
      })),
    ).toEqual([
      ...syntheticTraining(3).map(({ epoch, loss }) => ({ epoch, training: loss })),
      ...syntheticTraining(3).map(({ epoch, trainAccuracy }) => ({
        epoch,
        training: trainAccuracy,
      })),
      ...syntheticTraining(3).map(({ epoch }) => ({ epoch, training: Number.NaN })),
    ]);
    expect(page.elements("data-quartiles").map((mark) => mark["data-quartiles"])).toEqual(
      Object.values(latency.batches).flatMap(({ dense, pruned }) =>
        [dense, pruned].map(({ quartiles }) => quartiles.join(" ")),
      ),
    );
  });

  test("has them all in summary.json", () => {
    expect(page.summary.evaluation?.tuned).toMatchObject(evaluation.tuned);
    expect(page.summary.latency?.batches.map(({ batch }) => batch)).toEqual([1, 64]);
    expect(page.summary.training).toEqual(syntheticTraining(3));
  });

  test("links to files that are there", async () => {
    const links = page.elements("href").map(({ href }) => href);
    for (const link of links.filter((href) => !href.startsWith("#"))) {
      await expect(stat(join(root, "half", link)), link).resolves.toBeDefined();
    }
    expect(links).toContain("export/pruned/onnx/model.onnx");
  });

  test("needs nothing else, and has no two elements of one name", () => {
    expect(page.html).not.toMatch(/(src|href)="(https?:)?\/\//);
    expect(page.html).not.toContain("@import");
    const ids = page.elements("id").map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { href } of page.elements("href").filter(({ href }) => href.startsWith("#"))) {
      expect(ids).toContain(href.slice(1));
    }
    const levels = [...page.html.matchAll(/<h(\d)/g)].map(([, level]) => Number(level));
    expect(levels[0]).toBe(1);
    for (const [i, level] of levels.slice(1).entries()) {
      expect(level - levels[i]).toBeLessThanOrEqual(1);
    }
  });

  test("makes a card with a head for model hubs", () => {
    const [, head, body] = page.card.match(/^---\n(.*?)\n---\n(.*)$/s)!;
    expect(head).toContain("# license:");
    expect(head).toContain("pipeline_tag: image-classification");
    expect(head).toContain("      value: 0.9377");
    expect(body).toContain("| Accuracy | 93.53 % | 87.61 % | 93.77 % |");
    expect(body).toContain("espalier prune resnet20-cifar10:weights.pt");
    expect(body).not.toContain("checkpoints/");
  });

  test("says in its cards which weights the figures are of", async () => {
    expect(page.card).toContain("All figures are of float32 weights.");
    expect(await exportCard("half")).toContain("All figures are of float32 weights.");
  });
});

describe("other runs", () => {
  test("of several rounds: what became of the first round's components", async () => {
    await writeSyntheticRun(join(root, "rounds"), {
      ...resnet20,
      rounds: 2,
      implant: 0.2,
      coupling: "apart",
    });
    const { summary, json, text, data, html } = await open("rounds");
    expect(data!.budgets).toEqual([]);
    expect(html).not.toContain('id="budget"');
    expect(text).toContain("Other budgets are not shown");
    type Config = {
      pruning: { channels: Record<string, number[]>; implants: Record<string, number> };
    };
    const { pruning } = await json<Config>("model/config.json");
    for (const { name, decisions } of summary.groups) {
      const channels = pruning.channels[name];
      const whole = channels.length - (pruning.implants[name] ?? 0);
      expect(decisions).toEqual(
        decisions!.map((_, channel) => {
          const place = channels.indexOf(channel);
          return place < 0 ? "prune" : place < whole ? "keep" : "implant";
        }),
      );
    }
    expect(summary.rounds).toHaveLength(2);
    expect(text).toContain("before the first round");
  });

  test.each([false, true])("of several rounds, of a model pruned before: %s", async (again) => {
    const name = `rounds-${again}`;
    await writeSyntheticRun(join(root, name), { ...resnet20, rounds: 2, implant: 0.2, again });
    const { summary, json } = await open(name);
    const { after } = await json<PlanRecord>("rounds/2/plan.json");
    const { before } = await json<PlanRecord>("rounds/1/plan.json");
    const { keep, implant, prune } = summary.counts!;
    expect({ keep, implant, prune }).toEqual({
      keep: after.components - after.implants,
      implant: after.implants,
      prune: before.components - after.components,
    });
  });

  test("without tuning: two models", async () => {
    await writeSyntheticRun(join(root, "untuned"), resnet20);
    const { html, text } = await open("untuned");
    expect(elementsWith(html, "data-model").map((cell) => cell["data-model"])).not.toContain(
      "tuned",
    );
    expect(text).toContain("0 epochs");
    expect(text).not.toContain("after tuning");
  });

  test("with scores below zero", async () => {
    await writeSyntheticRun(join(root, "noisy"), { ...resnet20, noisy: true });
    const { text, summary } = await open("noisy");
    const { negative, components } = summary.sensitivity!;
    expect(negative).toBeGreaterThan(0);
    expect(text).toContain(`${negative} of ${components} scores are below zero`);
    expect(text).toContain("much of the order is chance");
    expect(text).toContain("≤ 0");
  });

  test("that follow a plan, without scores", async () => {
    const directory = await copyRun("followed");
    const manifest = (await readJson(join(directory, "run.json"))) as object;
    const plan = await readJson(join(directory, "plan.json"));
    await writeJsonAtomic(join(directory, "run.json"), { ...manifest, plan });
    await rm(join(directory, "sensitivity.json"));
    const { text, summary, data } = await open("followed");
    expect(text).toContain("nothing was scored");
    expect(data).toBeUndefined();
    expect(summary.counts).toBeDefined();
    expect(summary.command).toContain("--plan followed/plan.json");
  });

  test("of sensitivity alone", async () => {
    const directory = join(root, "scores");
    const settings = { metric: "removal", estimator: "auto", temperature: 4, samples: 512 };
    await writeJsonAtomic(join(directory, "run.json"), {
      ...{ command: "sensitivity", source: "runs/net/", sha256: "ab", data: "cifar10" },
      ...{ executor: "onnx:cpu", settings, seed: 0, batchSize: 64 },
    });
    await cp(join(root, "half/sensitivity.json"), join(directory, "sensitivity.json"));
    const { text, card, data } = await open("scores");
    expect(data!.groups.flatMap(({ components }) => components)).toHaveLength(448);
    expect(data!.groups[0].decisions).toBeUndefined();
    expect(data!.budgets).toEqual([]);
    expect(text).toContain("Sensitivity of net");
    expect(text).toContain("the rank correlation to expect with as many other samples");
    expect(text).toContain("512  of cifar10");
    expect(text).not.toContain("What was removed");
    expect(card).not.toContain("model-index");
  });

  test.each(["magnitude", "random"])("of %s, which looks at no data", async (metric) => {
    const directory = join(root, metric);
    await writeJsonAtomic(join(directory, "run.json"), {
      ...{ command: "sensitivity", source: "runs/net/", sha256: "ab", data: "cifar10" },
      ...{ executor: "onnx:cpu", settings: { metric }, seed: 0, batchSize: 64 },
    });
    await cp(join(root, "half/sensitivity.json"), join(directory, "sensitivity.json"));
    await edit<SensitivityRecord>(directory, "sensitivity.json", ({ estimator: _, ...record }) => ({
      ...record,
      ...{ metric, samples: 0, draws: 0, rankStability: 1 },
    }));
    const { text, card } = await open(metric);
    expect(text).toContain("What would be lost without each component of");
    expect(text).not.toContain("of cifar10");
    expect(text).toContain("measured again, the ranking would be the same");
    expect(card).toContain("Scores of the model's components, measured with Espalier");
  });

  test("of texts: heads and neurons, and nothing augmented", async () => {
    const directory = await copyRun("texts");
    await writeJsonAtomic(join(directory, "model/config.json"), {
      ...{ model_type: "bert", vocab_size: 100, id2label: { 0: "no", 1: "yes" } },
    });
    await edit<SensitivityRecord>(directory, "sensitivity.json", ({ groups, ...record }) => ({
      ...record,
      groups: groups.map((group, i) => ({ ...group, kind: i % 2 === 0 ? "head" : "neuron" })),
    }));
    await edit<PlanRecord>(directory, "plan.json", ({ groups, ...plan }) => ({
      ...plan,
      groups: Object.fromEntries(
        Object.entries(groups).map(([name, group]) => [name, { ...group, implantRank: 4 }]),
      ),
    }));
    const { text, html, card } = await open("texts");
    expect(text).toContain("its height is the number of its heads or neurons.");
    expect(html).toMatch(/<title>layer1\.0\.conv1: 16 → \d+ neurons/);
    expect(html).toMatch(/<desc [^>]*>\d+ layers with \d+ heads or neurons before and /);
    expect(text).not.toContain("augmented");
    expect(text).not.toContain("channel");
    expect(card).toContain("The width is the number of heads or neurons.");
    expect(card).not.toMatch(/channel/i);
  });

  test("of images are trained on augmented samples, for one epoch or more", async () => {
    await writeSyntheticRun(join(root, "short-tuning"), { ...resnet20, epochs: 1 });
    const { text, html } = await open("short-tuning");
    expect(text).toContain("over the steps of the epoch, on augmented samples;");
    expect(html).toContain(">1 epoch: loss from");
  });

  test("whose dense model was trained first show both trainings", async () => {
    const directory = await copyRun("trained-first");
    await writeJsonAtomic(join(directory, "dense-training.json"), syntheticTraining(2));
    await writeJsonAtomic(join(directory, "dense/config.json"), { model_type: "cifar-resnet" });
    const { elements, summary } = await open("trained-first");
    expect(summary.denseTraining).toEqual(syntheticTraining(2));
    expect(elements("data-epoch")).toHaveLength(3 * (2 + 3));
    const links = elements("href").map(({ href }) => href);
    expect(links).toEqual(expect.arrayContaining(["dense-training.json", "dense/config.json"]));
    const ids = elements("id").map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test.each([
    ["cifar10:images", false, true],
    ["cifar10:images", true, false],
    ["cifar10", undefined, false],
    ["imagefolder:images", false, false],
    ["glue/sst2", false, false],
  ])("of %s, verified: %s, have other files: %s", async (data, verified, others) => {
    const directory = await copyRun("unverified");
    await edit<object>(directory, "run.json", (manifest) => ({ ...manifest, data, verified }));
    const { text, card } = await open("unverified");
    for (const said of [text, card, await exportCard("unverified")]) {
      expect(said.includes("The files are not those of the published data set.")).toBe(others);
    }
    expect(card.includes("model-index")).toBe(!others);
  });

  test("with settings that the command has no options for", async () => {
    const directory = await copyRun("without-command");
    await edit<{ settings: object }>(directory, "run.json", (manifest) => ({
      ...manifest,
      settings: { ...manifest.settings, other: 1 },
    }));
    const { card } = await open("without-command");
    expect(card).toContain("The settings are in [run.json](run.json).");
    const exported = await exportCard("without-command");
    expect(exported).toContain("its `run.json` has them all");
    expect(exported).not.toContain("(run.json)");
  });

  test.each(["export", "export/pruned"])("whose %s is a link: it is left alone", async (name) => {
    const directory = await copyRun(`linked-${name.length}`);
    const elsewhere = join(root, `elsewhere-${name.length}`);
    await rename(join(directory, name), elsewhere);
    await symlink(elsewhere, join(directory, name));
    const card = join(directory, "export/pruned/README.md");
    await writeFile(card, "mine");
    await renderReport(directory);
    expect(await readFile(card, "utf8")).toBe("mine");
  });

  test("of training", async () => {
    const directory = join(root, "trained");
    await writeJsonAtomic(join(directory, "run.json"), {
      ...{ command: "train", source: "resnet20-cifar10", data: "cifar10", executor: "onnx:cpu" },
      ...{ settings: { epochs: 2, batchSize: 128 }, seed: 0 },
    });
    await writeJsonAtomic(join(directory, "training.json"), syntheticTraining(2));
    await writeJsonAtomic(join(directory, "evaluation.json"), evaluation.dense);
    const { text, html } = await open("trained");
    expect(text).toContain("93.53 %");
    expect(elementsWith(html, "data-epoch")).toHaveLength(6);
  });
});

describe("unfinished runs", () => {
  test.each([
    ["latency.json", "nothing has been timed"],
    ["sizes.json", "the models have not been exported"],
    ["evaluation.json", "the models have not been judged"],
    ["training.json", "the last epoch has not been reached"],
    ["plan.json", "0 of 1 plans have been made"],
    ["sensitivity.json", "no component has been scored"],
  ])("without %s say so", async (file, meaning) => {
    const directory = await copyRun(`without-${file}`);
    await rm(join(directory, file));
    const { text } = await open(`without-${file}`);
    expect(text.replaceAll(/\s+/g, " ")).toContain(`${file} is not there (yet): ${meaning}.`);
  });

  test("without budgets.json have no slider", async () => {
    const directory = await copyRun("without-budgets");
    await rm(join(directory, "budgets.json"));
    const { html, data } = await open("without-budgets");
    expect(html).not.toContain('id="budget"');
    expect(html).not.toContain("budgets.json");
    expect(data!.groups).not.toEqual([]);
  });

  test("that have only begun have a page", async () => {
    const directory = join(root, "begun");
    await cp(join(root, "half/run.json"), join(directory, "run.json"));
    const { text, summary, card } = await open("begun");
    expect(text).toContain("Pruning of resnet20-cifar10:weights.pt");
    const unfinished = "The run is unfinished: the model is to be tuned for 3 epochs.";
    expect(text).toContain(unfinished);
    expect(card).toContain(unfinished);
    expect(card).toContain("\nA network for `cifar10`, made from ");
    expect(card).not.toContain("tuned for 3 epochs with");
    expect(summary.groups).toEqual([]);
  });

  test("of training do not claim any", async () => {
    const directory = join(root, "untrained");
    await writeJsonAtomic(join(directory, "run.json"), {
      ...{ command: "train", source: "resnet20-cifar10", data: "cifar10", executor: "onnx:cpu" },
      ...{ settings: { epochs: 2, batchSize: 128 }, seed: 0 },
    });
    const { text, card } = await open("untrained");
    expect(text).toContain("resnet20-cifar10, to be trained from scratch for 2 epochs.");
    expect(card).toContain("A network to be trained from scratch on `cifar10` for 2 epochs");
  });

  test.each([true, false])("killed before the end of tuning, judged: %s", async (judged) => {
    const name = `killed-${judged}`;
    const directory = await copyRun(name);
    for (const file of ["training.json", "sizes.json", "latency.json", "model", "export"]) {
      await rm(join(directory, file), { recursive: true });
    }
    if (!judged) await rm(join(directory, "evaluation.json"));
    const { text, card } = await open(name);
    for (const said of [text, card]) {
      expect(said.includes("It was then tuned for 3 epochs.")).toBe(judged);
      expect(said.includes("the model is to be tuned for 3 epochs.")).toBe(!judged);
    }
  });
});

describe("malformed files", () => {
  test.each([
    ["run.json", "{", /run\.json: expected JSON/],
    [
      "run.json",
      { command: "fly" },
      /run\.json: command: expected prune or sensitivity or train, got "fly"$/,
    ],
    [
      "sensitivity.json",
      { metric: "removal" },
      /sensitivity\.json: temperature: expected a finite number, got nothing$/,
    ],
    ["plan.json", [], /plan\.json: expected an object, got \[\]$/],
    [
      "training.json",
      [{ epoch: "one" }],
      /training\.json: \[0\]\.epoch: expected a whole number, got "one"$/,
    ],
    [
      "evaluation.json",
      { data: "cifar10", dense: 5 },
      /evaluation\.json: dense: expected an object, got 5$/,
    ],
    [
      "latency.json",
      {
        executor: "x",
        machine: { processor: "y", threads: 1, runtime: "z" },
        batches: { 1: { dense: { median: "1e999" } } },
      },
      /latency\.json: batches\.1\.dense\.median: expected a finite number/,
    ],
    [
      "sizes.json",
      { dense: { parameters: 1, macs: 0 } },
      /sizes\.json: dense\.macs: expected a whole number above 0, got 0$/,
    ],
    [
      "model/config.json",
      { model_type: 3 },
      /model\/config\.json: model_type: expected a string, got 3$/,
    ],
    [
      "budgets.json",
      { budgets: [{ keep: 0.5, after: {} }] },
      /budgets\.json: budgets\[0\]\.after\.parameters: expected a whole number, got nothing$/,
    ],
  ] as const)("%s, case %#", async (file, content, message) => {
    const directory = await copyRun("malformed");
    const text = typeof content === "string" ? content : JSON.stringify(content);
    await writeFile(join(directory, file), text);
    const error = await renderReport(directory).catch((caught: unknown) => caught);
    expect(EspalierError.isInstance(error, "invalid-file")).toBe(true);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).not.toContain("\n");
  });

  test("scores that do not fit their group", async () => {
    const directory = await copyRun("short");
    const path = join(directory, "sensitivity.json");
    const record = (await readJson(path)) as { groups: { scores: number[] }[] };
    record.groups[1].scores.pop();
    await writeJsonAtomic(path, record);
    await expect(renderReport(directory)).rejects.toThrow(
      /sensitivity\.json: group "layer1\.0\.conv1": expected 16 numbers in each list, got 15$/,
    );
  });

  test.each([
    ["a component too many", [1, 0, 16]],
    ["a group left out", undefined],
  ])("budgets with %s", async (_, runs) => {
    const directory = await copyRun("wrong-budgets");
    const path = join(directory, "budgets.json");
    const record = (await readJson(path)) as { budgets: { groups: Record<string, unknown> }[] };
    record.budgets[1].groups["layer1.0.conv1"] = runs;
    await writeJsonAtomic(path, record);
    await expect(renderReport(directory)).rejects.toThrow(
      /budgets\.json: budgets\[1\]: group "layer1\.0\.conv1": expected decisions on 16 components, got \d+$/,
    );
  });

  test.each([
    ["plan.json", "groups", /groups\."\\u001b\[2J": expected an object, got 1$/],
    ["model/config.json", "id2label", /id2label\."[^"]*": expected a string, got 1$/],
  ])("what steers a terminal in the keys of %s", async (file, field, message) => {
    const directory = await copyRun("steered");
    await edit<object>(directory, file, (content) => ({ ...content, [field]: { "\u001b[2J": 1 } }));
    const error = (await renderReport(directory).catch((caught: unknown) => caught)) as Error;
    expect(error.message).toMatch(message);
    expect(error.message).not.toMatch(/\p{Cc}/u);
  });

  test("what steers a terminal in values and names of groups", async () => {
    const directory = await copyRun("steered-names");
    await edit<{ groups: { name: string; scores: number[] }[] }>(
      directory,
      "sensitivity.json",
      (record) => {
        record.groups[1].name = "\u001b[31m\u009bJ";
        record.groups[1].scores.pop();
        return record;
      },
    );
    await expect(renderReport(directory)).rejects.toThrow(
      /group "\\u001b\[31m\\u\{9b\}J": expected 16 numbers in each list, got 15$/,
    );
    await writeJsonAtomic(join(directory, "run.json"), { command: "\u009b2J" });
    await expect(renderReport(directory)).rejects.toThrow(/, got "\\u\{9b\}2J"$/);
  });

  test("a plan of more components than any network has", async () => {
    const directory = await copyRun("boundless");
    await edit<object>(directory, "run.json", (manifest) => ({ ...manifest, plan: {} }));
    await rm(join(directory, "sensitivity.json"));
    const plan = (await readJson(join(directory, "plan.json"))) as object;
    for (const [components, layers] of [
      [2 ** 53 - 1, []],
      [2 ** 20, new Array<string>(5).fill("a.weight")],
    ] as const) {
      const groups = { a: { layers, components, implant: [], prune: [] } };
      await writeJsonAtomic(join(directory, "plan.json"), { ...plan, groups });
      const error = await renderReport(directory).catch((caught: unknown) => caught);
      expect(EspalierError.isInstance(error, "invalid-file")).toBe(true);
      expect((error as Error).message).toMatch(/plan\.json: group "a": expected at most 4194304 /);
    }
  });

  test("a group of no components", async () => {
    const directory = await copyRun("nobody");
    const none = { count: 0, rows: [], scores: [], standardErrors: [] };
    await edit<SensitivityRecord>(directory, "sensitivity.json", ({ groups, ...record }) => ({
      ...record,
      groups: groups.map((group, i) => (i === 1 ? { ...group, ...none } : group)),
    }));
    await expect(renderReport(directory)).rejects.toThrow(
      /sensitivity\.json: groups\[1\]\.count: expected a whole number above 0, got 0$/,
    );
  });

  test.each([
    [{ count: 0 }, /tuned\.count: expected a whole number above 0, got 0$/],
    [{ accuracy: 1.9 }, /tuned\.accuracy: expected a number from 0 to 1, got 1\.9$/],
    [{ accuracy: -0.1 }, /tuned\.accuracy: expected a number from 0 to 1, got -0\.1$/],
  ])("an evaluation with %j", async (wrong, message) => {
    const directory = await copyRun("misjudged");
    const tuned = { ...evaluation.tuned, ...wrong };
    await writeJsonAtomic(join(directory, "evaluation.json"), { ...evaluation, tuned });
    const error = await renderReport(directory).catch((caught: unknown) => caught);
    expect(EspalierError.isInstance(error, "invalid-file")).toBe(true);
    expect((error as Error).message).toMatch(message);
  });

  test("correlations may be below zero", async () => {
    const directory = await copyRun("correlated");
    const config = { model_type: "bert", problem_type: "regression" };
    await writeJsonAtomic(join(directory, "model/config.json"), config);
    const judge = (accuracy: number) =>
      writeJsonAtomic(join(directory, "evaluation.json"), {
        ...evaluation,
        tuned: { ...evaluation.tuned, accuracy },
      });
    await judge(-0.1);
    await expect(renderReport(directory)).resolves.toBeDefined();
    await judge(-1.1);
    await expect(renderReport(directory)).rejects.toThrow(/a number from -1 to 1, got -1\.1$/);
  });

  test("a directory that is no run", async () => {
    await expect(renderReport(join(root, "nowhere"))).rejects.toMatchObject({
      code: "missing-file",
    });
  });
});

test("foreign text stays text", async () => {
  const evil = `</script><img src=x onerror=alert(1)>"'\`\`\`|`;
  const directory = await copyRun("evil");
  const edit = async (file: string, change: (value: never) => unknown) => {
    const path = join(directory, file);
    await writeJsonAtomic(path, change((await readJson(path)) as never));
  };
  await edit("run.json", (manifest: object) => ({
    ...manifest,
    ...{ source: evil, sha256: evil, data: evil, executor: evil },
  }));
  await edit("model/config.json", (config: object) => ({
    ...config,
    ...{ model_type: evil, [evil]: evil, id2label: { 0: evil } },
  }));
  await edit("latency.json", (record: object) => ({ ...record, executor: evil }));
  await renameGroup(directory, "layer1.0.conv1", evil);
  const { html, card, elements, data } = await open("evil");
  expect(data!.groups[1].name).toBe(evil);
  expect(html).toContain("&lt;img src=x onerror=alert(1)&gt;");
  expect(html).not.toContain("<img");
  // The page's own, and its data.
  expect(html.match(/<script/g)).toHaveLength(2);
  expect(html.match(/<\/script/g)).toHaveLength(2);
  expect(elements("onerror")).toEqual([]);
  // In Markdown, it is in spans and blocks of code, whose fences are longer than its own.
  const outside = card
    .replaceAll(/^(`{3,})[^`\n]*\n.*?\n\1$/gms, "")
    .replace(/^---\n.*?\n---\n/s, "")
    .replaceAll(/(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)/g, "");
  expect(outside).not.toContain("<img");
});

test("the page of a ResNet-50 with all its components is light", async () => {
  await writeSyntheticRun(join(root, "large"), {
    family: resNet,
    preset: "resnet50-imagenet",
    coupling: "apart",
    implant: 0.2,
    budgets: [0.3, 0.7],
  });
  const { report, data } = await open("large");
  expect(data!.groups.flatMap(({ components }) => components)).toHaveLength(26_560);
  expect((await stat(report.html)).size).toBeLessThan(2_500_000);
});
