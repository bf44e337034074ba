import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Model } from "@espalier/core";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { cifarResNet } from "@espalier/vision";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { noiseTask } from "../fixtures/noise-task.ts";
import type { PipelineEvent } from "./events.ts";
import { type PruneRequest, prune } from "./prune.ts";
import type { RunContext } from "./run-context.ts";
import { scoreModel } from "./score.ts";
import { defaultPruning, type PruneSettings } from "./settings.ts";
import { loadSource } from "./source.ts";
import { trainModel } from "./train-model.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-score-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const at = (...names: string[]) => join(root, ...names);
const read = (...names: string[]) => readFile(at(...names), "latin1");
const model = tinyResNet();
const source = { model, path: "/nowhere/weights", sha256: "0" };
const task = noiseTask(model, noiseSamples);
const context: RunContext = {
  families: [cifarResNet],
  executor: createOnnxExecutor({ threads: 1 }),
  task,
};
const fresh = { resume: false, overwrite: false };
const defaults = defaultPruning({ of: "macs", keep: 0.6 });
const sensitivity = { ...defaults.sensitivity, samples: 16 };
const tune = { ...defaults.tune, epochs: 0, validation: 8 };

/** Prunes to a share of the multiply-accumulates; gives what it said of its progress. */
async function run(
  name: string,
  keep: number,
  request: Partial<PruneRequest> = {},
  settings: Partial<PruneSettings> = {},
  others: Partial<RunContext> = {},
): Promise<PipelineEvent[]> {
  const events: PipelineEvent[] = [];
  const plan = { ...defaults.plan, budget: { of: "macs" as const, keep }, roundTo: 1 };
  await prune(
    {
      ...{ source, sourceName: "weights", directory: at(name), ...fresh },
      settings: { ...defaults, sensitivity, plan, calibration: 8, tune, ...settings },
      ...request,
    },
    { ...context, onEvent: (event) => events.push(event), ...others },
  );
  return events;
}

const measures = (events: readonly PipelineEvent[]) =>
  events.some((event) => event.type === "progress" && event.stage === "sensitivity");

beforeAll(async () => {
  expect(measures(await run("half", 0.5))).toBe(true);
});

describe("a run with the scores of another", () => {
  const files = ["run.json", "sensitivity.json", "plan.json", "digests.json", "evaluation.json"];

  test("ends in the files of one that measures them", async () => {
    await run("measured", 0.3);
    expect(measures(await run("taken", 0.3, { scores: at("half") }))).toBe(false);
    for (const file of files) expect(await read("taken", file)).toBe(await read("measured", file));
    expect(await read("taken/plan.json")).not.toBe(await read("half/plan.json"));
  });

  test("may be of a run of scores alone", async () => {
    await scoreModel(
      {
        ...{ source, sourceName: "weights", settings: sensitivity, directory: at("scores") },
        ...{ holdOut: 8, seed: 0, batchSize: 64, ...fresh },
      },
      context,
    );
    expect(await read("scores/sensitivity.json")).toBe(await read("half/sensitivity.json"));
    expect(measures(await run("after", 0.3, { scores: at("scores") }))).toBe(false);
  });

  test("takes and gives those of the first of several rounds", async () => {
    const events = await run("rounds", 0.3, { scores: at("half") }, { rounds: 2 });
    // Of the second round.
    expect(measures(events)).toBe(true);
    expect(await read("rounds/rounds/1/sensitivity.json")).toBe(
      await read("half/sensitivity.json"),
    );
    expect(measures(await run("again", 0.5, { scores: at("rounds") }))).toBe(false);
  });
});

test("of a model that a run has trained first are scores of that model", async () => {
  const tuneDense = { ...tune, epochs: 1, batchSize: 8 };
  await run("dense", 0.5, {}, { tuneDense });
  const trained = await loadSource(at("dense/dense"), [cifarResNet]);
  const again = { source: trained, sourceName: "dense" };
  await run("first", 0.3, again);
  expect(measures(await run("second", 0.3, { ...again, scores: at("dense") }))).toBe(false);
  expect(await read("second/sensitivity.json")).toBe(await read("first/sensitivity.json"));
  await expect(run("third", 0.3, { scores: at("dense") })).rejects.toThrow(/had sha256/);
  await expect(run("third", 0.3, { scores: at("dense") }, { tuneDense })).rejects.toThrow(
    /^scores: expected a model that has scores, got one that is to be trained first/,
  );
});

describe("scores are not taken", () => {
  const refused = async (
    message: RegExp,
    request: Partial<PruneRequest>,
    settings: Partial<PruneSettings> = {},
    others: Partial<RunContext> = {},
  ) => {
    const asked = { scores: at("half"), ...request };
    await expect(run("refused", 0.3, asked, settings, others)).rejects.toThrow(message);
    await expect(readFile(at("refused"))).rejects.toMatchObject({ code: "ENOENT" });
  };

  test.each<[string, RegExp, Partial<PruneSettings>]>([
    [
      "metric",
      /had sensitivity\.metric "removal", now it is "gradient"$/,
      {
        sensitivity: { ...sensitivity, metric: "gradient" },
      },
    ],
    [
      "kinds",
      /had sensitivity\.kinds nothing, now it is \["channel"\]$/,
      {
        sensitivity: { ...sensitivity, kinds: ["channel"] },
      },
    ],
    ["seed", /had seed 0, now it is 1$/, { seed: 1 }],
    ["held out samples", /had holdOut 8, now it is 4$/, { tune: { ...tune, validation: 4 } }],
  ])("of another %s", (_, message, settings) => refused(message, {}, settings));

  test("of another model, other data and another device", async () => {
    const half = /half\/run\.json: the run to take scores from had /;
    await refused(new RegExp(`${half.source}sha256 "0", now it is "1"$`), {
      source: { ...source, sha256: "1" },
    });
    const preprocessing = { ...model.preprocessing, mean: [0, 0, 1] } as Model["preprocessing"];
    const shifted = Object.create(model, { preprocessing: { value: preprocessing } }) as Model;
    await refused(new RegExp(`${half.source}inputDigest `), {
      source: { ...source, model: shifted },
    });
    const other = { ...task, digest: async () => "other" };
    await refused(/dataDigest "noise", now it is "other"$/, {}, {}, { task: other });
    const executor = { ...context.executor, name: "other:cpu" };
    await refused(/executor "onnx:cpu", now it is "other:cpu"$/, {}, {}, { executor });
  });

  test("from what has none", async () => {
    const settings = { ...tune, batchSize: 16 };
    await trainModel(
      {
        ...{ source: at("half"), settings, seed: 0, batchSize: 16, directory: at("trained") },
        ...fresh,
      },
      context,
    );
    await refused(/trained\/run\.json: expected a run of prune or sensitivity.*command/, {
      scores: at("trained"),
    });
    await refused(/nowhere\/run\.json: no such file/, { scores: at("nowhere") });
    const plan = { record: JSON.parse(await read("half/plan.json")), path: at("half/plan.json") };
    await run("planned", 0.5, { plan });
    await refused(/planned\/sensitivity\.json: expected the scores of a run, which has not/, {
      scores: at("planned"),
    });
  });

  test("if they are of other components, or no scores", async () => {
    await run("edited", 0.5);
    const record = JSON.parse(await read("edited/sensitivity.json"));
    const write = (value: unknown) =>
      writeFile(at("edited/sensitivity.json"), JSON.stringify(value));
    await write({ ...record, groups: record.groups.slice(1) });
    await refused(/edited\/sensitivity\.json: expected scores and errors of the/, {
      scores: at("edited"),
    });
    await write({ ...record, metric: "gradient" });
    await refused(/edited\/sensitivity\.json: expected scores with the metric removal of the run/, {
      scores: at("edited"),
    });
    const rowless = record.groups.map(({ rows: _, ...group }: { rows: unknown }) => group);
    await write({ ...record, groups: rowless });
    await run("rowless", 0.3, { scores: at("edited") });
    expect(JSON.parse(await read("rowless/sensitivity.json")).groups[0].rows).toBeDefined();
    await write({ ...record, metric: "beauty" });
    await refused(/edited\/sensitivity\.json: metric/, { scores: at("edited") });
  });

  test("if the run that has them would be overwritten", async () => {
    const over = { scores: at("half"), overwrite: true };
    await expect(run("half", 0.3, over)).rejects.toMatchObject({ code: "invalid-argument" });
    expect(await read("half/run.json")).toContain('"keep": 0.5');
  });
});
