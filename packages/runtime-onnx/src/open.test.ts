import { add, encodeOnnx, input, lowerToOnnx, scalar } from "@espalier/graph";
import { expect, test } from "vitest";
import { openOnnxModel } from "./index.ts";

const graph = lowerToOnnx({ y: add(input("x", [2, 3]), scalar(1)) }, { openBatch: 2 });
const feed = (...shape: [number, number]) => ({
  dtype: "float32" as const,
  shape,
  data: new Float32Array(shape[0] * shape[1]),
});

test("open dimensions take the size of what is fed", async () => {
  const model = await openOnnxModel(encodeOnnx(graph));
  for (const batch of [1, 4]) {
    const { y } = await model.run({ x: feed(batch, 3) });
    expect(y).toEqual({ ...feed(batch, 3), data: new Float32Array(3 * batch).fill(1) });
  }
  await model.dispose();
});

test("what ONNX Runtime refuses is an error of ours", async () => {
  await expect(openOnnxModel(new Uint8Array(10))).rejects.toThrow(/ONNX Runtime could not compile/);
  const model = await openOnnxModel(encodeOnnx(graph));
  await expect(model.run({})).rejects.toThrow(/ONNX Runtime could not run: .*'x'/);
  await expect(model.run({ x: feed(2, 4) })).rejects.toThrow(/could not run/);
  await expect(model.run({ x: { ...feed(2, 3), shape: [3, 3] } })).rejects.toThrow(/could not run/);
  await model.dispose();
});
