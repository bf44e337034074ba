import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EspalierError } from "@espalier/base";
import { componentGroups, type Model } from "@espalier/core";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { cifarResNet } from "@espalier/vision";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { noiseTask } from "../fixtures/noise-task.ts";
import type { PipelineEvent } from "./events.ts";
import { type PruneRequest, type PruneResult, prune } from "./prune.ts";
import type { RunContext } from "./run-context.ts";
import { defaultPruning, type PruneSettings } from "./settings.ts";
import { loadSource } from "./source.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-prune-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const at = (...names: string[]) => join(root, ...names);
const model = tinyResNet();
const executor = createOnnxExecutor({ threads: 1 });
const task = noiseTask(model, noiseSamples);

/** One epoch after pruning by magnitude, in steps of 16 samples. */
function run(
  name: string,
  request: Partial<PruneRequest> = {},
  settings: Partial<PruneSettings> = {},
  context: Partial<RunContext> = {},
): Promise<PruneResult> {
  const defaults = defaultPruning({ of: "macs", keep: 0.6 });
  return prune(
    {
      source: { model, path: at("weights"), sha256: "0" },
      sourceName: "weights",
      settings: {
        ...defaults,
        sensitivity: { ...defaults.sensitivity, metric: "magnitude", samples: 8 },
        plan: { ...defaults.plan, roundTo: 1 },
        calibration: 8,
        tune: { ...defaults.tune, epochs: 1, batchSize: 16, validation: 8 },
        ...settings,
      },
      directory: at(name),
      ...{ resume: false, overwrite: false },
      ...request,
    },
    { families: [cifarResNet], executor, task, ...context },
  );
}

const { tune } = defaultPruning({ of: "macs", keep: 0.6 });

test("a run that cannot be trained overwrites nothing", async () => {
  await run("kept");
  const before = await readdir(at("kept"), { recursive: true });
  const large = { ...tune, epochs: 1, batchSize: 41, validation: 8 };
  for (const settings of [{ tune: large }, { tuneDense: large }]) {
    await expect(run("kept", { overwrite: true }, settings)).rejects.toThrow(
      "expected at least one batch of 41 samples, got 40 samples",
    );
  }
  expect(await readdir(at("kept"), { recursive: true })).toEqual(before);
  const small = { ...large, batchSize: 16 };
  await run("kept", { overwrite: true }, { rounds: 2, tuneDense: small });
  await run("kept", { overwrite: true }, { tune: { ...large, epochs: 0 } });
  expect(await readdir(at("kept"))).not.toContain("rounds");
});

describe("layers that are to be kept", () => {
  const keeping = (...keepLayers: string[]): Partial<PruneSettings> => {
    const { sensitivity, plan } = defaultPruning({ of: "macs", keep: 0.85 });
    return {
      sensitivity: { ...sensitivity, metric: "magnitude", samples: 8, keepLayers },
      plan: { ...plan, roundTo: 1 },
    };
  };

  test("lose nothing, by their names or the beginnings of these", async () => {
    const { plan } = await run("keeping", {}, keeping("layer1", "layer2.0.conv1"));
    const layers = Object.values(plan.groups).flatMap((group) => group.layers);
    expect(layers.length).toBeGreaterThan(0);
    expect(layers.filter((layer) => /^layer1|^layer2\.0\.conv1/.test(layer))).toEqual([]);
    const { model: pruned } = await loadSource(at("keeping/pruned"), [cifarResNet]);
    const channels = ({ parameters }: Model) =>
      ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"].map(
        (layer) => parameters.get(`${layer}.weight`)!.shape[0],
      );
    const [before, after] = [channels(model), channels(pruned)];
    expect(after.slice(0, 2)).toEqual(before.slice(0, 2));
    expect(after[2]).toBeLessThan(before[2]);
    const all = await run("all", {}, keeping());
    expect(plan.before.components).toBeLessThan(all.plan.before.components);
  });

  test("keep the branches that they are in", () => {
    const emptiable = (...keepLayers: string[]) =>
      componentGroups(model, "apart", { keepLayers })
        .filter((group) => group.emptiable)
        .map(({ name }) => name);
    expect(emptiable()).toEqual(["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]);
    expect(emptiable("layer1.0.conv2")).toEqual(["layer2.0.conv1", "layer3.0.conv1"]);
    const biased = () => componentGroups(model, "apart", { keepLayers: ["conv1.weight"] });
    expect(biased).toThrow(/^keep-layer "conv1\.weight": expected/);
  });

  test("have to be there", async () => {
    const refused = run("refused", {}, keeping("layer1", "layer"));
    await expect(refused).rejects.toThrow(
      /^keep-layer "layer": expected a layer with removable components, .*, such as conv1, /,
    );
    await expect(
      run("refused", {}, keeping("conv1", "layer1", "layer2", "layer3")),
    ).rejects.toThrow(
      /^keep-layer: expected components that may be removed in other layers than "conv1", /,
    );
    await expect(readdir(at("refused"))).rejects.toThrow("ENOENT");
  });
});

describe("what a stage was made of", () => {
  const resume = (name: string, settings?: Partial<PruneSettings>) =>
    run(name, { resume: true }, settings);
  const edit = async (path: string, change: (text: string) => string) => {
    const before = await readFile(path, "latin1");
    await writeFile(path, change(before), "latin1");
    return () => writeFile(path, before, "latin1");
  };
  const other = (text: string) => `${text} `;

  test.each([
    ["sensitivity.json", /when plan\.json was made of it.* remove budgets\.json, .*plan\.json/],
    ["plan.json", /when pruned was made of it.* remove evaluation\.json, export, .*pruned/],
    ["pruned/config.json", /when model was made of it/],
    ["model/config.json", /when evaluation\.json was made of it.*remove evaluation\.json, export,/],
    ["export/dense/onnx/model.onnx", /when sizes\.json was made of it.*remove sizes\.json from/],
  ])("%s has to be as it was", async (file, message) => {
    const first = file === "sensitivity.json";
    if (first) await run("chain");
    const restore = await edit(at("chain", file), other);
    const resumed = resume("chain");
    await expect(resumed).rejects.toMatchObject({ code: "invalid-file" });
    await expect(resumed).rejects.toThrow(message);
    await expect(resumed).rejects.toThrow(new RegExp(`chain/${file}: expected it as it was`));
    await restore();
    await resume("chain");
  });

  test("is made anew where it was removed as the message says", async () => {
    await run("anew");
    const path = at("anew/plan.json");
    const plan = JSON.parse(await readFile(path, "utf8"));
    const [name] = Object.keys(plan.groups);
    plan.groups[name].prune = [0];
    await writeFile(path, JSON.stringify(plan));
    const error = await resume("anew").catch((caught: unknown) => caught as EspalierError);
    for (const stale of (error as EspalierError).data.stale as string[]) {
      await rm(at("anew", stale), { recursive: true });
    }
    await resume("anew");
    const config = JSON.parse(await readFile(at("anew/model/config.json"), "utf8"));
    expect(config.pruning.channels[name]).not.toContain(0);
    const [{ loss }] = JSON.parse(await readFile(at("anew/training.json"), "utf8"));
    const [before] = JSON.parse(await readFile(at("chain/training.json"), "utf8"));
    expect(loss).not.toBe(before.loss);
  });

  test("is the model of the round before", async () => {
    const settings = { rounds: 2, tune: { ...tune, validation: 8 } };
    await run("rounds", {}, settings);
    await edit(at("rounds/rounds/1/model/config.json"), other);
    await expect(resume("rounds", settings)).rejects.toThrow(
      /rounds\/1\/model\/config\.json: .*when rounds\/2\/sensitivity\.json was made of it/,
    );
  });

  test("is not asked of runs that have not written it down", async () => {
    await run("old");
    await rm(at("old/digests.json"));
    await edit(at("old/plan.json"), other);
    await resume("old");
    await rm(at("old/evaluation.json"));
    await resume("old");
    await writeFile(at("old/digests.json"), "[]");
    await expect(resume("old")).rejects.toThrow(/digests\.json: expected the digests/);
  });

  test("is a checkpoint, too", async () => {
    const controller = new AbortController();
    const long = { tune: { ...tune, epochs: 3, batchSize: 16, validation: 8 } };
    const stopped = run("stopped", {}, long, {
      signal: controller.signal,
      onEvent: ({ type }: PipelineEvent) => type === "epoch-end" && controller.abort(),
    });
    await expect(stopped).rejects.toMatchObject({ code: "aborted" });
    await edit(at("stopped/pruned/config.json"), other);
    await expect(resume("stopped", long)).rejects.toThrow(/when training\.safetensors was made of/);
    await rm(at("stopped/training.safetensors"));
    await resume("stopped", long);
  });
});
