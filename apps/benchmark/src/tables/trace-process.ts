/** @file Traces by one of our estimators in a process of its own, as benchmarks/peers/traces.py has others'. */
import { join } from "node:path";
import { readNpy, toFloat32 } from "@espalier/checkpoints";
import { componentGroups, type Estimator, estimate, Random, type Samples } from "@espalier/core";
import { loadSource } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { cifarResNet } from "@espalier/vision";

const [estimator, directory, threads, draws, source] = process.argv.slice(2);

const read = async (name: string) => toFloat32(await readNpy(join(directory, `${name}.npy`)));
const { model } = await loadSource(source, [cifarResNet]);
const [images, labels] = [await read("images"), Int32Array.from(await read("labels"))];
const size = images.length / labels.length;
const samples: Samples = {
  count: labels.length,
  batch: async (indices) => {
    const pixels = new Float32Array(indices.length * size);
    Array.from(indices).forEach((index, n) => {
      pixels.set(images.subarray(index * size, (index + 1) * size), n * size);
    });
    return {
      feeds: { pixel_values: pixels },
      labels: Int32Array.from(indices, (index) => labels[index]),
    };
  },
};
const groups = componentGroups(model, "apart");
const start = performance.now();
const { mean } = await estimate(model, groups, {
  ...{ executor: createOnnxExecutor({ threads: Number(threads) }), samples, quantity: "trace" },
  ...{ estimator: estimator as Estimator, draws: Number(draws), temperature: 1, batchSize: 64 },
  random: new Random(0),
});
const seconds = (performance.now() - start) / 1000;
const rows: Record<string, number[]> = {};
let offset = 0;
for (const { rows: own, count } of groups) {
  rows[own[0].parameter] = [...mean.subarray(offset, offset + count)];
  offset += count;
}
process.stdout.write(
  // maxRSS is in kilobytes.
  JSON.stringify({ seconds, peakBytes: process.resourceUsage().maxRSS * 1024, rows }),
);
