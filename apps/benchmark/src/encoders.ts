/** @file Speed and memory of text encoders, beside PyTorch in the same run. */
import { mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { writeJsonAtomic } from "@espalier/base";
import {
  applyDecisions,
  bindParameters,
  componentGroups,
  estimate,
  type Metric,
  type Model,
  makePlan,
  measureSensitivity,
  oneHot,
  Random,
  type Samples,
  sizeOfModel,
} from "@espalier/core";
import { type Executor, exportOnnx } from "@espalier/graph";
import {
  createTiming,
  defaultPlan,
  defaultSensitivity,
  defaultTextTuning,
  undisturbed,
} from "@espalier/pipeline";
import { createOnnxExecutor, onnxVersion, openOnnxModel } from "@espalier/runtime-onnx";
import {
  compileTrainingStep,
  type DeviceState,
  disposeState,
  narrowTokenTable,
  type TrainingState,
} from "@espalier/train";
import * as z from "zod";
import { encoderSizes, freshEncoder, LENGTH, randomSequences, WORDS } from "./fresh-encoder.ts";
import { type LengthsOptions, type LengthsRow, measureLengths } from "./lengths.ts";
import { runOurs, runProgram } from "./program.ts";
import { median, secondsOf, writeArray, writeParameters } from "./side-by-side.ts";

export interface EncodersOptions {
  readonly python: readonly string[];
  readonly threads: number;
  /** How often ours and PyTorch's take turns. */
  readonly rounds: number;
  /** That a BERT-base is scored on. */
  readonly sequences: number;
  /** Texts whose batches are compared; undefined: none. */
  readonly texts: Pick<LengthsOptions, "encoder" | "tasks"> | undefined;
  log(line: string): void;
}

const PEER = { label: "PyTorch", ours: false, script: "encoders.py" };
const BATCH = 16;
// Memory is laid out in the first steps; a training has hundreds.
const WARM_UP = 4;
const STEPS = 6;
const PROBES = 6;
const LEARNING_RATE = 5e-5;
// What programs may take; the process has more: parameters, results, Node itself.
const MEMORY_LIMIT = 3 * 1024 ** 3;

const peerResult = z.object({
  torch: z.string(),
  /** Before the first step, and after the last. */
  losses: z.tuple([z.number(), z.number()]),
  trainingStepSeconds: z.number(),
  doubleBackwardSeconds: z.number(),
});
type PeerResult = z.infer<typeof peerResult>;

interface Speed {
  /** Of a step that computes every row of the table of words, as PyTorch does. */
  readonly wholeStepSeconds: number;
  /** As a training takes its steps: with the rows of the words that occur. */
  readonly trainingStepSeconds: number;
  readonly hutchinsonProbeSeconds: number;
  readonly losses: readonly [number, number];
}

/** Measures everything; medians over the rounds. */
export async function measureEncoders(options: EncodersOptions) {
  const { threads, rounds, log, texts } = options;
  const executor = createOnnxExecutor({ threads });
  const model = freshEncoder(encoderSizes.MiniLM);
  const samples = randomSequences(BATCH);
  const directory = await mkdtemp(join(tmpdir(), "espalier-benchmark-"));
  try {
    await writeCase(directory, model, samples);
    const ours: Speed[] = [];
    const peers = new Map<string, PeerResult[]>();
    for (let round = 0; round < rounds; round++) {
      log(`round ${round + 1} of ${rounds}`);
      ours.push(await speedOf(model, samples, executor));
      for (const python of options.python) {
        const args = [directory, String(threads)];
        const result = runProgram(PEER, args, python, peerResult);
        if ("missing" in result) {
          log(`${PEER.label}: left out, ${result.missing} is not installed`);
          continue;
        }
        expectEqualLosses(ours[round].losses, result);
        peers.set(result.torch, [...(peers.get(result.torch) ?? []), result]);
      }
    }
    log("speed-up of a pruned encoder");
    const pruned = await prunedSpeedUp(model, threads, executor);
    const base = (["removal", "hessian-trace"] as const).map((metric) => {
      log(`scores of a BERT-base by ${metric}`);
      return scoreBase(metric, options);
    });
    const lengths: readonly LengthsRow[] =
      texts === undefined ? [] : await measureLengths({ ...texts, executor, rounds, log });

    const step = median(ours.map((each) => each.trainingStepSeconds));
    const wholeStep = median(ours.map((each) => each.wholeStepSeconds));
    const probe = median(ours.map((each) => each.hutchinsonProbeSeconds));
    return {
      processor: cpus()[0].model,
      threads,
      onnxruntime: onnxVersion(),
      node: process.versions.node,
      rounds,
      batch: BATCH,
      length: LENGTH,
      words: WORDS,
      ours: {
        wholeStepSeconds: wholeStep,
        trainingStepSeconds: step,
        hutchinsonProbeSeconds: probe,
        losses: ours[0].losses,
      },
      peers: Object.fromEntries(
        [...peers].map(([version, results]) => {
          const of = (pick: (result: PeerResult) => number) => median(results.map(pick));
          const trainingStepSeconds = of((r) => r.trainingStepSeconds);
          const doubleBackwardSeconds = of((r) => r.doubleBackwardSeconds);
          return [
            version,
            {
              trainingStepSeconds,
              doubleBackwardSeconds,
              losses: results[0].losses,
              ratios: {
                wholeStep: wholeStep / trainingStepSeconds,
                trainingStep: step / trainingStepSeconds,
                // What is done once for all probes is left out, in PyTorch's favour.
                hutchinsonProbe: probe / doubleBackwardSeconds,
              },
            },
          ];
        }),
      ),
      pruned,
      base,
      lengths,
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Writes what PyTorch computes with: parameters, a batch, and how to train on it. */
async function writeCase(directory: string, model: Model, samples: Samples): Promise<void> {
  const { feeds, labels } = await samples.batch([...Array(BATCH).keys()]);
  for (const [name, data] of Object.entries(feeds)) {
    await writeArray(directory, name, [BATCH, LENGTH], Array.from(data, Number));
  }
  await writeArray(directory, "labels", [BATCH], labels);
  await writeParameters(directory, model.parameters);
  const { optimizer, clip } = defaultTextTuning;
  await writeJsonAtomic(join(directory, "case.json"), {
    ...{ heads: encoderSizes.MiniLM.heads, epsilon: model.config.layer_norm_eps },
    // Whose Hessian is asked for.
    differentiated: differentiated(model),
    // Which parameters decay.
    weights: [...model.parameters].flatMap(([name, { kind }]) => (kind === "weight" ? [name] : [])),
    ...{ optimizer, clip, learningRate: LEARNING_RATE },
    ...{ warmUp: WARM_UP, steps: STEPS, probes: PROBES },
  });
}

/** The parameters whose rows make heads and neurons. */
function differentiated(model: Model): string[] {
  return [
    ...new Set(
      componentGroups(model, "apart").flatMap(({ rows }) => rows.map(({ parameter }) => parameter)),
    ),
  ];
}

/** Seconds of a training step, and the losses before the first and after the last. */
async function timeSteps(model: Model, samples: Samples, executor: Executor) {
  const { feeds, labels, length } = await samples.batch([...Array(BATCH).keys()]);
  const { optimizer, clip } = defaultTextTuning;
  const table = narrowTokenTable(model, samples, optimizer, undefined);
  const step = await compileTrainingStep(table.model, executor, {
    ...{ batchSize: BATCH, length, optimizer, clip, statisticsMomentum: 0 },
  });
  const targets = oneHot(labels, model.classes.length);
  let state: TrainingState | DeviceState = step.initialState();
  const times: number[] = [];
  const losses: number[] = [];
  // The last step tells the loss after those that are timed.
  for (let n = 1; n <= WARM_UP + STEPS + 1; n++) {
    const seconds = await secondsOf(async () => {
      const inputs = { targets, learningRate: LEARNING_RATE, step: n };
      const result = await step.run(state, { feeds: table.feeds(feeds), ...inputs });
      disposeState(state);
      state = result.state;
      losses.push(result.loss);
    });
    times.push(seconds);
  }
  disposeState(state);
  await step.dispose();
  return {
    seconds: median(times.slice(WARM_UP, -1)),
    losses: [losses[0], losses[losses.length - 1]] as const,
  };
}

async function speedOf(model: Model, samples: Samples, executor: Executor): Promise<Speed> {
  const { tokens: _, ...ofAnyTokens } = samples;
  const whole = await timeSteps(model, ofAnyTokens, executor);
  const { seconds, losses } = await timeSteps(model, samples, executor);
  const draws = async (count: number) =>
    estimate(model, componentGroups(model, "apart"), {
      ...{ executor, samples, quantity: "trace", estimator: "hutchinson", draws: count },
      ...{ temperature: 1, batchSize: BATCH, random: new Random(0) },
    });
  // The price of one more probe, without compiling.
  const few = await secondsOf(() => draws(2));
  const more = await secondsOf(() => draws(2 + PROBES));
  return {
    wholeStepSeconds: whole.seconds,
    trainingStepSeconds: seconds,
    hutchinsonProbeSeconds: (more - few) / PROBES,
    losses,
  };
}

// Rounding differs, and differs more after some steps.
const TOLERANCE = 1e-4;

/** Times of computations that differ are not to be compared. */
function expectEqualLosses(losses: Speed["losses"], peer: PeerResult): void {
  losses.forEach((loss, i) => {
    if (Math.abs(loss - peer.losses[i]) < TOLERANCE) return;
    throw new Error(
      `encoders: expected the losses ${losses.join(", ")} from PyTorch ${peer.torch}, got ${peer.losses.join(", ")}`,
    );
  });
}

/** Latency of an encoder without half of its heads and neurons, against its multiply-accumulates. */
async function prunedSpeedUp(model: Model, threads: number, executor: Executor) {
  const sensitivity = await measureSensitivity(model, {
    ...{ ...defaultSensitivity, metric: "magnitude", samples: randomSequences(BATCH), executor },
    ...{ batchSize: BATCH, random: new Random(0) },
  });
  const plan = makePlan(model, sensitivity, defaultPlan({ of: "components", keep: 0.5 }));
  const groups = sensitivity.groups.map(({ group }) => group);
  const models = [model, applyDecisions(model, groups, plan.decisions)];
  const files = models.map((each) =>
    exportOnnx((batch, length) => {
      const { graph, constants } = bindParameters(each, batch, "evaluation", length);
      return { outputs: { logits: graph.logits }, constants };
    }),
  );
  const timing = createTiming(
    { processor: cpus()[0].model, threads, runtime: `onnxruntime-node ${onnxVersion()}` },
    (onnx) => openOnnxModel(onnx, { threads }),
  );
  const [before, after] = models.map((each) => sizeOfModel(each).macs);
  const rows = [];
  for (const batch of [1, BATCH]) {
    const { inputs } = model.build(batch, "evaluation", LENGTH);
    const candidates = files.map((onnx) => ({ onnx, inputs }));
    const [dense, small] = (await timing.measure(candidates, 10)).map(undisturbed);
    const speedUp = dense / small;
    rows.push({
      batch,
      macsRatio: before / after,
      denseMilliseconds: dense,
      prunedMilliseconds: small,
      speedUp,
      share: speedUp / (before / after),
    });
  }
  return rows;
}

const scoring = z.object({
  estimator: z.string(),
  heads: z.number(),
  seconds: z.number(),
  peakBytes: z.number(),
});

/** Time and peak memory of scoring a BERT-base, in a process of its own. */
function scoreBase(metric: Metric, { threads, sequences }: EncodersOptions) {
  const args = [metric, ...[threads, sequences, MEMORY_LIMIT].map(String)];
  return { metric, sequences, ...runOurs("encoder-process.js", args, scoring) };
}

const fixed = (value: number, digits = 2) => value.toFixed(digits);

export function encodersMarkdown(result: Awaited<ReturnType<typeof measureEncoders>>): string {
  const { ours, peers, pruned, base, lengths, batch, length } = result;
  const lines = [
    "# Speed and memory of text encoders",
    "",
    `${result.processor}, ${result.threads} threads, Node ${result.node}, ONNX Runtime ${result.onnxruntime}; medians of ${result.rounds} turns. Fresh weights and random tokens, on which times do not depend. \`npm run bench -- encoders\``,
  ];
  for (const [version, peer] of Object.entries(peers)) {
    lines.push(
      "",
      `## Beside PyTorch ${version}`,
      "",
      `MiniLM's size: 6 layers, 384 wide, 12 heads; ${batch} sequences of ${length} tokens. Both compute the same loss, before the first training step (${fixed(ours.losses[0], 5)} and ${fixed(peer.losses[0], 5)}) and after the last (${fixed(ours.losses[1], 5)} and ${fixed(peer.losses[1], 5)}). Hessian: of the parameters of heads and neurons.`,
      "",
      "| | Espalier | PyTorch | share of its time |",
      "|---|---|---|---|",
      `| one training step, AdamW, all words | ${fixed(ours.wholeStepSeconds, 3)} s | ${fixed(peer.trainingStepSeconds, 3)} s | ${fixed(peer.ratios.wholeStep)} |`,
      `| the same of a data set with ${result.words.toLocaleString("en")} of the 30,522 words, as SST-2 | ${fixed(ours.trainingStepSeconds, 3)} s | ${fixed(peer.trainingStepSeconds, 3)} s | ${fixed(peer.ratios.trainingStep)} |`,
      `| one more Hutchinson probe, against double backward alone | ${fixed(ours.hutchinsonProbeSeconds, 3)} s | ${fixed(peer.doubleBackwardSeconds, 3)} s | ${fixed(peer.ratios.hutchinsonProbe)} |`,
    );
  }
  lines.push(
    "",
    "## Scores of a BERT-base",
    "",
    `12 layers, 768 wide; ${base[0].heads} heads, and all neurons, scored by exact Gauss-Newton values of 2 classes; compiling included, in a process of its own.`,
    "",
    `| metric | sequences of ${length} tokens | seconds | memory at the peak |`,
    "|---|---|---|---|",
    ...base.map(
      (row) =>
        `| ${row.metric} | ${row.sequences} | ${fixed(row.seconds, 0)} | ${fixed(row.peakBytes / 1e9)} GB |`,
    ),
    "",
    "## Speed-up of pruned encoders",
    "",
    `MiniLM's size without half of its heads and neurons, exported, in ONNX Runtime, on sequences of ${length} tokens.`,
    "",
    "| batch | MACs ratio | dense ms | pruned ms | speed-up | share of the MACs ratio |",
    "|---|---|---|---|---|---|",
    ...pruned.map(
      (row) =>
        `| ${row.batch} | ${fixed(row.macsRatio)} | ${fixed(row.denseMilliseconds)} | ${fixed(row.prunedMilliseconds)} | ${fixed(row.speedUp)} | ${fixed(row.share)} |`,
    ),
  );
  if (lengths.length > 0) {
    lines.push(
      "",
      "## Batches of like length",
      "",
      "An epoch of tuning, as the sum of the steps that it has of each length: batches of texts of like length, and batches drawn at random.",
      "",
      "| texts | batches | tokens, filled up | seconds | programs |",
      "|---|---|---|---|---|",
      ...lengths.map(
        (row) =>
          `| ${row.data} | ${row.batches} | ${row.positions.toLocaleString("en")} | ${fixed(row.seconds, 0)} | ${row.programs} |`,
      ),
    );
  }
  return lines.join("\n");
}
