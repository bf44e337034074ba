/** @file Optimisers as graphs: what a step does to a parameter and to the optimiser's own state. */
import type { ParameterKind } from "@espalier/core";
import { add, divide, multiply, scalar, sqrt, square, subtract, type Value } from "@espalier/graph";

export interface SgdOptions {
  readonly name: "sgd";
  readonly momentum: number;
  readonly nesterov: boolean;
  /** Applied to weights only: norms and biases are spared. */
  readonly weightDecay: number;
}

/** AdamW of Loshchilov and Hutter 2019, arXiv 1711.05101: the decay is apart from the gradient. */
export interface AdamWOptions {
  readonly name: "adamw";
  readonly betas: readonly [number, number];
  readonly epsilon: number;
  readonly weightDecay: number;
}

export type OptimizerOptions = SgdOptions | AdamWOptions;

/** Scalars that change from step to step, as inputs of the program. */
export interface StepScalars {
  readonly learningRate: Value;
  /** 1 / (1 - βⁿ) of both moments at step n; AdamW only. */
  readonly corrections: readonly [Value, Value];
  /** By which all gradients are multiplied, at this step and at the last; default: 1. */
  readonly gradientScale?: { readonly now: Value; readonly last: Value } | undefined;
}

export interface Update {
  readonly parameter: Value;
  readonly state: readonly Value[];
}

interface Optimizer {
  /** Names of the tensors kept for each parameter, each of its shape, zero at first. */
  readonly state: readonly string[];
  update(
    parameter: Value,
    gradient: Value,
    state: readonly Value[],
    kind: ParameterKind,
    scalars: StepScalars,
  ): Update;
  /**
   * By what a step multiplies elements whose gradient and state are zero, given the learning rate;
   * undefined where it does more to them.
   */
  idle(kind: ParameterKind): ((learningRate: number) => number) | undefined;
}

export function createOptimizer(options: OptimizerOptions): Optimizer {
  return options.name === "sgd" ? sgd(options) : adamW(options);
}

function sgd({ momentum, nesterov, weightDecay }: SgdOptions): Optimizer {
  return {
    state: ["momentum"],
    update: (parameter, gradient, [velocity], kind, { learningRate, gradientScale }) => {
      const decay = kind === "weight" ? weightDecay : 0;
      const scaled = gradientScale ? multiply(gradient, gradientScale.now) : gradient;
      const total = decay === 0 ? scaled : add(scaled, multiply(parameter, scalar(decay)));
      const moved = add(multiply(velocity, scalar(momentum)), total);
      const step = nesterov ? add(total, multiply(moved, scalar(momentum))) : moved;
      return {
        parameter: subtract(parameter, multiply(step, learningRate)),
        state: [moved],
      };
    },
    // A decay that goes through the momentum does not leave the state zero.
    idle: (kind) => (kind === "weight" && weightDecay !== 0 ? undefined : () => 1),
  };
}

/**
 * The moments are kept divided by 1 - β, as sums over all steps, and by the scale of the last gradient,
 * so that all that is the same for every element is computed as scalars: a step over millions of
 * elements takes as long as the passes over them.
 */
function adamW({ betas: [beta1, beta2], epsilon, weightDecay }: AdamWOptions): Optimizer {
  return {
    state: ["discounted gradients", "discounted squares"],
    update: (parameter, gradient, [gradients, squares], kind, scalars) => {
      const { learningRate, corrections, gradientScale } = scalars;
      const rescale = gradientScale ? divide(gradientScale.last, gradientScale.now) : scalar(1);
      const m = add(multiply(gradients, multiply(rescale, scalar(beta1))), gradient);
      const v = add(multiply(squares, multiply(square(rescale), scalar(beta2))), square(gradient));
      // sqrt(v̂) = scale · deviation · sqrt(v), m̂ = scale · corrections[0] · (1 - β₁) · m
      const deviation = sqrt(multiply(corrections[1], scalar(1 - beta2)));
      const rate = divide(
        multiply(learningRate, multiply(corrections[0], scalar(1 - beta1))),
        deviation,
      );
      const scale = gradientScale ? multiply(deviation, gradientScale.now) : deviation;
      const step = divide(multiply(m, rate), add(sqrt(v), divide(scalar(epsilon), scale)));
      const decay = kind === "weight" ? weightDecay : 0;
      const decayed =
        decay === 0
          ? parameter
          : multiply(parameter, subtract(scalar(1), multiply(learningRate, scalar(decay))));
      return { parameter: subtract(decayed, step), state: [m, v] };
    },
    idle: (kind) => (learningRate) => 1 - learningRate * (kind === "weight" ? weightDecay : 0),
  };
}
