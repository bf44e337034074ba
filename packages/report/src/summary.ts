/** @file The numbers of a run, worked out once: page, card and `summary.json` all show these. */
import type {
  Budget,
  ComponentGroup,
  ComponentKind,
  Decision,
  Estimator,
  Metric,
  ModelSize,
  PlanOptions,
} from "@espalier/core";
import {
  type BudgetPlan,
  type Latency,
  type LatencyOutcome,
  type LatencyRecord,
  latencyOutcome,
  type PlanRecord,
  undisturbed,
} from "@espalier/pipeline";
import { criteriaOf } from "./criteria.ts";
import { commandOf } from "./instructions.ts";
import type {
  EpochRecord,
  Evaluation,
  ModelDescription,
  Pruning,
  Run,
  RunManifest,
} from "./read-run.ts";

export type DecisionCounts = Readonly<Record<Decision, number>>;

export interface GroupSummary {
  readonly name: string;
  readonly kind: ComponentKind;
  /** Names of the layers that the group's components are in. */
  readonly layers: readonly string[];
  readonly components: number;
  /** One for each component, as are `standardErrors` and `decisions`. */
  readonly scores: readonly number[] | undefined;
  readonly standardErrors: readonly (number | null)[] | undefined;
  readonly decisions: readonly Decision[] | undefined;
  readonly counts: DecisionCounts | undefined;
  /** Of attention heads: for each one that is left as an implant its rank, for others undefined. */
  readonly ranks: readonly (number | undefined)[] | undefined;
}

/** How the components of the model were scored, before the first round. */
export interface SensitivitySummary {
  readonly metric: Metric;
  readonly estimator: Estimator | undefined;
  readonly temperature: number;
  readonly coupling: "together" | "apart";
  readonly samples: number;
  readonly draws: number;
  readonly components: number;
  readonly negative: number;
  readonly rankStability: number;
}

export interface PlanSummary {
  readonly budget: Budget;
  /** The share of what the budget is about that the plans leave of the dense model. */
  readonly reached: number;
  /** The dense model. */
  readonly before: ModelSize;
  readonly rankBy: PlanOptions["rankBy"];
  readonly scope: PlanOptions["scope"];
  /** Of budgets of latency: predicted and measured shares of the dense model's time. */
  readonly latency?: LatencyOutcome | undefined;
}

/** What a round left of the model. */
export interface RoundSummary {
  readonly components: number;
  readonly implants: number;
  readonly parameters: number;
  readonly macs: number;
  readonly rankStability: number | undefined;
}

export interface LayerWidth {
  readonly layer: string;
  /** What the widths count, if scores tell. */
  readonly kind: ComponentKind | undefined;
  readonly before: number;
  readonly after: number;
  /** How many of those after pruning are implants. */
  readonly implants: number;
  /** Of implants of attention heads: at which ranks they attend, in ascending order. */
  readonly ranks: readonly number[];
}

/** A model on the test set. */
export interface Judgement extends Evaluation {
  /** Of the accuracy or correlation, as the number of samples gives it. */
  readonly standardError: number;
}

/** A quantity before and after; `ratio` says how many times less it became. */
export interface Reduction {
  readonly dense: number;
  readonly pruned: number;
  readonly ratio: number;
}

export interface LatencySummary {
  readonly batch: number;
  /** In milliseconds for a batch. */
  readonly dense: Latency;
  readonly pruned: Latency;
  /** Time of the dense model over that of the pruned one, both `undisturbed` as for budgets of latency. */
  readonly speedup: number;
  /** Whether the middle halves of the measured times lie apart. */
  readonly distinct: boolean;
}

/** All numbers of a run. What it has not measured, or not yet, is undefined or empty. */
export interface Summary {
  readonly run: string;
  readonly manifest: RunManifest;
  /** The command that repeats the run, if options can say all of its settings. */
  readonly command: string | undefined;
  readonly model: Omit<ModelDescription, "pruning"> | undefined;
  readonly sensitivity: SensitivitySummary | undefined;
  readonly plan: PlanSummary | undefined;
  /** The groups of the dense model, with what became of them after the last round. */
  readonly groups: readonly GroupSummary[];
  readonly counts: DecisionCounts | undefined;
  readonly rounds: readonly RoundSummary[];
  /** What other budgets would have done, from the smallest share kept to the largest. */
  readonly budgets: readonly BudgetPlan[];
  readonly widths: readonly LayerWidth[];
  /** Of the dense model, where it was trained for the task before it was pruned. */
  readonly denseTraining: readonly EpochRecord[] | undefined;
  readonly training: readonly EpochRecord[] | undefined;
  /** Of a training run: the trained model. */
  readonly trained: Judgement | undefined;
  readonly evaluation:
    | { readonly dense: Judgement; readonly pruned: Judgement; readonly tuned: Judgement }
    | undefined;
  readonly sizes:
    | Readonly<Record<"macs" | "parameters" | "checkpointBytes" | "onnxBytes", Reduction>>
    | undefined;
  readonly latency:
    | {
        readonly executor: string;
        readonly machine: LatencyRecord["machine"];
        readonly batches: readonly LatencySummary[];
      }
    | undefined;
}

/** Works out the numbers of a run. */
export function summarize(run: Run): Summary {
  const { manifest, rounds, denseTraining, training, trained, evaluation, sizes, latency } = run;
  const groups = summarizeGroups(run);
  const counts = groups.flatMap((group) => group.counts ?? []);
  const model = run.model && withoutPruning(run.model);
  const { accuracy } = criteriaOf({ model });
  const judge = (judged: Evaluation): Judgement => ({
    ...judged,
    standardError: accuracy.standardError(judged.accuracy, judged.count),
  });
  return {
    run: run.name,
    manifest,
    command: commandOf(run.name, manifest),
    model,
    sensitivity: summarizeSensitivity(run),
    plan: summarizePlan(run),
    groups,
    counts: counts.length === 0 ? undefined : counts.reduce(addCounts),
    rounds: rounds.flatMap(({ plan, sensitivity }) =>
      plan === undefined ? [] : { ...plan.after, rankStability: sensitivity?.rankStability },
    ),
    budgets: [...run.budgets].sort((a, b) => a.keep - b.keep),
    widths: widthsOf(run),
    denseTraining,
    training,
    trained: trained && judge(trained),
    evaluation: evaluation && {
      dense: judge(evaluation.dense),
      pruned: judge(evaluation.pruned),
      tuned: judge(evaluation.tuned),
    },
    sizes: sizes && {
      macs: reduction(sizes.dense.macs, sizes.pruned.macs),
      parameters: reduction(sizes.dense.parameters, sizes.pruned.parameters),
      checkpointBytes: reduction(sizes.dense.checkpointBytes, sizes.pruned.checkpointBytes),
      onnxBytes: reduction(sizes.dense.onnxBytes, sizes.pruned.onnxBytes),
    },
    latency: latency && {
      executor: latency.executor,
      machine: latency.machine,
      batches: Object.entries(latency.batches).map(([batch, times]) =>
        compareLatency(Number(batch), times),
      ),
    },
  };
}

function withoutPruning({ pruning: _, ...rest }: ModelDescription): Summary["model"] {
  return rest;
}

function reduction(dense: number, pruned: number): Reduction {
  return { dense, pruned, ratio: dense / pruned };
}

function compareLatency(
  batch: number,
  { dense, pruned }: { readonly dense: Latency; readonly pruned: Latency },
): LatencySummary {
  const speedup = undisturbed(dense) / undisturbed(pruned);
  const [first, second] = speedup < 1 ? [dense, pruned] : [pruned, dense];
  return {
    batch,
    dense,
    pruned,
    speedup,
    distinct: first.quartiles[1] < second.quartiles[0],
  };
}

function summarizeSensitivity({ rounds }: Run): SensitivitySummary | undefined {
  const record = rounds[0]?.sensitivity;
  if (record === undefined) return undefined;
  const { metric, estimator, temperature, coupling, samples, draws, negative, rankStability } =
    record;
  const components = record.groups.reduce((sum, { count }) => sum + count, 0);
  return {
    ...{ metric, estimator, temperature, coupling, samples, draws },
    ...{ components, negative, rankStability },
  };
}

function summarizePlan({ rounds, manifest, latency }: Run): PlanSummary | undefined {
  // A plan that was given may have been edited since it said what it leaves.
  if (manifest.command !== "prune" || manifest.planGiven) return undefined;
  const [first, last] = [rounds[0].plan, rounds[manifest.rounds - 1]?.plan];
  if (first === undefined || last === undefined) return undefined;
  const { budget } = manifest;
  // A budget of components is about those that are kept whole.
  const left =
    budget.of === "components"
      ? last.after.components - last.after.implants
      : last.after[budget.of];
  const whole = first.before[budget.of];
  // Only plans by latency know of it.
  if (left === undefined || whole === undefined) return undefined;
  const { rankBy, scope } = last.options;
  const { parameters, macs } = first.before;
  const outcome = last.latency && latencyOutcome(last.latency, latency?.batches);
  const reached = left / whole;
  return { budget, reached, before: { parameters, macs }, rankBy, scope, latency: outcome };
}

function countDecisions(decisions: readonly Decision[]): DecisionCounts {
  const counts = { keep: 0, implant: 0, prune: 0 };
  for (const decision of decisions) counts[decision]++;
  return counts;
}

export function addCounts(a: DecisionCounts, b: DecisionCounts): DecisionCounts {
  return { keep: a.keep + b.keep, implant: a.implant + b.implant, prune: a.prune + b.prune };
}

function summarizeGroups({ manifest, rounds, dense, model }: Run): GroupSummary[] {
  const { groups, sensitivity, decisions } = rounds[0];
  const several = manifest.command === "prune" && manifest.rounds > 1;
  const plan = several ? undefined : rounds[0].plan;
  return groups.map((group, i): GroupSummary => {
    // A later round's plan is about what the one before has left; the models know the outcome.
    const decided = several
      ? dense && model?.pruning && decisionsAfterwards(group, dense.pruning, model.pruning)
      : decisions?.get(group.name);
    return {
      name: group.name,
      kind: group.kind,
      layers: [...new Set(group.rows.flatMap(({ parameter }) => layerOf(parameter)))],
      components: group.count,
      scores: sensitivity?.groups[i].scores,
      standardErrors: sensitivity?.groups[i].standardErrors,
      decisions: decided,
      counts: decided && countDecisions(decided),
      ranks: ranksOf(group, decided, plan),
    };
  });
}

function ranksOf(
  { name, count, kind, implants, span }: ComponentGroup,
  decisions: readonly Decision[] | undefined,
  plan: PlanRecord | undefined,
): GroupSummary["ranks"] {
  if (kind !== "head") return undefined;
  return Array.from({ length: count }, (_, i) => {
    if (decisions?.[i] === "prune") return undefined;
    if (implants) return span;
    return decisions?.[i] === "implant" ? plan?.groups[name]?.implantRank : undefined;
  });
}

/** The layer whose output channels the rows of `parameter` make; none for a bias. */
function layerOf(parameter: string): string[] {
  return parameter.endsWith(".bias")
    ? []
    : [parameter.replace(/(\.implant(\.\d+)?)?\.weight$/, "")];
}

/** What became of the components of a group of the dense model, as both models' layers tell. */
function decisionsAfterwards(
  group: ComponentGroup,
  dense: Pruning | undefined,
  after: Pruning,
): Decision[] {
  const fates = group.rows.flatMap(({ parameter, indices }) =>
    layerOf(parameter).map((layer): Decision[] => {
      const left = after.channels.get(layer);
      if (left === undefined) return indices.map(() => "keep");
      const whole = left.length - (after.implants.get(layer) ?? 0);
      const place = new Map(left.map((channel, position) => [channel, position]));
      // A dense model that was pruned before has rows for some channels only, implants last.
      const held = dense?.channels.get(layer);
      const isImplant = parameter.endsWith(".implant.weight");
      const offset = isImplant ? (held?.length ?? 0) - (dense?.implants.get(layer) ?? 0) : 0;
      return indices.map((row) => {
        const position = place.get(held === undefined ? row : held[offset + row]);
        if (position === undefined) return "prune";
        return position < whole || isImplant ? "keep" : "implant";
      });
    }),
  );
  // Of a component in several layers, some are too small for an implant.
  return Array.from({ length: group.count }, (_, i) => {
    const decided = fates.map((decisions) => decisions[i]);
    return (["implant", "keep"] as const).find((fate) => decided.includes(fate)) ?? "prune";
  });
}

interface LayerLeft {
  width: number;
  implants: number;
  readonly ranks: Set<number>;
}

/** What a round left of layers, for models whose configuration does not say so layer by layer. */
function layersLeft({ groups, decisions, plan }: Run["rounds"][number]): Map<string, LayerLeft> {
  const left = new Map<string, LayerLeft>();
  for (const { name, rows, implants, span } of groups) {
    const decided = decisions?.get(name);
    if (decided === undefined) continue;
    const counts = countDecisions(decided);
    const made = implants ? counts.keep : counts.implant;
    const rank = implants ? span : plan?.groups[name]?.implantRank;
    for (const layer of rows.flatMap(({ parameter }) => layerOf(parameter))) {
      const own = left.get(layer) ?? { width: 0, implants: 0, ranks: new Set<number>() };
      left.set(layer, own);
      own.width += counts.keep + counts.implant;
      own.implants += made;
      if (made > 0 && rank !== undefined) own.ranks.add(rank);
    }
  }
  return left;
}

// Names of layers sort as people count: layer1.9 before layer1.10.
const byName = new Intl.Collator("en", { numeric: true });

function widthsOf({ rounds, model }: Run): LayerWidth[] {
  if (model === undefined) return [];
  const before = new Map<string, { readonly kind: ComponentKind; width: number }>();
  for (const { kind, rows } of rounds[0].groups) {
    for (const { parameter, indices } of rows) {
      for (const layer of layerOf(parameter)) {
        const own = before.get(layer) ?? { kind, width: 0 };
        before.set(layer, own);
        own.width += indices.length;
      }
    }
  }
  const { pruning } = model;
  const left = pruning ? undefined : layersLeft(rounds[rounds.length - 1]);
  return [...before]
    .map(([layer, { kind, width }]): LayerWidth => {
      const own = left?.get(layer);
      return {
        layer,
        // Plans do not tell.
        kind: rounds[0].sensitivity && kind,
        before: width,
        after: pruning?.channels.get(layer)?.length ?? own?.width ?? width,
        implants: pruning?.implants.get(layer) ?? own?.implants ?? 0,
        ranks: [...(own?.ranks ?? [])].sort((a, b) => a - b),
      };
    })
    .sort((a, b) => byName.compare(a.layer, b.layer));
}
