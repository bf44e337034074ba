import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Model } from "@espalier/core";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { cifarResNet } from "@espalier/vision";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type PruneRequest, type PruneResult, prune } from "./prune.ts";
import { defaultPruning, type PruneSettings } from "./settings.ts";
import type { Task } from "./task.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-prune-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const at = (...names: string[]) => join(root, ...names);
const model = tinyResNet();
const executor = createOnnxExecutor({ threads: 1 });
const task: Task = {
  ...{ name: "noise", spec: "noise", classes: model.classes, verified: false },
  objective: "classification",
  classesIn: () => undefined,
  measures: [],
  counts: { train: 48, test: 12 },
  train: (of) => noiseSamples(of as Model, 48),
  test: (of) => noiseSamples(of as Model, 12, 2),
};

/** One epoch after pruning by magnitude, in steps of 16 samples. */
function run(
  name: string,
  request: Partial<PruneRequest> = {},
  settings: Partial<PruneSettings> = {},
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
    { families: [cifarResNet], executor, task },
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
  await run("kept", { overwrite: true }, { tune: { ...large, epochs: 0 } });
});
