/** @file A slider over the budgets that a run knows the plans of. */
import { leastSensitiveFirst } from "@espalier/core";
import { type BudgetPlan, encodeRuns } from "@espalier/pipeline";
import { percent } from "./chart.ts";
import { budgetNames } from "./explain.ts";
import { formatCount, formatPercent, formatShare } from "./format.ts";
import { type Html, html } from "./html.ts";
import { type ScoredGroup, scoredGroups } from "./score-panels.ts";
import { addCounts, type DecisionCounts, type PlanSummary, type Summary } from "./summary.ts";
import { table } from "./table.ts";

/** A budget on the slider. */
export interface BudgetPosition extends BudgetPlan {
  /** Whether it is what the run did. */
  readonly isRun: boolean;
}

/** The run's decisions on a group, as `BudgetPlan` has them. */
export function runsOf({ scores, decisions }: ScoredGroup): number[] | undefined {
  return decisions && encodeRuns(leastSensitiveFirst(scores).map((i) => decisions[i]));
}

/** From the smallest share kept to the largest, the run among them; empty if no other is known. */
export function budgetPositions(summary: Summary): BudgetPosition[] {
  const { budgets, rounds, plan, sizes } = summary;
  const groups = scoredGroups(summary.groups);
  const decided = groups.flatMap((group) => {
    const runs = runsOf(group);
    return runs === undefined ? [] : [[group.name, runs] as const];
  });
  if (budgets.length === 0 || plan === undefined || decided.length < groups.length) return [];
  const [after] = rounds;
  const run: BudgetPosition = {
    isRun: true,
    keep: plan.budget.keep,
    after: {
      ...after,
      // A plan may have been edited after its prediction; what was exported is counted.
      parameters: sizes?.parameters.pruned ?? after.parameters,
      macs: sizes?.macs.pruned ?? after.macs,
    },
    groups: Object.fromEntries(decided),
  };
  const others = budgets
    .filter(({ keep }) => keep !== run.keep)
    .map((budget) => ({ ...budget, isRun: false }));
  return [...others, run].sort((a, b) => a.keep - b.keep);
}

/** Decisions of runs: see `BudgetPlan`. */
export function countRuns(runs: readonly number[]): DecisionCounts {
  const count = (first: number) =>
    runs.reduce((sum, length, i) => sum + (i % 3 === first ? length : 0), 0);
  return { prune: count(0), implant: count(1), keep: count(2) };
}

const factNames = {
  macs: "multiply-accumulates",
  parameters: "parameters",
  keep: "kept",
  implant: "implants",
  prune: "removed",
} as const;

/** What is said of a position: value by value, and in one sentence. */
export function budgetFacts(
  { keep, after, groups, isRun }: BudgetPosition,
  { budget, before }: PlanSummary,
) {
  const counts = Object.values(groups)
    .map(countRuns)
    .reduce(addCounts, { keep: 0, implant: 0, prune: 0 });
  const values = {
    share: formatShare(keep),
    macs: formatCount(after.macs),
    macsShare: formatPercent(after.macs / before.macs, 1),
    parameters: formatCount(after.parameters),
    parametersShare: formatPercent(after.parameters / before.parameters, 1),
    keep: formatCount(counts.keep),
    implant: formatCount(counts.implant),
    prune: formatCount(counts.prune),
  };
  const said = (["macs", "parameters", "keep", "implant", "prune"] as const).map(
    (key) => `${values[key]} ${factNames[key]}`,
  );
  const own = isRun ? ", as in this run" : "";
  const text = `${values.share} of the ${budgetNames[budget.of]}${own}: ${said.join(", ")}`;
  return { values, text };
}

/** The slider and what the budget under it leaves, for the page's script to bring to life. */
export function budgetSlider(summary: Summary): Html {
  const { plan } = summary;
  const positions = budgetPositions(summary);
  if (positions.length === 0 || plan === undefined) return html``;
  const run = positions.findIndex(({ isRun }) => isRun);
  const { values, text } = budgetFacts(positions[run], plan);
  const fact = (key: keyof typeof factNames, share?: "macsShare" | "parametersShare") =>
    html`<div><dt>${factNames[key]}</dt><dd><span data-fact="${key}">${values[key]}</span>${share && html` <small data-fact="${share}">${values[share]}</small>`}</dd></div>`;
  return html`<div class="budget" id="budget" hidden>
<p class="budget-head"><label for="budget-slider">Budget: keep <b data-fact="share">${values.share}</b> of the ${budgetNames[plan.budget.of]}</label> <span class="quiet" id="budget-note">as in this run</span> <button type="button" id="budget-reset" hidden>Back to this run</button></p>
<input type="range" id="budget-slider" min="0" max="${positions.length - 1}" value="${run}" aria-valuetext="${text}" autocomplete="off">
<div class="ruler" aria-hidden="true">${ruler(positions, run)}</div>
<dl>${fact("macs", "macsShare")}${fact("parameters", "parametersShare")}${fact("keep")}${fact("implant")}${fact("prune")}</dl>
</div>`;
}

function ruler(positions: readonly BudgetPosition[], run: number): Html {
  const at = (i: number) => percent(positions.length === 1 ? 0.5 : i / (positions.length - 1));
  const ticks = positions.map(({ keep }, i) => {
    // Every tenth has room for its number.
    const tenths = Number((10 * keep).toFixed(6));
    const labelled = i !== run && Number.isInteger(tenths);
    return html`<line x1="${at(i)}" x2="${at(i)}" y2="${labelled ? 6 : 4}"/>${labelled && html`<text${tenths % 2 === 1 && html` class="roomy"`} x="${at(i)}" y="18" text-anchor="middle">${formatShare(keep)}</text>`}`;
  });
  return html`<svg width="100%" height="34">${ticks}<svg x="${at(run)}" overflow="visible"><path class="run" d="M0 0L6 9H-6z"/><text class="run" y="32" text-anchor="middle">this run, ${formatShare(positions[run].keep)}</text></svg></svg>`;
}

/** What the slider says, for those who run no scripts. */
export function budgetTable(summary: Summary): Html {
  const { plan } = summary;
  const positions = budgetPositions(summary);
  if (positions.length === 0 || plan === undefined) return html``;
  const rows = positions.map((position) => {
    const { values } = budgetFacts(position, plan);
    const name = position.isRun ? `${values.share}, this run` : values.share;
    return html`<tr data-budget="${position.keep}"><th scope="row">${name}</th>${(["macs", "parameters", "keep", "implant", "prune"] as const).map((key) => html`<td data-value="${values[key].replaceAll(",", "")}">${values[key]}</td>`)}</tr>`;
  });
  return html`<details><summary>Budgets as a table</summary>${table(["keep", ...Object.values(factNames)], rows, "Budgets")}</details>`;
}
