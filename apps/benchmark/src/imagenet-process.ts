/**
 * @file The whole path of a ResNet-50 at 224×224 in a process of its own, so that its peak memory is
 * that of the path: scores, a plan, an exported model. The weights are fresh: cost and shape do not
 * depend on them.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  applyDecisions,
  bindParameters,
  drawSamples,
  type Model,
  makePlan,
  measureSensitivity,
  Random,
  type Samples,
  sizeOfModel,
} from "@espalier/core";
import { exportOnnx } from "@espalier/graph";
import {
  defaultPlan,
  defaultPruning,
  defaultSensitivity,
  measureLatencies,
  openTask,
} from "@espalier/pipeline";
import { createOnnxExecutor, openOnnxModel } from "@espalier/runtime-onnx";
import { resNet, resNetConfig } from "@espalier/vision";

const [images, threadCount, memory, directory] = process.argv.slice(2);
const threads = Number(threadCount);
const log = (line: string) => process.stderr.write(`${line}\n`);
const timed = async <T>(work: () => Promise<T>) => {
  const start = performance.now();
  const result = await work();
  return { result, seconds: (performance.now() - start) / 1000 };
};

/** Images per second that samples are decoded at while nothing else is done. */
async function decodingRate(samples: Samples): Promise<number> {
  const indices = [...Array(Math.min(64, samples.count)).keys()];
  await samples.batch(indices);
  const { seconds } = await timed(() => samples.batch(indices));
  return indices.length / seconds;
}

function exported(model: Model): Uint8Array {
  return exportOnnx((batch) => {
    const { graph, constants } = bindParameters(model, batch, "evaluation");
    return { outputs: { logits: graph.logits }, constants };
  });
}

const task = await openTask(`imagefolder:${images}`);
const random = new Random(0);
const config = resNet.withClasses(resNetConfig(50), task.classes);
const model = resNet.initialize(config, random);
const samples = drawSamples(task.train(model), 512, random.stream("samples"));
const decodedPerSecond = await decodingRate(samples);
log(`decoding: ${decodedPerSecond.toFixed(0)} images per second`);

const executor = createOnnxExecutor({ threads, memoryLimit: Number(memory) });
const scored = await timed(() =>
  measureSensitivity(model, {
    ...defaultSensitivity,
    metric: "hessian-trace",
    temperature: 1,
    estimator: "probe",
    draws: 1,
    samples,
    executor,
    batchSize: defaultPruning({ of: "parameters", keep: 0.5 }).batchSize,
    random,
    onEvent: ({ pass, passes }) => log(`sensitivity: pass ${pass} of ${passes}`),
  }),
);
// From here on, memory is that of planning and exporting.
const peakBytes = process.resourceUsage().maxRSS * 1024;
const sensitivity = scored.result;
const planned = await timed(async () =>
  makePlan(model, sensitivity, defaultPlan({ of: "parameters", keep: 0.5 })),
);
log(`plan: ${planned.seconds.toFixed(1)} s`);
const groups = sensitivity.groups.map(({ group }) => group);
const pruned = applyDecisions(model, groups, planned.result.decisions);
await mkdir(directory, { recursive: true });
const files = [exported(model), exported(pruned)];
await writeFile(join(directory, "dense.onnx"), files[0]);
await writeFile(join(directory, "pruned.onnx"), files[1]);

const latencies = [];
for (const batch of [1, 8]) {
  const data = new Float32Array(batch * 3 * 224 * 224).map((_, i) => Math.sin(i));
  const feeds = { pixel_values: { dtype: "float32" as const, shape: [batch, 3, 224, 224], data } };
  const opened = await Promise.all(files.map((bytes) => openOnnxModel(bytes, { threads })));
  const runs = opened.map((each) => ({ run: () => each.run(feeds) }));
  const [dense, small] = await measureLatencies(runs, 10);
  await Promise.all(opened.map((each) => each.dispose()));
  latencies.push({
    batch,
    denseMilliseconds: dense.median,
    prunedMilliseconds: small.median,
    speedUp: dense.median / small.median,
  });
}
process.stdout.write(
  JSON.stringify({
    images: samples.count,
    components: groups.reduce((count, group) => count + group.count, 0),
    decodedPerSecond,
    sensitivitySeconds: scored.seconds,
    // While scores are measured, so many images are needed.
    computedPerSecond: samples.count / scored.seconds,
    peakBytes,
    planSeconds: planned.seconds,
    dense: { ...sizeOfModel(model), onnxBytes: files[0].byteLength },
    pruned: { ...sizeOfModel(pruned), onnxBytes: files[1].byteLength },
    latencies,
  }),
);
