/** @file Convolutions whose output channels are joined, moved or filled up, as one convolution. */
import { concat, gather, pad } from "../ops/shape.ts";
import type { Shape, Value } from "../value.ts";
import {
  type Constant,
  countUses,
  type Draft,
  isContraction,
  isFolded,
  isName,
  weightOf,
} from "./draft.ts";

// ONNX Runtime's convolutions compute in blocks of 16 channels with AVX-512, and of 8 elsewhere.
const BLOCK = 16;

/**
 * Makes nodes that only arrange channels part of the convolutions before them:
 *
 * - Pad and Gather along channels, which put a branch in its places among those that it is added to:
 *   rows of zeros and another order of rows;
 * - Concat of convolutions of one input, which joins whole rows and implants: smaller kernels are
 *   put into the middle of the largest. That is more arithmetic, but what is joined is left in blocks
 *   of channels only if every part is made of whole blocks; those alone stay apart (decision 012).
 */
export function mergeRows(nodes: readonly Draft[], outputs: ReadonlySet<string>): Draft[] {
  const uses = countUses(nodes, outputs);
  const producers = new Map<string, Draft>();
  const merged = new Set<Draft>();
  const producerOf = (tensor: Constant | string) =>
    isName(tensor) && uses.get(tensor) === 1 ? producers.get(tensor) : undefined;

  /** A convolution that makes the channels of `tensor`, and of which nodes. */
  const convolutionOf = (tensor: Constant | string): Merge | undefined => {
    const producer = producerOf(tensor);
    if (producer === undefined) return undefined;
    if (isConvolution(producer)) return { convolution: producer, of: [producer] };
    const parts = partsOf(producer);
    const convolution = parts && joinRows(parts);
    return convolution && { convolution, of: [producer, ...parts] };
  };
  const partsOf = ({ type, attributes, inputs }: Draft): Draft[] | undefined => {
    if (type !== "Concat" || attributes.axis !== 1) return undefined;
    const parts = inputs.flatMap((input) => producerOf(input) ?? []);
    return parts.length === inputs.length && parts.every(isConvolution) ? parts : undefined;
  };
  const merge = (node: Draft): Merge | undefined => {
    const parts = partsOf(node);
    if (parts !== undefined) {
      if (parts.every((part) => weightOf(part).value.shape[0] % BLOCK === 0)) return undefined;
      const convolution = joinRows(parts);
      return convolution && { convolution, of: parts };
    }
    const arrange = arrangementOf(node);
    const source = arrange && convolutionOf(node.inputs[0]);
    return source && { convolution: arrangeRows(source.convolution, arrange), of: source.of };
  };

  const results = nodes.map((node) => {
    const found = merge(node);
    const kept = found === undefined ? node : { ...found.convolution, outputs: node.outputs };
    for (const replaced of found?.of ?? []) merged.add(replaced);
    for (const name of kept.outputs) producers.set(name, kept);
    return kept;
  });
  return results.filter((node) => !merged.has(node));
}

interface Merge {
  readonly convolution: Draft;
  /** The nodes that it stands for. */
  readonly of: readonly Draft[];
}

/** Of one group: rows of several do not go anywhere without their inputs. */
function isConvolution(node: Draft): boolean {
  const { type, inputs, attributes } = node;
  return (
    type === "Conv" && isContraction(node) && inputs.length === 3 && (attributes.group ?? 1) === 1
  );
}

/** What a node does to the channels of its input, as something done to the rows that make them. */
function arrangementOf({ type, inputs, attributes }: Draft) {
  const [, how, fill] = inputs;
  if (how === undefined || isName(how) || fill !== undefined) return undefined;
  if (type === "Gather" && attributes.axis === 1 && how.value.shape.length === 1) {
    return (rows: Value) => gather(rows, how.value, 0);
  }
  if (type !== "Pad" || (attributes.mode ?? "constant") !== "constant") return undefined;
  const widths = integersOf(how);
  const rank = widths.length / 2;
  const elsewhere = widths.some((width, i) => width !== 0 && i % rank !== 1);
  const [before, after] = [widths[1], widths[rank + 1]];
  if (elsewhere || before < 0 || after < 0) return undefined;
  return (rows: Value) => pad(rows, onAxis0(rows.shape, before), onAxis0(rows.shape, after));
}

function integersOf({ value }: Constant): number[] {
  return Array.from(value.attributes.data as BigInt64Array, Number);
}

const onAxis0 = ({ length }: Shape, width: number) =>
  Array.from({ length }, (_, axis) => (axis === 0 ? width : 0));

function arrangeRows(convolution: Draft, arrange: (rows: Value) => Value): Draft {
  const [x, ...parameters] = convolution.inputs;
  const arranged = parameters
    .filter(isFolded)
    .map(({ value, name }) => ({ value: arrange(value), name }));
  return { ...convolution, inputs: [x, ...arranged] };
}

/** One convolution with the rows of all; undefined if their kernels do not fit into one another. */
function joinRows(parts: readonly Draft[]): Draft | undefined {
  const windows = parts.map(windowOf);
  const largest = windows.reduce((a, b) => (b.kernel[0] > a.kernel[0] ? b : a));
  const alike = parts.every(
    ({ inputs, attributes: { strides, dilations } }) =>
      inputs[0] === parts[0].inputs[0] &&
      String(strides) === String(parts[0].attributes.strides) &&
      (dilations as readonly number[]).every((dilation) => dilation === 1),
  );
  const margins = windows.map(({ pads }) => largest.pads.map((pad, i) => pad - pads[i]));
  const fits = margins.every(
    ([top, left, bottom, right], i) =>
      Math.min(top, left, bottom, right) >= 0 &&
      windows[i].kernel[0] + top + bottom === largest.kernel[0] &&
      windows[i].kernel[1] + left + right === largest.kernel[1],
  );
  if (!alike || !fits) return undefined;
  const weights = parts.map((part, i) => {
    const [top, left, bottom, right] = margins[i];
    return pad(weightOf(part).value, [0, 0, top, left], [0, 0, bottom, right]);
  });
  const biases = parts.map(({ inputs }) => inputs[2] as Constant);
  return {
    ...largest.convolution,
    inputs: [
      parts[0].inputs[0],
      { value: concat(weights, 0), name: weightOf(largest.convolution).name },
      {
        value: concat(
          biases.map(({ value }) => value),
          0,
        ),
        name: biases[parts.indexOf(largest.convolution)].name,
      },
    ],
  };
}

function windowOf(convolution: Draft) {
  const { kernel_shape: kernel, pads } = convolution.attributes;
  return { convolution, kernel: kernel as readonly number[], pads: pads as readonly number[] };
}
