/**
 * @file What the page's script draws strips and reads scores from. All numbers are texts already:
 * the script works nothing out.
 */
import { type Decision, leastSensitiveFirst } from "@espalier/core";
import { budgetFacts, budgetPositions, runsOf } from "./budgets.ts";
import { fates } from "./explain.ts";
import { formatNumber } from "./format.ts";
import { Html } from "./html.ts";
import { type ScoredGroup, type ScoreScale, scoredGroups, scoreScale } from "./score-panels.ts";
import type { Summary } from "./summary.ts";

// Shades of a strip.
const LEVELS = 10;

export interface GroupData {
  readonly name: string;
  /** The numbers of its components, the least sensitive first; so are scores and errors. */
  readonly components: readonly number[];
  readonly scores: readonly string[];
  /** Empty where there are none. */
  readonly errors: readonly string[];
  /** How many components there are of each shade, from the lowest scores to the highest. */
  readonly levels: readonly number[];
  /** The run's decisions, as `BudgetPlan` has them. */
  readonly decisions: readonly number[] | undefined;
}

export interface BudgetData {
  /** For those who do not see the slider. */
  readonly text: string;
  readonly isRun: boolean;
  /** By the names of the places in the page where they stand. */
  readonly facts: Readonly<Record<string, string>>;
  /** The decisions on each group. */
  readonly groups: readonly (readonly number[])[];
}

export interface PageData {
  /** What happens to a component, in the order of the runs. */
  readonly fates: readonly string[];
  readonly groups: readonly GroupData[];
  /** In the order of the slider's positions. */
  readonly budgets: readonly BudgetData[];
}

/** What the page of a run embeds; undefined if nothing was scored. */
export function pageData(summary: Summary): PageData | undefined {
  if (summary.sensitivity === undefined) return undefined;
  const groups = scoredGroups(summary.groups);
  const scale = scoreScale(groups, summary.sensitivity.metric);
  return {
    fates: (["prune", "implant", "keep"] satisfies Decision[]).map((decision) => fates[decision]),
    groups: groups.map((group) => groupData(group, scale)),
    budgets: budgetPositions(summary).map((position) => {
      const { values, text } = budgetFacts(position, summary.plan!);
      const decisions = groups.map(({ name }) => position.groups[name]);
      return { text, isRun: position.isRun, facts: values, groups: decisions };
    }),
  };
}

function groupData(group: ScoredGroup, { height }: ScoreScale): GroupData {
  const { name, scores, standardErrors } = group;
  const components = leastSensitiveFirst(scores);
  const errors = components.map((i) => (standardErrors[i] ? formatNumber(standardErrors[i]) : ""));
  const levels = new Array<number>(LEVELS).fill(0);
  for (const score of scores) {
    levels[Math.min(LEVELS - 1, Math.floor(LEVELS * height(score)))]++;
  }
  return {
    name,
    components,
    scores: components.map((i) => formatNumber(scores[i])),
    errors: errors.some((error) => error !== "") ? errors : [],
    levels,
    decisions: runsOf(group),
  };
}

/** JSON that no text in it can end the element of. */
export function embedJson(id: string, value: unknown): Html {
  const json = JSON.stringify(value).replaceAll("<", "\\u003c");
  return new Html(`<script type="application/json" id="${id}">${json}</script>`);
}
