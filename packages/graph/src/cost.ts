/** @file What a graph costs, read off the graph itself. */
import { isConstant, isInput } from "./ops/leaf.ts";
import { reshapeOperation } from "./ops/shape.ts";
import { type DType, sizeOf, topologicalOrder, type Value } from "./value.ts";

const bytesPerElement: Readonly<Record<DType, number>> = { float32: 4, int64: 8, bool: 1 };

/** Bytes of one tensor of the value's shape and type. */
export function bytesOf(value: Value): number {
  return sizeOf(value.shape) * bytesPerElement[value.dtype];
}

export interface Cost {
  /** Multiply-accumulates of convolutions and matrix products; one is two floating-point operations. */
  readonly macs: number;
  /** Elements of the inputs counted as parameters. */
  readonly parameters: number;
  /**
   * Largest sum of bytes of tensors alive at once, parameters and operations' own workspace
   * included, in creation order. An executor needs about as much.
   */
  readonly peakBytes: number;
}

/** The value whose memory `value` is in: a reshape shares that of its input. */
function ownerOf(value: Value): Value {
  return value.operation === reshapeOperation ? ownerOf(value.inputs[0]) : value;
}

/**
 * @param isParameter Which inputs are parameters. Only those that `outputs` use are counted.
 */
export function cost(
  outputs: readonly Value[],
  isParameter: (value: Value) => boolean = () => false,
): Cost {
  const order = topologicalOrder(outputs);
  let macs = 0;
  let parameters = 0;
  const lastUse = new Map<Value, number>();
  order.forEach((value, at) => {
    macs += value.operation.macs?.(value) ?? 0;
    if (isInput(value) && isParameter(value)) parameters += sizeOf(value.shape);
    for (const operand of value.inputs) lastUse.set(ownerOf(operand), at);
  });
  for (const output of outputs) lastUse.set(ownerOf(output), order.length);

  let alive = 0;
  let peakBytes = 0;
  const ending = new Map<number, number>();
  order.forEach((value, at) => {
    const bytes = ownerOf(value) === value ? bytesOf(value) : 0;
    alive += bytes;
    peakBytes = Math.max(peakBytes, alive + (value.operation.workspaceBytes?.(value) ?? 0));
    const held = isInput(value) || isConstant(value) ? order.length : (lastUse.get(value) ?? at);
    ending.set(held, (ending.get(held) ?? 0) + bytes);
    alive -= ending.get(at) ?? 0;
  });
  return { macs, parameters, peakBytes };
}
