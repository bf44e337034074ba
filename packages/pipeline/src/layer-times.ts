/** @file How long single layers take. */
import {
  concat,
  encodeOnnx,
  input,
  type Layer,
  lowerToOnnx,
  maxPool,
  relu,
  sizeOf,
  type TensorData,
  tidyForInference,
  type Value,
} from "@espalier/graph";
import { type Latency, noise, type TimedModel, type Timing, undisturbed } from "./latency.ts";

// Copies beyond the first: as many as make the difference large beside noise.
const MOST_COPIES = 8;
const ENOUGH_MULTIPLY_ACCUMULATES = 5e7;
// As short as fair turns allow.
const SECONDS = 0.1;

/** A layer at certain widths, and what was measured of it so far. */
export class LayerTimer {
  readonly #layer: Layer;
  readonly #inputs: number;
  readonly #outputs: number;
  readonly #more: number;
  readonly #passes: (readonly Latency[])[] = [];

  constructor(layer: Layer, inputs: number, outputs: number) {
    [this.#layer, this.#inputs, this.#outputs] = [layer, inputs, outputs];
    const { x, w } = layer.shapes(inputs, outputs);
    const single = layer.apply(input("x", x), input("w", w));
    const macs = single.operation.macs?.(single) ?? 0;
    this.#more = Math.min(MOST_COPIES, Math.max(1, Math.ceil(ENOUGH_MULTIPLY_ACCUMULATES / macs)));
  }

  async measure(timing: Timing, signal?: AbortSignal): Promise<void> {
    // Not kept from pass to pass, since the weights of all widths of a network are many.
    const models = [1, 1 + this.#more].map((count) =>
      copies(this.#layer, this.#inputs, this.#outputs, count),
    );
    this.#passes.push(await timing.measure(models, SECONDS, signal));
  }

  /**
   * Milliseconds: how much longer a model of several copies takes than one of a single copy, so that
   * calling the runtime does not count. Of all passes the least disturbed, since other programs only
   * ever make one slower.
   */
  get milliseconds(): number {
    return this.#difference(this.#passes);
  }

  /** The time by each pass alone. */
  get readings(): readonly number[] {
    return this.#passes.map((pass) => this.#difference([pass]));
  }

  #difference(passes: readonly (readonly Latency[])[]): number {
    const [one, several] = [0, 1].map((i) =>
      Math.min(...passes.map((pass) => undisturbed(pass[i]))),
    );
    return Math.max(0, (several - one) / this.#more);
  }
}

/** A model of `count` copies of a layer, which differ in their weights, on one tensor. */
function copies(layer: Layer, inputs: number, outputs: number, count: number): TimedModel {
  const { x: shape, w } = layer.shapes(inputs, outputs);
  const x = input("x", shape);
  const constants = new Map<Value, TensorData>();
  const results = Array.from({ length: count }, (_, i) => {
    const weight = input(`w${i}`, w);
    // Equal weights would be merged by the runtime.
    constants.set(weight, noise(sizeOf(w), i));
    return corner(relu(layer.apply(x, weight)));
  });
  const graph = lowerToOnnx({ y: concat(results, 1) }, { constants });
  return { onnx: encodeOnnx(tidyForInference(graph)), inputs: { x: { shape, dtype: "float32" } } };
}

/** One position of a feature map, so that passing results on takes no time. */
function corner(value: Value): Value {
  const [, , ...size] = value.shape;
  if (size.length !== 2) return value;
  return maxPool(value, {
    kernel: [1, 1],
    strides: [size[0], size[1]],
    padding: [0, 0, 0, 0],
  });
}
