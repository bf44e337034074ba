import { conv, float32Data, input, lowerToOnnx, sizeOf, type Value } from "@espalier/graph";
import { createReferenceExecutor } from "@espalier/graph/testing";
import { describe, expect, test } from "vitest";
import { blockedConv, blockSize } from "./blocked-conv.ts";
import { createOnnxExecutor, sessionOptions } from "./executor.ts";
import { createSessions } from "./sessions.ts";

const noise = (shape: readonly number[], seed: number) =>
  Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin((i + 1) * (seed + 0.37)));

const isBlocked = (y: Value, constants?: ReadonlyMap<Value, Float32Array>) => {
  const { nodes } = lowerToOnnx({ y }, { constants, emitConv: blockedConv(16) });
  return nodes.some(({ domain }) => domain !== "");
};

const image = [2, 20, 6, 5];
const cases: readonly [string, readonly number[], readonly number[], Parameters<typeof conv>[2]][] =
  [
    ["fewer channels than a block", [2, 3, 6, 5], [10, 3, 3, 3], { padding: [1, 1, 1, 1] }],
    ["whole blocks", [2, 32, 6, 5], [16, 32, 3, 3], { padding: [1, 1, 1, 1] }],
    ["broken blocks", image, [18, 20, 3, 3], { padding: [1, 1, 1, 1] }],
    ["one row", image, [1, 20, 3, 3], {}],
    ["1x1, stride 2", image, [24, 20, 1, 1], { strides: [2, 2] }],
    ["stride 2, uneven padding", image, [7, 20, 3, 3], { strides: [2, 2], padding: [0, 1, 1, 2] }],
    ["dilation", image, [33, 20, 3, 2], { dilations: [2, 1], padding: [2, 0, 2, 1] }],
  ];

describe.each(cases)("%s", (_, xShape, wShape, attributes) => {
  const [x, w] = [input("x", xShape), input("w", wShape)];
  const y = conv(x, w, attributes);

  test("is emitted in blocks", () => {
    expect(isBlocked(y)).toBe(true);
  });

  test("equals the reference", async () => {
    const feeds = { x: noise(xShape, 1), w: noise(wShape, 2) };
    const [actual, expected] = await Promise.all(
      [createOnnxExecutor({ threads: 1 }), createReferenceExecutor()].map(async (executor) => {
        const program = await executor.compile({ outputs: { y } });
        const result = float32Data((await program.run(feeds)).y);
        await program.dispose();
        return result;
      }),
    );
    expected.forEach((value, i) => {
      expect(actual[i]).toBeCloseTo(value, 4);
    });
  });
});

test("constant weights, groups and odd channel counts are left to ONNX Runtime", () => {
  const x = input("x", [2, 32, 6, 5]);
  const w = input("w", [16, 32, 3, 3]);
  expect(isBlocked(conv(x, w), new Map([[w, noise(w.shape, 1)]]))).toBe(false);
  expect(isBlocked(conv(x, input("grouped", [16, 16, 3, 3]), { groups: 2 }))).toBe(false);
  expect(isBlocked(conv(input("odd", [2, 18, 6, 5]), input("v", [16, 18, 3, 3])))).toBe(false);
});

test("the size of a block is one that the operators have, where there are any", async () => {
  expect([undefined, 8, 16]).toContain(await blockSize(createSessions(), sessionOptions({})));
});
