/** @file What batches of like length gain: `node apps/benchmark/dist/length-batches.js ENCODER DATA`. */
import { parseArgs } from "node:util";
import { Random, type Samples } from "@espalier/core";
import { bert } from "@espalier/nlp";
import { defaultTuningOf, loadSource, openTask } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { compileTrainingStep, trainingOrder } from "@espalier/train";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: "string", default: "1" },
    rounds: { type: "string", default: "3" },
  },
});
const [source, data] = positionals;
const executor = createOnnxExecutor({ threads: Number(values.threads) });
const task = await openTask(data);
const loaded = (await loadSource(source, [bert])).model;
const random = new Random(0);
const model = loaded.classes.length > 0 ? loaded : bert.withHead!(loaded, task, random);
const samples: Samples = task.train(model);
const { lengths } = samples;
if (lengths === undefined) throw new TypeError("expected samples of different lengths");
const { batchSize, optimizer } = defaultTuningOf(model);

/** How many batches of an epoch have each length. */
function batchesOf(order: Uint32Array): Map<number, number> {
  const counts = new Map<number, number>();
  for (let start = 0; start < order.length; start += batchSize) {
    const length = Math.max(...order.subarray(start, start + batchSize).map((i) => lengths![i]));
    counts.set(length, (counts.get(length) ?? 0) + 1);
  }
  return counts;
}

const orders = {
  random: batchesOf(trainingOrder({ count: samples.count }, batchSize, random)),
  "of like length": batchesOf(trainingOrder(samples, batchSize, random)),
};
const seconds = new Map<number, number>();
for (const length of new Set(Object.values(orders).flatMap((each) => [...each.keys()]))) {
  const step = await compileTrainingStep(model, executor, {
    batchSize,
    length,
    optimizer,
    statisticsMomentum: 0,
    clip: 1,
  });
  const members = Array.from({ length: samples.count }, (_, i) => i).filter(
    (i) => lengths[i] <= length,
  );
  const longest = members.reduce((a, b) => (lengths[b] > lengths[a] ? b : a));
  const { feeds } = await samples.batch([longest, ...members.slice(0, batchSize - 1)]);
  const targets = new Float32Array(batchSize * model.classes.length).fill(1 / model.classes.length);
  const times: number[] = [];
  for (let round = 0; round <= Number(values.rounds); round++) {
    const begin = performance.now();
    await step.run(step.initialState, { feeds, targets, learningRate: 1e-5, step: 1 });
    times.push((performance.now() - begin) / 1000);
  }
  await step.dispose();
  // The first run lays out memory.
  seconds.set(length, Math.min(...times.slice(1)));
}
for (const [name, counts] of Object.entries(orders)) {
  let [positions, time] = [0, 0];
  for (const [length, count] of counts) {
    positions += length * count * batchSize;
    time += seconds.get(length)! * count;
  }
  process.stdout.write(
    `${name}: ${positions} positions, ${time.toFixed(1)} s of training steps, ${counts.size} programs\n`,
  );
}
