/** @file Scores of a BERT-base in a process of its own, so that its peak memory is theirs. */
import { type Metric, measureSensitivity, Random } from "@espalier/core";
import { defaultPruning, defaultSensitivity, defaultTemperatures } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { encoderSizes, freshEncoder, randomSequences } from "./fresh-encoder.ts";

const [metric, threads, sequences, memory] = process.argv.slice(2);
const model = freshEncoder(encoderSizes["BERT-base"]);
const start = performance.now();
const { groups, estimator } = await measureSensitivity(model, {
  ...defaultSensitivity,
  metric: metric as Metric,
  temperature: defaultTemperatures[metric as Metric],
  estimator: "exact",
  samples: randomSequences(Number(sequences)),
  executor: createOnnxExecutor({ threads: Number(threads), memoryLimit: Number(memory) }),
  batchSize: defaultPruning({ of: "macs", keep: 0.5 }).batchSize,
  random: new Random(0),
  onEvent: ({ pass, passes }) => process.stderr.write(`${metric}: pass ${pass} of ${passes}\n`),
});
const seconds = (performance.now() - start) / 1000;
const heads = groups.reduce((sum, { group }) => sum + (group.kind === "head" ? group.count : 0), 0);
// maxRSS is in kilobytes.
const peakBytes = process.resourceUsage().maxRSS * 1024;
process.stdout.write(JSON.stringify({ estimator, heads, seconds, peakBytes }));
