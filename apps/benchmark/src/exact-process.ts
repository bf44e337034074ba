/** @file Exact traces in a process of its own, so that its peak memory is theirs. */
import { componentGroups, estimate, selectSamples } from "@espalier/core";
import { loadSource, openTask } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { cifarResNet } from "@espalier/vision";
import { traceOptions } from "./trace-options.ts";

const [source, threads, images] = process.argv.slice(2);
const { model } = await loadSource(source, [cifarResNet]);
const task = await openTask("cifar10");
const samples = selectSamples(task.train(model), [...Array(Number(images)).keys()]);
const start = performance.now();
const executor = createOnnxExecutor({ threads: Number(threads) });
await estimate(model, componentGroups(model, "apart"), traceOptions({ executor, samples }));
const seconds = (performance.now() - start) / 1000;
// maxRSS is in kilobytes.
process.stdout.write(JSON.stringify({ seconds, peakBytes: process.resourceUsage().maxRSS * 1024 }));
