/** @file What a model is trained for: its loss, and the curvature of the loss in its outputs. */
import {
  crossEntropy,
  multiply,
  scalar,
  softmax,
  sqrt,
  square,
  subtract,
  sum,
  type Value,
} from "@espalier/graph";
import { oneHot } from "./batches.ts";

export interface Objective {
  readonly name: "classification" | "regression";
  /** What the outputs are compared with, [labels, outputs]: zero beyond the first `count`. */
  targets(labels: ArrayLike<number>, outputs: number, count?: number): Float32Array;
  /** The loss of each sample, [batch], from outputs and targets [batch, outputs]. */
  loss(outputs: Value, targets: Value): Value;
  /** The gradient of the loss with respect to the outputs. */
  residual(outputs: Value, targets: Value): Value;
  /**
   * A root of the loss's Hessian H in the outputs, applied to `directions` r: over random signs, or
   * summed over the unit vectors, the outer products of the results are H.
   *
   * @param temperature Softens what the outputs are sure of.
   */
  root(outputs: Value, directions: Value, temperature: number): Value;
}

/**
 * Cross-entropy of softmax. With H = diag(p) - p pᵀ = Σ_j p_j (e_j - p)(e_j - p)ᵀ, the root for
 * directions r is Σ_j r_j √p_j (e_j - p).
 */
export const classification: Objective = {
  name: "classification",
  targets: oneHot,
  loss: crossEntropy,
  residual: (outputs, targets) => subtract(softmax(outputs), targets),
  root: (outputs, directions, temperature) => {
    const p = softmax(multiply(outputs, scalar(1 / temperature)));
    const weighted = multiply(directions, sqrt(p));
    return subtract(weighted, multiply(p, sum(weighted, [-1], true)));
  },
};

/** Half the squared error, whose Hessian in the outputs is the identity. */
export const regression: Objective = {
  name: "regression",
  targets: (labels, outputs, count = labels.length) =>
    Float32Array.from({ length: labels.length * outputs }, (_, i) =>
      i < count * outputs ? labels[Math.floor(i / outputs)] : 0,
    ),
  loss: (outputs, targets) => multiply(sum(square(subtract(outputs, targets)), [-1]), scalar(0.5)),
  residual: subtract,
  root: (_outputs, directions) => directions,
};

/** Objectives by their names. */
export const objectives = { classification, regression } as const;

/** What `model` is trained for. */
export function objectiveOf({
  objective,
}: {
  readonly objective?: Objective | undefined;
}): Objective {
  return objective ?? classification;
}
