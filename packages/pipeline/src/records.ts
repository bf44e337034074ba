/** @file Sensitivities and plans as JSON. */
import { EspalierError, quote, show } from "@espalier/base";
import {
  type ComponentGroup,
  type Decision,
  hasRank,
  implantRank,
  leastSensitiveFirst,
  type Metric,
  metrics,
  type Plan,
  type PlanOptions,
  type Sensitivity,
} from "@espalier/core";
import * as z from "zod";
import type { LatencyPromise } from "./latency-budget.ts";

/** A group and its scores, as `sensitivity.json` holds them. */
export interface GroupRecord extends ComponentGroup {
  readonly scores: readonly number[];
  /** Null where the error is not known. */
  readonly standardErrors: readonly (number | null)[];
}

export interface SensitivityRecord extends Omit<Sensitivity, "groups"> {
  readonly groups: readonly GroupRecord[];
}

/** JSON has no NaN. */
function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

export function encodeSensitivity(sensitivity: Sensitivity): SensitivityRecord {
  return {
    ...sensitivity,
    groups: sensitivity.groups.map(({ group, scores, standardErrors }) => ({
      ...group,
      scores: [...scores],
      standardErrors: Array.from(standardErrors, finite),
    })),
  };
}

const sensitivitySchema = z.object({
  metric: z.enum(metrics),
  estimator: z.enum(["exact", "probe", "hutchinson", "control-variate"]).optional(),
  temperature: z.number(),
  coupling: z.enum(["together", "apart"]),
  samples: z.number(),
  draws: z.number(),
  negative: z.number(),
  rankStability: z.number(),
  groups: z.array(
    z.object({
      name: z.string(),
      scores: z.array(z.number()),
      standardErrors: z.array(z.number().nullable()),
    }),
  ),
});

/**
 * The scores of the components `groups`.
 *
 * @throws EspalierError `invalid-file` for something else, `mismatched-model` for scores of others.
 */
export function decodeSensitivity(
  record: unknown,
  groups: readonly ComponentGroup[],
  path: string,
): Sensitivity {
  const { success, data, error } = sensitivitySchema.safeParse(record);
  if (!success) {
    const [{ path: keys, message }] = error.issues;
    throw new EspalierError("invalid-file", `${path}: ${keys.join(".")}: ${message}`, { path });
  }
  const { groups: scored, estimator, ...measured } = data;
  const isOf = ({ name, count }: ComponentGroup, i: number) =>
    scored[i]?.name === name &&
    scored[i].scores.length === count &&
    scored[i].standardErrors.length === count;
  if (scored.length !== groups.length || !groups.every(isOf)) {
    throw new EspalierError(
      "mismatched-model",
      `${path}: expected scores and errors of the ${groups.length} groups of the model, from ${groups[0]?.name} on, got ${scored.length} groups from ${quote(scored[0]?.name ?? "")} on`,
      { path },
    );
  }
  return {
    ...measured,
    ...(estimator === undefined ? {} : { estimator }),
    groups: groups.map((group, i) => ({
      group,
      scores: Float64Array.from(scored[i].scores),
      standardErrors: Float64Array.from(scored[i].standardErrors, (error) => error ?? Number.NaN),
    })),
  };
}

/** What a plan does to one group: the numbers of its components that are not kept. */
export interface GroupPlan {
  /** The weights that the components are rows of. */
  readonly layers: readonly string[];
  readonly components: number;
  readonly implant: readonly number[];
  /** Of implants of attention heads. */
  readonly implantRank?: number | undefined;
  readonly prune: readonly number[];
}

/** A plan as `plan.json` holds it, to be read and edited by people. */
export interface PlanRecord {
  readonly metric: Metric;
  readonly options: PlanOptions;
  readonly before: Plan["before"];
  readonly after: Plan["after"];
  /** Of budgets of latency, in the last round. */
  readonly latency?: LatencyPromise | undefined;
  readonly groups: Readonly<Record<string, GroupPlan>>;
}

export function encodePlan(
  { options, decisions, before, after }: Plan,
  metric: Metric,
  groups: readonly ComponentGroup[],
  latency?: LatencyPromise,
): PlanRecord {
  const known = new Map(groups.map((group) => [group.name, group]));
  const numbers = (list: readonly Decision[], wanted: Decision) =>
    list.flatMap((decision, i) => (decision === wanted ? [i] : []));
  return {
    metric,
    options,
    before,
    after,
    ...(latency === undefined ? {} : { latency }),
    groups: Object.fromEntries(
      [...decisions].map(([name, list]): [string, GroupPlan] => {
        const group = known.get(name);
        const implant = numbers(list, "implant");
        return [
          name,
          {
            layers: group?.rows.map(({ parameter }) => parameter) ?? [],
            components: list.length,
            implant,
            ...(group && implant.length > 0 && hasRank(group)
              ? { implantRank: implantRank(group, options.implantRank) }
              : {}),
            prune: numbers(list, "prune"),
          },
        ];
      }),
    ),
  };
}

/**
 * The decisions of a plan, which may have been edited.
 *
 * @throws EspalierError `mismatched-model` naming the group and the component that do not fit.
 */
export function decodeDecisions(
  record: PlanRecord,
  groups: readonly ComponentGroup[],
  path: string,
): Map<string, Decision[]> {
  const fail = (what: string): never => {
    throw new EspalierError("mismatched-model", `${path}: ${what}`, { path });
  };
  if (typeof record?.groups !== "object" || record.groups === null) {
    fail(`expected "groups" with the decisions of each group, got ${show(record?.groups)}`);
  }
  if (typeof record.options?.budget?.keep !== "number") {
    fail(`expected "options" with the budget of the plan, got ${show(record.options)}`);
  }
  const known = new Map(groups.map((group) => [group.name, group]));
  const decisions = new Map(
    groups.map(({ name, count }) => [name, new Array<Decision>(count).fill("keep")]),
  );
  for (const [name, plan] of Object.entries(record.groups)) {
    const group = known.get(name);
    const list = decisions.get(name);
    if (group === undefined || list === undefined) {
      return fail(
        `group ${quote(name)}: the model has no such group; it has ${[...known.keys()].join(", ")}`,
      );
    }
    if (plan?.components !== group.count) {
      fail(`group ${name}: expected ${group.count} components, got ${show(plan?.components)}`);
    }
    for (const decision of ["prune", "implant"] as const) {
      const numbers: unknown = plan[decision];
      if (!Array.isArray(numbers))
        return fail(
          `group ${name}: expected a list of component numbers in "${decision}", got ${show(numbers)}`,
        );
      for (const i of numbers) {
        if (!Number.isInteger(i) || i < 0 || i >= group.count) {
          fail(
            `group ${name}: expected component numbers below ${group.count}, got ${JSON.stringify(i)}`,
          );
        }
        if (list[i] !== "keep") fail(`group ${name}: component ${i} is listed twice`);
        list[i] = decision;
      }
    }
    if (plan.implant.length > 0 && !group.implantable) {
      fail(`group ${name}: expected no implants, which would save nothing there`);
    }
    if (!group.emptiable && list.every((decision) => decision === "prune")) {
      fail(`group ${name}: expected at least one component to be kept`);
    }
  }
  return decisions;
}

/** What another budget would have done; nothing in a run follows it. */
export interface BudgetPlan {
  /** The share to be kept of what the run's budget is about. */
  readonly keep: number;
  readonly after: PlanRecord["after"];
  /**
   * The decisions on each group's components, the least sensitive first, as lengths of runs: so many
   * removed, so many replaced by implants, so many kept, then removed again, and so on.
   */
  readonly groups: Readonly<Record<string, readonly number[]>>;
}

/** The content of `budgets.json`. */
export interface BudgetsRecord {
  readonly budgets: readonly BudgetPlan[];
}

const RUN_ORDER: readonly Decision[] = ["prune", "implant", "keep"];

/** Decisions as lengths of runs; see `BudgetPlan`. */
export function encodeRuns(decisions: readonly Decision[]): number[] {
  const runs: number[] = [];
  for (const decision of decisions) {
    const at = Math.max(0, runs.length - 1);
    const ahead = (RUN_ORDER.indexOf(decision) - (at % 3) + 3) % 3;
    while (runs.length <= at + ahead) runs.push(0);
    runs[at + ahead]++;
  }
  return runs;
}

export function encodeBudgets(plans: readonly Plan[], { groups }: Sensitivity): BudgetsRecord {
  return {
    budgets: plans.map(({ options, after, decisions }) => ({
      keep: options.budget.keep,
      after,
      groups: Object.fromEntries(
        groups.map(({ group, scores }) => {
          const decided = decisions.get(group.name)!;
          return [group.name, encodeRuns(leastSensitiveFirst(scores).map((i) => decided[i]))];
        }),
      ),
    })),
  };
}
