import {
  float32Data,
  input,
  lowerToOnnx,
  matmul,
  simplify,
  sizeOf,
  transpose,
  type Value,
} from "@espalier/graph";
import { createReferenceExecutor, randomArray } from "@espalier/graph/testing";
import { describe, expect, test } from "vitest";
import { createOnnxExecutor } from "./executor.ts";
import { fusedMatmul } from "./fused-matmul.ts";

const emitted = (y: Value) =>
  lowerToOnnx({ y: simplify([y])[0] }, { emitMatmul: fusedMatmul }).nodes.map(
    ({ type, attributes: { transA, transB } }) => ({ type, transA, transB }),
  );

const a = input("a", [2, 3, 5, 4]);
const b = input("b", [2, 3, 4, 6]);
const rows = input("rows", [4, 5]);
const columns = input("columns", [6, 4]);
// As attention has them: [samples, positions, heads, numbers].
const queries = input("queries", [2, 5, 3, 4]);
const keys = input("keys", [2, 6, 3, 4]);
const byHead = (x: Value) => transpose(x, [0, 2, 1, 3]);

const plain = { type: "MatMul", transA: undefined, transB: undefined };
const fused = (transA: number, transB: number) => ({ type: "FusedMatMul", transA, transB });
const permuted = { type: "Transpose", transA: undefined, transB: undefined };

const cases: readonly [string, Value, readonly object[]][] = [
  ["neither", matmul(a, b), [plain]],
  ["the left", matmul(transpose(rows), b), [fused(1, 0)]],
  ["the right", matmul(a, transpose(columns)), [fused(0, 1)]],
  ["both", matmul(transpose(rows), transpose(columns)), [fused(1, 1)]],
  [
    "what has been permuted before",
    matmul(byHead(queries), transpose(byHead(keys))),
    [permuted, permuted, fused(0, 1)],
  ],
  // (aᵀ b)ᵀ: the larger is read as it is.
  ["the smaller of two", transpose(matmul(transpose(b), transpose(a))), [plain]],
  [
    "the smaller, and the result",
    matmul(transpose(input("wide", [2, 4, 6])), input("narrow", [2, 4, 3])),
    [fused(1, 0), permuted],
  ],
];

describe.each(cases)("reads the other way round: %s", (_, y, nodes) => {
  test("as the nodes that are emitted", () => {
    expect(emitted(y)).toEqual(nodes);
  });

  test("equal to the reference", async () => {
    const [actual, expected] = await Promise.all(
      [createOnnxExecutor({ threads: 1 }), createReferenceExecutor()].map(async (executor) => {
        const program = await executor.compile({ outputs: { y } });
        const feeds = program.inputs.map(({ name, shape }, i) => [
          name,
          randomArray(sizeOf(shape), i),
        ]);
        const result = await program.run(Object.fromEntries(feeds));
        await program.dispose();
        return result.y;
      }),
    );
    expect(actual.shape).toEqual(expected.shape);
    float32Data(actual).forEach((element, i) => {
      expect(element).toBeCloseTo(float32Data(expected)[i], 4);
    });
  });
});

test("keys are permuted once for the products of both passes", () => {
  const head = byHead(keys);
  const scores = matmul(byHead(queries), transpose(head));
  const nodes = emitted(matmul(scores, head));
  expect(nodes.filter(({ type }) => type === "Transpose")).toHaveLength(2);
});
