/** @file What numbers mean, in words for those who meet them for the first time. */
import {
  type Budget,
  type ComponentKind,
  type Decision,
  type RankBy,
  type Scope,
  secondOrderMetrics,
} from "@espalier/core";
import type { LatencyOutcome } from "@espalier/pipeline";
import { formatCount, formatNumber, formatPercent, formatRatio } from "./format.ts";
import type {
  DecisionCounts,
  LatencySummary,
  LayerWidth,
  PlanSummary,
  SensitivitySummary,
  Summary,
} from "./summary.ts";

/** What a budget is about. */
export const budgetNames: Readonly<Record<Budget["of"], string>> = {
  components: "components",
  parameters: "parameters",
  macs: "multiply-accumulates",
  latency: "time",
};

const metricMeanings: Readonly<Record<SensitivitySummary["metric"], string>> = {
  removal:
    "A score predicts how much the loss grows when a component is switched off and nothing else changes: half the second derivative of the loss with respect to a factor on the component's output.",
  "fitted-removal":
    "A score predicts how much the loss grows when a channel goes after all of its layer with lower scores, and the layer that reads it is fitted to those that are left: half the second derivative of the loss with respect to a factor on what they do not predict of it.",
  "hessian-trace":
    "A score is the relative Hessian trace, Trace(H) / (2p) · ‖w‖²: the mean curvature of the loss in the p weights w of a component, times half the sum of their squares. It predicts how much the loss grows when these weights become zero, as if the loss were curved alike in all their directions.",
  gradient:
    "A score is the mean, over samples, of the absolute change of the loss that its gradient predicts for switching a component off.",
  magnitude: "A score is the mean square of a component's weights. It looks at no data.",
  random: "Scores are random numbers: a baseline that every other metric should beat.",
};

/** What the scores of the run are. */
export function explainMetric({ metric, temperature }: SensitivitySummary): string {
  const softened =
    secondOrderMetrics.includes(metric) && temperature !== 1
      ? ` The network's probabilities were softened (temperature ${formatNumber(temperature)}), since a trained network is so sure of most training samples that they would tell next to nothing.`
      : "";
  return `${metricMeanings[metric]} The higher the score, the more is lost without the component.${softened}`;
}

/** How the scores were measured, on what. */
export function explainEstimator({
  estimator,
  samples,
  draws,
  metric,
}: SensitivitySummary): string {
  const on = `on ${formatCount(samples)} training samples`;
  switch (estimator) {
    case "exact":
      return `Scores were computed exactly ${on}, in ${draws} backward passes, one for each class: only the choice of samples is left to chance.`;
    case "probe":
      return `Scores were estimated ${on} from ${draws} backward ${draws === 1 ? "pass" : "passes"} with random signs for every sample and class (probes).`;
    case "hutchinson":
      return `Scores were estimated ${on} with Hutchinson's method: ${draws} products of the Hessian with random signs.`;
    case "control-variate":
      return `Scores were estimated ${on}: the Gauss-Newton part of the Hessian by backward passes, the rest from ${draws} products with random signs for every sample.`;
    case undefined:
      return metric === "gradient"
        ? `Scores were measured ${on}.`
        : "There is nothing to estimate, so scores have no error.";
  }
}

/** Whether the ranking would change if it were measured again. */
export function explainStability({ rankStability, estimator, metric }: SensitivitySummary): string {
  if (estimator === undefined && metric !== "gradient") {
    return "Measured again, the ranking would be the same.";
  }
  const value = rankStability.toFixed(3);
  const meaning =
    rankStability >= 0.95
      ? "the order is settled, and more samples would hardly change which components go"
      : rankStability >= 0.8
        ? "components near the border between staying and going could change sides"
        : "much of the order is chance; take more samples or draws";
  return `Rank stability is ${value}: that is how well, from 0 (not at all) to 1 (fully), this ranking would agree with one of scores measured again, on as many other samples. Here ${meaning}.`;
}

/** What scores below zero are, where there can be any. */
export function explainNegative({ negative, components, metric }: SensitivitySummary): string {
  if (metric === "random") return "";
  if (negative === 0) return "No score is below zero.";
  const share = `${formatCount(negative)} of ${formatCount(components)} scores ${negative === 1 ? "is" : "are"} below zero (${formatPercent(negative / components, 1)}).`;
  return metric === "hessian-trace"
    ? `${share} A trace can be negative where the loss curves downwards, but in a trained network such an estimate is mostly noise. It does not mean that a component is unimportant.`
    : `${share} What they estimate cannot be negative, so these are noise.`;
}

/** What the plan was to do and what it reached. */
export function explainPlan({ budget, reached, rankBy, scope, latency }: PlanSummary): string {
  const goal = latency
    ? explainOutcome(latency)
    : `The budget was to keep ${formatPercent(budget.keep, 1)} of the ${budgetNames[budget.of]}; the plan keeps ${formatPercent(reached, 1)}.`;
  const order =
    rankBy === "score" || budget.of === "components"
      ? "Components were ranked by their score."
      : `Components were ranked by their score divided by the ${budgetNames[budget.of]} that they ${rankMeanings[rankBy]}, so one with a low score may stay where it is cheap.`;
  return `${goal} ${order} ${scopeMeanings[scope]}`;
}

const rankMeanings: Readonly<Record<Exclude<RankBy, "score">, string>> = {
  "score-per-saving": "saved when their turn came",
  "score-per-cost": "cost in the whole network",
};

const scopeMeanings: Readonly<Record<Scope, string>> = {
  global: "All groups compete with each other, so some lose much and others little.",
  kind: "Components compete with those of their own kind, and each kind loses the same share.",
  group: "Every group loses the same share.",
};

/** What was promised of time, and how it turned out. */
export function explainOutcome(outcome: LatencyOutcome): string {
  const { batch, keep, predicted, measured, tolerance, corrections, kept } = outcome;
  const share = (value: number) => formatPercent(value, 1);
  const asked = `The budget was to keep ${share(keep)} of the dense model's time with ${batch === 1 ? "1 sample" : `${formatCount(batch)} samples`} at a time`;
  const revised =
    corrections === 0
      ? ""
      : ` after ${corrections} ${corrections === 1 ? "correction" : "corrections"}`;
  const said = `${asked}; ${share(predicted)} was predicted from the times of layers${revised}`;
  if (measured === undefined) return `${said}; the finished model has not been timed.`;
  const verdict = kept
    ? `the promise is kept, within ${share(tolerance)} of it`
    : `the promise is missed by more than ${share(tolerance)} of it`;
  return `${said} and ${share(measured)} measured: ${verdict}.`;
}

/** What happens to a component, as a sentence about it says. */
export const fates: Readonly<Record<Decision, string>> = {
  keep: "kept",
  implant: "replaced by an implant",
  prune: "removed",
};

/** "9 were kept, 2 replaced by implants and 5 removed". */
export function describeCounts({ keep, implant, prune }: DecisionCounts): string {
  const implants =
    implant === 0
      ? ""
      : `, ${formatCount(implant)} replaced by ${implant === 1 ? "an implant" : "implants"}`;
  return `${formatCount(keep)} were kept${implants} and ${formatCount(prune)} removed`;
}

/** The ranks of a layer's implants. */
export function describeRanks(ranks: readonly number[]): string {
  return ranks.length === 0 ? "–" : ranks.join(", ");
}

/** What the implants of a model are, as far as there are any. */
export function explainImplants(widths: readonly LayerWidth[]): string {
  const ranks = [...new Set(widths.flatMap(({ ranks }) => ranks))].sort((a, b) => a - b);
  if (ranks.length > 0) {
    return `An implant is an attention head that goes on attending at a lower rank, ${ranks.join(" or ")}: it costs a fraction, and keeps some of what the head did.`;
  }
  return widths.some(({ implants }) => implants > 0)
    ? "An implant is a 1×1 convolution in place of a larger one: it costs a fraction, and keeps some of what the channel did."
    : "";
}

/** "2.02× fewer", or "1.10× more" for what grew. */
export function describeReduction(
  ratio: number,
  [less, more]: readonly [string, string] = ["fewer", "more"],
): string {
  return ratio >= 1 ? `${formatRatio(ratio)} ${less}` : `${formatRatio(1 / ratio)} ${more}`;
}

/** As `describeReduction`, of bytes. */
export function describeShrinking(ratio: number): string {
  return describeReduction(ratio, ["smaller", "larger"]);
}

/** "1.62× faster", and whether that is more than noise. */
export function describeSpeedup({ speedup, distinct }: LatencySummary): string {
  const doubt = distinct ? "" : ", but the quartiles overlap";
  if (speedup.toFixed(2) === "1.00") return "as fast as before";
  return speedup > 1
    ? `${formatRatio(speedup)} faster${doubt}`
    : `${formatRatio(1 / speedup)} slower${doubt}`;
}

/** How many epochs a run was tuned or trained for; 0 if it was not. */
export function epochsOf({ manifest }: Summary): number {
  return manifest.command === "sensitivity" ? 0 : manifest.epochs;
}

// Configurations of Hugging Face's have dozens of fields; these say how large an encoder is.
const sizeFields = "num_hidden_layers n_layers hidden_size dim num_attention_heads n_heads".split(
  " ",
);

/** "cifar-resnet (depth 20, shortcut projection)", "bert (hidden size 384, hidden layers 6, …)". */
export function describeModel({ model }: Pick<Summary, "model">): string | undefined {
  if (model === undefined) return undefined;
  const sizes = model.details.filter(([key]) => sizeFields.includes(key));
  const details = sizes.length > 0 ? sizes : model.details.filter(([key]) => key !== "num_labels");
  const said = details
    .map(([key, value]) => `${spellOut(key.replace(/^(num|n)_/, ""))} ${value}`)
    .join(", ");
  return said === "" ? model.type : `${model.type} (${said})`;
}

/** Whether the run has come to the end of its training. */
function wasTrained({ training, trained, evaluation }: Summary): boolean {
  return (training ?? trained ?? evaluation) !== undefined;
}

/** What becomes or became of a pruned model. */
export function explainTuning(summary: Summary): string {
  const tuned = epochsOf(summary) > 0;
  const epochs = describeEpochs(epochsOf(summary));
  if (!wasTrained(summary)) {
    return `The run is unfinished${tuned ? `: the model is to be tuned for ${epochs}` : ""}.`;
  }
  return tuned ? `It was then tuned for ${epochs}.` : "It was not tuned afterwards.";
}

/** "trained from scratch", or what the run is to do yet. */
export function describeTraining(summary: Summary): string {
  const how = summary.manifest.sha256 === undefined ? "from scratch" : "further";
  return `${wasTrained(summary) ? "" : "to be "}trained ${how}`;
}

/** Whether what the components were scored by depends on samples. */
export function looksAtData({ sensitivity }: Pick<Summary, "sensitivity">): boolean {
  return sensitivity?.samples !== 0;
}

/**
 * Whether the samples are known to be others than those of the data set that they are named after. Only
 * CIFAR-10 is compared with published checksums; of other data, run.json says that they are not verified.
 */
export function isOfOtherFiles({ data, verified }: Summary["manifest"]): boolean {
  return verified === false && /^cifar10(:|$)/.test(data);
}

/** What readers must know of the data, where there is anything. */
export function explainData({ manifest }: Summary): string | undefined {
  return isOfOtherFiles(manifest)
    ? "The files are not those of the published data set."
    : undefined;
}

const units: Readonly<Record<ComponentKind, string>> = {
  channel: "channels",
  head: "heads",
  neuron: "neurons",
};

/** What widths count: "channels", "heads or neurons". */
export function unitsOf(widths: readonly Pick<LayerWidth, "kind">[]): string {
  return [...new Set(widths.map(({ kind }) => (kind ? units[kind] : "components")))]
    .sort()
    .join(" or ");
}

/** "1 epoch", "2 epochs". */
export function describeEpochs(epochs: number): string {
  return `${formatCount(epochs)} ${epochs === 1 ? "epoch" : "epochs"}`;
}

/** Names of fields, such as "labelSmoothing" and "num_labels", as words. */
export function spellOut(key: string): string {
  return key.replaceAll("_", " ").replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
