/** @file The methods that tables compare: what each changes in the settings of a run. */
import type { Metric, PlanOptions } from "@espalier/core";
import { defaultTemperatures, type PruneSettings } from "@espalier/pipeline";

export interface Method {
  /** What it does, for readers of the tables. */
  readonly description: string;
  apply(settings: PruneSettings): PruneSettings;
}

const IMPLANT = 0.1;

function by(
  metric: Metric,
  description: string,
  plan: Partial<Pick<PlanOptions, "implant" | "rankBy">> = {},
): Method {
  return {
    description,
    apply: (settings) => ({
      ...settings,
      sensitivity: { ...settings.sensitivity, metric, temperature: defaultTemperatures[metric] },
      plan: { ...settings.plan, implant: 0, ...plan },
    }),
  };
}

/** HAP's own procedure, as its code executes it, but for the estimator of the trace, which is ours. */
function hap(description: string, implant: number): Method {
  return {
    description,
    apply: (settings) => ({
      ...settings,
      sensitivity: {
        ...settings.sensitivity,
        metric: "hessian-trace",
        temperature: 1,
        coupling: "apart",
      },
      plan: {
        ...settings.plan,
        implant,
        scope: "global",
        rankBy: "score",
        floor: 0.05,
        wholeBranches: false,
        roundTo: 1,
      },
      implantStart: "zero",
      compensation: "none",
      calibration: 0,
    }),
  };
}

const trace = "the relative Hessian trace, Espalier's planning and compensation";
const removal = "the second-order cost of removal at temperature 4";
const fittedRemoval = `${removal}, of what layers fitted to the other channels cannot make up for`;
const perSaving = "; what a component saves is measured when its turn comes";
const implants = `; ${100 * IMPLANT} % of what is given up become implants`;

const byTrace = by("hessian-trace", trace);

export const methods = {
  removal: by("removal", removal),
  "removal + implant": by("removal", removal + implants, { implant: IMPLANT }),
  "hessian-trace": byTrace,
  "hessian-trace + implant": by("hessian-trace", trace + implants, { implant: IMPLANT }),
  "hessian-trace, layers alike": {
    description: `${trace}; every group of components loses the same share`,
    apply: (settings) => {
      const { plan, ...rest } = byTrace.apply(settings);
      return { ...rest, plan: { ...plan, scope: "group" } };
    },
  },
  magnitude: by("magnitude", "the mean square of a component's weights"),
  gradient: by("gradient", "the mean of |Σ gradient · output|"),
  random: by("random", "standard normal numbers"),
  hap: hap(
    "HAP's own procedure: the trace, exact for up to 20 classes and by one random probe for more, one global ranking, nothing compensated",
    0,
  ),
  "hap + implant": hap(
    `the same; ${100 * IMPLANT} % of what is given up become implants that start from zero`,
    IMPLANT,
  ),
  "removal, per saving": by("removal", removal + perSaving, { rankBy: "score-per-saving" }),
  "hessian-trace, per saving": by("hessian-trace", trace + perSaving, {
    rankBy: "score-per-saving",
  }),
  "fitted-removal, per saving": by("fitted-removal", fittedRemoval + perSaving, {
    rankBy: "score-per-saving",
  }),
} as const satisfies Readonly<Record<string, Method>>;

export type MethodName = keyof typeof methods;

export const methodNames = Object.keys(methods) as [MethodName, ...MethodName[]];
