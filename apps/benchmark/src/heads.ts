/** @file How well, and how fast, each estimator ranks the attention heads of a tuned encoder. */
import { join } from "node:path";
import {
  applyDecisions,
  type ComponentGroup,
  componentGroups,
  countComponents,
  type Decision,
  drawSamples,
  type Estimator,
  type Metric,
  type Model,
  measureSensitivity,
  type Quantity,
  Random,
  type Samples,
  spearman,
} from "@espalier/core";
import type { Executor } from "@espalier/graph";
import { encoders } from "@espalier/nlp";
import { defaultTextTuning, loadSource, openTask, type Task, trainModel } from "@espalier/pipeline";
import { type Evaluation, evaluate } from "@espalier/train";
import { estimatedScores } from "./estimated-scores.ts";

export interface HeadsOptions {
  /** A directory of Hugging Face's with an encoder. */
  readonly encoder: string;
  /** The task that it is tuned for, such as "glue/sst2:DIR". */
  readonly data: string;
  readonly epochs: number;
  readonly executor: Executor;
  /** Where the tuned model goes: a training that was stopped goes on from there. */
  readonly directory: string;
  /** Draws of the long run of hutchinson that others are compared with. */
  readonly draws: number;
  readonly known: readonly HeadsRow[];
  log(line: string): void;
  onRows(rows: readonly HeadsRow[], subject: HeadsSubject): Promise<void>;
}

/** What the heads are those of. */
export interface HeadsSubject {
  readonly data: string;
  readonly accuracy: number;
  readonly heads: number;
  readonly samples: number;
  readonly judged: number;
}

export interface HeadsRow {
  readonly label: string;
  readonly seconds: number;
  /** One for each head. */
  readonly scores: readonly number[];
  /** Of the model without the share of heads that have the lowest scores, nothing tuned. */
  readonly left: { readonly accuracy: number; readonly loss: number };
}

// Sequences that the encoder is tuned on, drawn at random.
const TUNED = 10_000;
// Sequences that scores are measured on.
const SAMPLES = 64;
const BATCH = 32;

// Of the heads, as in the paper's claim about them.
const REMOVED = 0.6;

// The two rows that all others are compared with.
const LOSS_CHANGE = "loss change on removal";
const LONG_RUN = "(other signs)";

interface Ranking {
  readonly label: string;
  score(context: Context): Promise<ArrayLike<number>>;
}

interface Context {
  readonly model: Model;
  readonly groups: readonly ComponentGroup[];
  readonly scoring: Samples;
  readonly judging: Samples;
  readonly executor: Executor;
}

function estimated(
  estimator: Estimator,
  draws: number,
  {
    quantity = "trace",
    temperature = 1,
    seed = 0,
  }: {
    quantity?: Quantity;
    temperature?: number;
    seed?: number;
  } = {},
): Ranking["score"] {
  return ({ model, groups, scoring, executor }) =>
    estimatedScores(model, groups, {
      ...{ executor, samples: scoring, quantity, estimator, draws, temperature },
      batchSize: BATCH,
      random: new Random(seed),
    });
}

/** The scores of heads by a metric that has no estimator. */
function byMetric(metric: Metric): Ranking["score"] {
  return async ({ model, groups, scoring, executor }) => {
    const { groups: scored } = await measureSensitivity(model, {
      ...{ executor, samples: scoring, metric, estimator: "auto", temperature: 1 },
      coupling: "apart",
      batchSize: BATCH,
      random: new Random(0),
    });
    const names = new Set(groups.map(({ name }) => name));
    return scored.filter(({ group }) => names.has(group.name)).flatMap(({ scores }) => [...scores]);
  };
}

/** What is left on samples that nothing was scored on, without the heads that `isRemoved` names. */
function judgeWithout(
  isRemoved: (head: number) => boolean,
  { model, groups, judging, executor }: Context,
): Promise<Evaluation> {
  let head = 0;
  const decisions = new Map(
    groups.map(({ name, count }) => [
      name,
      Array.from({ length: count }, (): Decision => (isRemoved(head++) ? "prune" : "keep")),
    ]),
  );
  const pruned = applyDecisions(model, groups, decisions);
  return evaluate(pruned, judging, { executor, batchSize: BATCH });
}

/** What the loss rises by without each head. */
async function lossChanges(context: Context): Promise<number[]> {
  const whole = (await judgeWithout(() => false, context)).loss;
  const changes: number[] = [];
  for (let head = 0; head < countComponents(context.groups); head++) {
    changes.push((await judgeWithout((each) => each === head, context)).loss - whole);
  }
  return changes;
}

/** The model without the heads of the lowest scores. */
async function judgeLeft(scores: readonly number[], context: Context): Promise<HeadsRow["left"]> {
  const order = [...scores.keys()].sort((a, b) => scores[a] - scores[b]);
  const removed = new Set(order.slice(0, Math.round(REMOVED * order.length)));
  const { accuracy, loss } = await judgeWithout((head) => removed.has(head), context);
  return { accuracy, loss };
}

// The dearest last.
const rankings = (draws: number): readonly Ranking[] => [
  { label: "magnitude", score: byMetric("magnitude") },
  { label: "gradient (Michel et al.)", score: byMetric("gradient") },
  { label: "Gauss-Newton trace, exact", score: estimated("exact", 0) },
  { label: "Gauss-Newton trace, probe, 1 draw", score: estimated("probe", 1) },
  { label: "removal, exact", score: estimated("exact", 0, { quantity: "removal" }) },
  {
    label: "removal, T = 4, exact",
    score: estimated("exact", 0, { quantity: "removal", temperature: 4 }),
  },
  { label: LOSS_CHANGE, score: lossChanges },
  ...([3, 10, 30] as const).flatMap((count) =>
    (["control-variate", "hutchinson"] as const).map((estimator) => ({
      label: `${estimator}, ${count} draws`,
      score: estimated(estimator, count),
    })),
  ),
  {
    label: `hutchinson, ${draws} draws ${LONG_RUN}`,
    score: estimated("hutchinson", draws, { seed: 1 }),
  },
];

/** The task with no more than so many training sequences. */
function withFewer(task: Task): Task {
  if (task.counts.train <= TUNED) return task;
  const random = new Random(0).stream("tuned");
  return {
    ...task,
    counts: { ...task.counts, train: TUNED },
    train: (model) => drawSamples(task.train(model), TUNED, random),
  };
}

/** All that rows follow from, but for the machine and the program. */
export async function headsInputs(encoder: string, draws: number): Promise<object> {
  const { sha256 } = await loadSource(encoder, encoders);
  return { sha256, tuned: TUNED, samples: SAMPLES, removed: REMOVED, draws };
}

/** Scores all heads in every way that is not known yet; all rows, known ones first. */
export async function measureHeads(options: HeadsOptions): Promise<{
  readonly rows: HeadsRow[];
  readonly subject: HeadsSubject;
}> {
  const { executor, known, log, directory, draws } = options;
  const task = withFewer(await openTask(options.data));
  const name = join(directory, `${task.name.replaceAll("/", "-")}-${options.epochs}`);
  const { evaluation } = await trainModel(
    {
      source: options.encoder,
      settings: { ...defaultTextTuning, epochs: options.epochs },
      seed: 0,
      batchSize: BATCH,
      directory: name,
      resume: true,
      overwrite: false,
    },
    {
      families: encoders,
      executor,
      task,
      onEvent: (event) => {
        if (event.type === "epoch-end") log(`tuned, epoch ${event.record.epoch}`);
      },
    },
  );
  const { model } = await loadSource(join(name, "model"), encoders);
  const context: Context = {
    model,
    groups: componentGroups(model, "apart").filter(({ kind }) => kind === "head"),
    scoring: drawSamples(task.train(model), SAMPLES, new Random(0).stream("scoring")),
    judging: task.test(model),
    executor,
  };
  const subject = {
    data: task.name,
    accuracy: evaluation.accuracy,
    heads: countComponents(context.groups),
    samples: context.scoring.count,
    judged: context.judging.count,
  };
  const rows: HeadsRow[] = [];
  for (const { label, score } of rankings(draws)) {
    const before = known.find((row) => row.label === label);
    if (before !== undefined) {
      rows.push(before);
      continue;
    }
    const start = performance.now();
    const scores = Array.from(await score(context));
    const seconds = (performance.now() - start) / 1000;
    rows.push({ label, seconds, scores, left: await judgeLeft(scores, context) });
    log(`${label}: ${seconds.toFixed(1)} s`);
    await options.onRows(rows, subject);
  }
  return { rows, subject };
}

/** The page: seconds, and rank correlations with the two references. */
export function headsMarkdown(rows: readonly HeadsRow[], subject: HeadsSubject): string {
  const long = rows.find(({ label }) => label.endsWith(LONG_RUN));
  const real = rows.find(({ label }) => label === LOSS_CHANGE);
  const correlation = (scores: readonly number[], other: HeadsRow | undefined) =>
    other === undefined ? "" : spearman(scores, other.scores).toFixed(3);
  return [
    "# Estimators of what attention heads contribute",
    "",
    "The relative Hessian trace of every head by each estimator, its rank correlation with a long run of Hutchinson's method, with other signs than the rows', and with what the loss really rises by when the head is removed. all-MiniLM-L6-v2, tuned for two epochs on 10,000 sentences. `npm run bench -- heads --encoder DIR`",
    "",
    `${subject.data}, dense accuracy ${(100 * subject.accuracy).toFixed(2)} %, ${subject.heads} heads, scored on ${subject.samples} training sequences; the loss change is that on ${subject.judged} held-out sequences.`,
    "",
    `| scores by | seconds | rank correlation with long hutchinson | with the loss change | without the lowest ${100 * REMOVED} %: accuracy | loss |`,
    "|---|---|---|---|---|---|",
    ...rows.map(
      ({ label, seconds, scores, left }) =>
        `| ${label} | ${seconds.toFixed(1)} | ${correlation(scores, long)} | ${correlation(scores, real)} | ${(100 * left.accuracy).toFixed(2)} % | ${left.loss.toFixed(3)} |`,
    ),
  ].join("\n");
}
