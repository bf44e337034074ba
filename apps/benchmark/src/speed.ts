/** @file Speed and memory of the main operations, beside PyTorch in the same run. */
import { mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import {
  applyDecisions,
  bindParameters,
  componentGroups,
  estimate,
  makePlan,
  measureSensitivity,
  oneHot,
  Random,
  type Samples,
  selectSamples,
  sizeOfModel,
  spearman,
} from "@espalier/core";
import { exportOnnx } from "@espalier/graph";
import {
  defaultPlan,
  defaultSensitivity,
  loadSource,
  measureLatencies,
  openTask,
} from "@espalier/pipeline";
import { createOnnxExecutor, onnxVersion, openOnnxModel } from "@espalier/runtime-onnx";
import {
  compileTrainingStep,
  type DeviceState,
  disposeState,
  evaluate,
  type TrainingState,
} from "@espalier/train";
import { cifarResNet } from "@espalier/vision";
import * as z from "zod";
import { runOurs, runProgram } from "./program.ts";
import { median, secondsOf, writeArray, writeParameters } from "./side-by-side.ts";
import { traceOptions } from "./trace-options.ts";

export interface SpeedOptions {
  readonly resnet20: string;
  readonly resnet56: string;
  readonly python: readonly string[];
  readonly threads: number;
  /** How often ours and PyTorch's take turns. */
  readonly rounds: number;
  log(line: string): void;
}

const IMAGES = 128;
const families = [cifarResNet];

const PEER = { label: "PyTorch", ours: false, script: "speed.py" };

const peerResult = z.object({
  torch: z.string(),
  loss: z.number(),
  doubleBackwardSeconds: z.number(),
  trainingStepSeconds: z.number(),
});
type PeerResult = z.infer<typeof peerResult>;

/** Measures everything once per round and returns medians over the rounds. */
export async function measureSpeed(options: SpeedOptions) {
  const { threads, rounds, log } = options;
  const executor = createOnnxExecutor({ threads });
  const { model } = await loadSource(options.resnet20, families);
  const task = await openTask("cifar10");
  const training = task.train(model);
  const batch: Samples = selectSamples(training, [...Array(IMAGES).keys()]);
  const groups = componentGroups(model, "apart");
  const common = traceOptions({ executor, samples: batch });

  const directory = await mkdtemp(join(tmpdir(), "espalier-benchmark-"));
  try {
    const { feeds, labels } = await batch.batch([...Array(IMAGES).keys()]);
    const images = feeds.pixel_values as Float32Array;
    await writeArray(directory, "images", [IMAGES, 3, 32, 32], images);
    await writeArray(directory, "labels", [IMAGES], labels);
    await writeParameters(directory, model.parameters);

    const step = await compileTrainingStep(model, executor, {
      batchSize: IMAGES,
      optimizer: { name: "sgd", momentum: 0.9, nesterov: true, weightDecay: 5e-4 },
      statisticsMomentum: 0.1,
    });
    const targets = oneHot(labels, model.classes.length);
    const { loss } = await evaluate(model, batch, { executor, batchSize: IMAGES });

    const ours = {
      exact: [] as number[],
      probe: [] as number[],
      trainingStep: [] as number[],
      hutchinson: [] as number[],
    };
    const peers = new Map<string, PeerResult[]>();
    let correlation = Number.NaN;
    for (let round = 0; round < rounds; round++) {
      log(`round ${round + 1} of ${rounds}`);
      let exact = new Float64Array();
      ours.exact.push(
        await secondsOf(async () => {
          exact = Float64Array.from((await estimate(model, groups, common)).mean);
        }),
      );
      const probeOptions = { ...common, estimator: "probe" as const };
      let probed = new Float64Array();
      ours.probe.push(
        await secondsOf(async () => {
          probed = Float64Array.from((await estimate(model, groups, probeOptions)).mean);
        }),
      );
      correlation = spearman(exact, probed);
      // The price of one more probe, without compiling.
      const draws = { ...common, estimator: "hutchinson" as const, batchSize: IMAGES };
      const few = await secondsOf(() => estimate(model, groups, { ...draws, draws: 2 }));
      const more = await secondsOf(() => estimate(model, groups, { ...draws, draws: 8 }));
      ours.hutchinson.push((more - few) / 6);
      let state: TrainingState | DeviceState = step.initialState();
      const times: number[] = [];
      for (let n = 1; n <= 12; n++) {
        times.push(
          await secondsOf(async () => {
            const before = state;
            const inputs = { feeds, targets, learningRate: 1e-4, step: n };
            state = (await step.run(state, inputs)).state;
            disposeState(before);
          }),
        );
      }
      disposeState(state);
      ours.trainingStep.push(median(times.slice(2)));
      for (const python of options.python) {
        const args = [directory, String(threads), "6", "10"];
        const result = runProgram(PEER, args, python, peerResult);
        if ("missing" in result) {
          log(`${PEER.label}: left out, ${result.missing} is not installed`);
          continue;
        }
        expectEqual(loss, result);
        peers.set(result.torch, [...(peers.get(result.torch) ?? []), result]);
      }
    }
    await step.dispose();

    log("ResNet-56, 512 images");
    const large = exactOnResNet56(options);
    log("speed-up of a pruned ResNet-56");
    const speedUp = await prunedSpeedUp(options, training);

    const seconds300 = (result: PeerResult) => 300 * result.doubleBackwardSeconds;
    return {
      processor: cpus()[0].model,
      threads,
      onnxruntime: onnxVersion(),
      node: process.versions.node,
      rounds,
      ours: {
        exactTracesSeconds: median(ours.exact),
        probeSeconds: median(ours.probe),
        probeRankCorrelation: correlation,
        hutchinsonProbeSeconds: median(ours.hutchinson),
        trainingStepSeconds: median(ours.trainingStep),
      },
      peers: Object.fromEntries(
        [...peers].map(([version, results]) => {
          const of = (pick: (result: PeerResult) => number) => median(results.map(pick));
          return [
            version,
            {
              doubleBackwardSeconds: of((r) => r.doubleBackwardSeconds),
              trainingStepSeconds: of((r) => r.trainingStepSeconds),
              // 300 probes are 300 times one; all that is done once is left out in PyTorch's favour.
              ratios: {
                exactTraces: of(seconds300) / median(ours.exact),
                probe: of(seconds300) / median(ours.probe),
                hutchinsonProbe: of((r) => r.doubleBackwardSeconds) / median(ours.hutchinson),
                trainingStep: median(ours.trainingStep) / of((r) => r.trainingStepSeconds),
              },
            },
          ];
        }),
      ),
      resnet56: large,
      speedUp,
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

// Rounding differs.
const TOLERANCE = 1e-4;

/** Times of computations that differ are not to be compared. */
function expectEqual(loss: number, peer: PeerResult): void {
  if (Math.abs(loss - peer.loss) < TOLERANCE) return;
  throw new Error(`speed: expected the loss ${loss} from PyTorch ${peer.torch}, got ${peer.loss}`);
}

/** Time and peak memory of exact traces of ResNet-56 on 512 images, in a process of its own. */
function exactOnResNet56({ resnet56, threads }: SpeedOptions) {
  const printed = z.object({ seconds: z.number(), peakBytes: z.number() });
  return runOurs("exact-process.js", [resnet56, String(threads), "512"], printed);
}

/** Latency of a pruned ResNet-56 against its multiply-accumulates, widths rounded to blocks. */
async function prunedSpeedUp({ resnet56, threads }: SpeedOptions, training: Samples) {
  const executor = createOnnxExecutor({ threads });
  const { model } = await loadSource(resnet56, families);
  const sensitivity = await measureSensitivity(model, {
    ...defaultSensitivity,
    estimator: "probe",
    samples: selectSamples(training, [...Array(256).keys()]),
    executor,
    batchSize: 64,
    random: new Random(0),
  });
  const results = [];
  for (const roundTo of [1, 8, 16]) {
    const plan = makePlan(model, sensitivity, {
      ...defaultPlan({ of: "macs", keep: 0.5 }),
      roundTo,
    });
    const pruned = applyDecisions(
      model,
      sensitivity.groups.map(({ group }) => group),
      plan.decisions,
    );
    const [dense, small] = [model, pruned].map((each) =>
      exportOnnx((size) => {
        const { graph, constants } = bindParameters(each, size, "evaluation");
        return { outputs: { logits: graph.logits }, constants };
      }),
    );
    for (const size of [1, 64]) {
      const pixels = new Float32Array(size * 3072).map((_, i) => Math.sin(i));
      const feeds = {
        pixel_values: { dtype: "float32" as const, shape: [size, 3, 32, 32], data: pixels },
      };
      const opened = await Promise.all(
        [dense, small].map((bytes) => openOnnxModel(bytes, { threads })),
      );
      const [before, after] = await measureLatencies(
        opened.map((each) => ({ run: () => each.run(feeds) })),
        4,
      );
      await Promise.all(opened.map((each) => each.dispose()));
      const macs = sizeOfModel(model).macs / sizeOfModel(pruned).macs;
      results.push({
        roundTo,
        batch: size,
        macsRatio: macs,
        denseMilliseconds: before.median,
        prunedMilliseconds: after.median,
        speedUp: before.median / after.median,
        share: before.median / after.median / macs,
      });
    }
  }
  return results;
}
