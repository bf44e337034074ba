/** @file Prunes and tunes by our program in a process of its own, as benchmarks/peers/pruning.py has others do. */
import { join } from "node:path";
import { readJson } from "@espalier/base";
import {
  componentGroups,
  type Model,
  makePlan,
  measureSensitivity,
  Random,
  selectSamples,
  sizeOfModel,
} from "@espalier/core";
import { applyPlan, loadSource, openTask } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { evaluate, train } from "@espalier/train";
import { cifarResNet } from "@espalier/vision";
import type { PruningCase, PruningMeasurement } from "./pruning-peers.ts";

const [directory] = process.argv.slice(2);
const { source, threads, settings } = (await readJson(join(directory, "case.json"))) as PruningCase;
if (settings === undefined) throw new Error("case.json: expected settings of ours");
const executor = createOnnxExecutor({ threads });
const { model } = await loadSource(source, [cifarResNet]);
const task = await openTask(`cifar10:${directory}`);
const [samples, test] = [task.train(model), task.test(model)];
const random = new Random(settings.seed);
const { batchSize, sensitivity, plan, tune, calibration } = settings;
const { roundTo } = plan;
if (roundTo === "measured") throw new Error("roundTo: expected a number");
const first = (count: number) =>
  selectSamples(samples, [...Array(Math.min(count, samples.count)).keys()]);
const secondsSince = (start: number) => (performance.now() - start) / 1000;

let start = performance.now();
const scored = await measureSensitivity(model, {
  ...{ ...sensitivity, samples: first(sensitivity.samples), executor, batchSize },
  random: random.stream("sensitivity"),
});
const { decisions } = makePlan(model, scored, { ...plan, roundTo });
const pruned = await applyPlan(
  model,
  componentGroups(model, sensitivity.coupling),
  decisions,
  settings,
  { executor, random, drawCalibration: () => first(calibration) },
);
const seconds = secondsSince(start);
// maxRSS is in kilobytes.
const peakBytes = process.resourceUsage().maxRSS * 1024;

start = performance.now();
const { model: tuned } = await train(pruned, {
  ...{ ...tune, executor, samples, validation: undefined, distillation: undefined },
  random: random.stream("tune"),
});
const tuningSeconds = secondsSince(start);
const judge = async (of: Model) => (await evaluate(of, test, { executor, batchSize })).accuracy;
const measured: PruningMeasurement = {
  seconds,
  peakBytes,
  dense: { ...sizeOfModel(model), accuracy: await judge(model) },
  pruned: { ...sizeOfModel(pruned), accuracy: await judge(pruned) },
  tuningSeconds,
  tuned: await judge(tuned),
};
process.stdout.write(JSON.stringify(measured));
