/** @file The plans that results so far have been measured with. */
import type { Budget, PlanOptions } from "@espalier/core";
import { defaultPlan } from "@espalier/pipeline";

/**
 * Espalier's plan for a budget as it was when the results were measured: what components save was that
 * of the whole network, whatever else goes. Decision 039 says what the default is since, and why.
 */
export function measuredPlan(budget: Budget): PlanOptions {
  return { ...defaultPlan(budget), rankBy: "score-per-cost" };
}
