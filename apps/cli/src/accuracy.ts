/** @file How accuracies are written. */
import type { Objective } from "@espalier/core";

/** "92.60 %", or where a number is predicted Pearson's correlation, "0.8642", which `evaluate` gives then. */
export function formatAccuracy(accuracy: number, objective: Objective["name"]): string {
  return objective === "regression" ? accuracy.toFixed(4) : `${(100 * accuracy).toFixed(2)} %`;
}

/** "92.60 % of 10000 test samples", "correlation 0.8642 on 1500 test samples". */
export function describeAccuracy(
  { accuracy, count }: { readonly accuracy: number; readonly count: number },
  objective: Objective["name"],
): string {
  const written = formatAccuracy(accuracy, objective);
  return objective === "regression"
    ? `correlation ${written} on ${count} test samples`
    : `${written} of ${count} test samples`;
}
