/**
 * @file Convolutions in blocks of channels.
 *
 * ONNX Runtime's fast convolutions on CPUs, of its operator domain com.microsoft.nchwc, take
 * activations [N, C/B, H, W, B] and weights [K/B, C/B, kh, kw, B of C, B of K], for blocks of B
 * channels. It uses them by itself where weights are constant. Where they are not, as in training,
 * the same operators can be asked for by name: see decisions/010.
 */
import { type ConvEmitter, encodeOnnx } from "@espalier/graph";
import type { InferenceSession } from "onnxruntime-node";
import type { Sessions } from "./sessions.ts";

const DOMAIN = "com.microsoft.nchwc";

let probed: Promise<number | undefined> | undefined;

/** Channels in a block on this processor; undefined where ONNX Runtime has no such operators. */
export function blockSize(
  sessions: Sessions,
  options: InferenceSession.SessionOptions,
): Promise<number | undefined> {
  probed ??= probeBlockSize(sessions, options);
  return probed;
}

/** One channel is filled up to a whole block, which shows how large a block is. */
async function probeBlockSize(
  sessions: Sessions,
  options: InferenceSession.SessionOptions,
): Promise<number | undefined> {
  const model = encodeOnnx({
    inputs: [{ name: "x", dtype: "float32", shape: [1, 4, 1, 1] }],
    outputs: [{ name: "result.0", dtype: "float32", shape: [1, "channels", 1, 1] }],
    nodes: [
      {
        type: "ReorderInput",
        domain: DOMAIN,
        inputs: ["x"],
        outputs: ["result.0"],
        attributes: {},
      },
    ],
    tensors: new Map(),
  });
  try {
    const session = await sessions.open({
      ...{ model, outputs: 1 },
      options: { ...options, logSeverityLevel: 4 },
    });
    const [{ shape }] = await sessions.run(session, {
      x: { dtype: "float32", shape: [1, 4, 1, 1], data: new Float32Array(4) },
    });
    await sessions.close(session);
    const [, block] = shape;
    return block === 8 || block === 16 ? block : undefined;
  } catch {
    return undefined;
  }
}

const upTo = (multiple: number, count: number) => Math.ceil(count / multiple) * multiple;

/** Emits convolutions in blocks of `block` channels, where ONNX Runtime's operators allow. */
export function blockedConv(block: number): ConvEmitter {
  return (builder, x, weight, [outputs, inputs, height, width], attributes) => {
    // Fewer input channels than a block are read as they are; others are reordered by fours.
    const plainInput = inputs < block;
    if (attributes.group !== 1 || !(plainInput || inputs % 4 === 0)) return undefined;
    const rows = upTo(block, outputs);
    const columns = plainInput ? inputs : upTo(block, inputs);
    let filter = weight;
    if (rows > outputs || columns > inputs) {
      const widths = [0, 0, 0, 0, rows - outputs, columns - inputs, 0, 0];
      filter = builder.node("Pad", [filter, builder.ints(widths)]);
    }
    const inner = plainInput ? 1 : block;
    const split = [rows / block, block, columns / inner, inner, height, width];
    filter = builder.reshape(filter, [rows, columns, height, width], split);
    filter = builder.node("Transpose", [filter], { perm: [0, 2, 4, 5, 3, 1] });
    filter = builder.reshape(filter, split, [rows, columns, height, width]);
    const source = plainInput ? x : builder.node("ReorderInput", [x], {}, DOMAIN);
    const result = builder.node("Conv", [source, filter], attributes, DOMAIN);
    return builder.node("ReorderOutput", [result], { channels: outputs }, DOMAIN);
  };
}
