/**
 * @file Matrix products of matrices that are read the other way round.
 *
 * ONNX Runtime's FusedMatMul exchanges the last two axes of its operands as it reads them. Its own
 * optimizer finds out where, but only after it has joined exchanges with other permutations before
 * them: attention then permutes queries, keys and values once more for the products of the backward
 * pass, though they are there already.
 */
import { exchangesLast, type MatmulEmitter, type OnnxBuilder } from "@espalier/graph";

/** Emits products with operands whose last two axes have been exchanged as of what they were before. */
export const fusedMatmul: MatmulEmitter = (builder, a, b) => {
  const [left, right] = [a, b].map((name) => exchangedOf(builder, name));
  if (left === undefined && right === undefined) return undefined;
  const attributes = { transA: left === undefined ? 0 : 1, transB: right === undefined ? 0 : 1 };
  return builder.node("FusedMatMul", [left ?? a, right ?? b], attributes, "com.microsoft");
};

/** What `name` is with its last two axes exchanged, if that is there. */
function exchangedOf(builder: OnnxBuilder, name: string): string | undefined {
  const node = builder.producerOf(name);
  if (node?.type !== "Transpose") return undefined;
  return exchangesLast(node.attributes.perm as readonly number[]) ? node.inputs[0] : undefined;
}
