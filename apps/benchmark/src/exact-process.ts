/** @file Exact traces in a process of its own, so that its peak memory is theirs. */
import { componentGroups, estimate, Random, selectSamples } from "@espalier/core";
import { loadSource, openTask } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { cifarResNet } from "@espalier/vision";

const [source, threads, images] = process.argv.slice(2);
const { model } = await loadSource(source, [cifarResNet]);
const task = await openTask("cifar10");
const samples = selectSamples(task.train(model.preprocessing), [...Array(Number(images)).keys()]);
const start = performance.now();
await estimate(model, componentGroups(model, "apart"), {
  executor: createOnnxExecutor({ threads: Number(threads) }),
  samples,
  quantity: "trace",
  estimator: "exact",
  draws: 1,
  temperature: 1,
  batchSize: 64,
  random: new Random(0),
});
const seconds = (performance.now() - start) / 1000;
// maxRSS is in kilobytes.
process.stdout.write(JSON.stringify({ seconds, peakBytes: process.resourceUsage().maxRSS * 1024 }));
