import {
  add,
  clip,
  conv,
  gradient,
  input,
  integers,
  mean,
  multiply,
  operations,
  square,
  sum,
} from "@espalier/graph";
import { randomArray } from "@espalier/graph/testing";
import { memory } from "@tensorflow/tfjs-core";
import { describe, expect, test } from "vitest";
import { createTfjsExecutor } from "./index.ts";
import { kernels } from "./kernels.ts";

test("every portable operation with operands has a kernel, and no other", () => {
  const names = [...operations.values()]
    .filter(({ name, portable }) => !["input", "constant"].includes(name) && !portable)
    .map(({ name }) => name);
  expect(Object.keys(kernels).sort()).toEqual(names.sort());
});

describe.each(["tfjs-wasm", "tfjs-cpu"])("%s", (device) => {
  test("a hundred runs leave as many tensors as one", async () => {
    const executor = await createTfjsExecutor({ device });
    const before = memory().numTensors;
    const [x, w] = [input("x", [2, 4, 6, 6]), input("w", [4, 4, 3, 3])];
    const loss = mean(square(conv(x, w, { padding: [1, 1, 1, 1], strides: [2, 2] })));
    const [slope] = gradient(sum(square(gradient(loss, [w])[0])), [w]);
    const program = await executor.compile({
      outputs: { loss, slope },
      constants: new Map([[x, randomArray(288, 1)]]),
    });
    const feeds = { w: randomArray(144, 2) };
    await program.run(feeds);
    const { numTensors, numBytes } = memory();
    for (let run = 0; run < 100; run++) await program.run(feeds);
    expect(memory()).toMatchObject({ numTensors, numBytes });
    await program.dispose();
    expect(memory().numTensors).toBe(before);
  });

  test("a run that fails leaves no tensors", async () => {
    const executor = await createTfjsExecutor({ device });
    const product = multiply(input("a", [2]), input("b", [2]));
    const program = await executor.compile({ outputs: { total: sum(product) } });
    const before = memory().numTensors;
    await expect(program.run({ a: new Float32Array(2) })).rejects.toThrow("input b");
    expect(memory().numTensors).toBe(before);
  });

  test("a program that is refused leaves no tensors", async () => {
    const executor = await createTfjsExecutor({ device });
    const before = memory().numTensors;
    const w = input("w", [3]);
    const compiling = executor.compile({
      outputs: { a: sum(w), b: add(input("i", [1], "int64"), integers([1], [2 ** 40])) },
      constants: new Map([[w, new Float32Array(3)]]),
    });
    await expect(compiling).rejects.toThrow("expected an integer of 32 bits, got 1099511627776");
    expect(memory().numTensors).toBe(before);
  });

  test.each([
    [0, Number.POSITIVE_INFINITY, [0, 0, 1, 1, 1]],
    [Number.NEGATIVE_INFINITY, 0, [1, 0, 0, 0, 0]],
    [-1e30, 1e30, [1, 1, 1, 1, 1]],
    [0, 1e-25, [0, 0, 1, 0, 0]],
  ])("the derivative of clip is 1 between %d and %d alone", async (low, high, expected) => {
    const executor = await createTfjsExecutor({ device });
    const x = input("x", [5]);
    const [slope] = gradient(sum(clip(x, low, high)), [x]);
    const program = await executor.compile({ outputs: { slope } });
    const { data } = (await program.run({ x: Float32Array.of(-1, 0, 5e-26, 1, 1e20) })).slope;
    await program.dispose();
    expect([...data]).toEqual(expected);
  });

  test("a loop of runs lets timers have their turn", async () => {
    const executor = await createTfjsExecutor({ device });
    const program = await executor.compile({ outputs: { total: sum(input("a", [2])) } });
    let late = false;
    setTimeout(() => {
      late = true;
    }, 0);
    for (let run = 0; run < 10_000 && !late; run++) await program.run({ a: new Float32Array(2) });
    expect(late).toBe(true);
    await program.dispose();
  });
});

test("tensors of more axes than WebAssembly's kernels have are refused", async () => {
  const shape = [1, 2, 1, 3, 2, 2, 2];
  const outputs = { y: add(input("x", shape), input("z", shape)) };
  const executor = await createTfjsExecutor({ device: "tfjs-wasm" });
  await expect(executor.compile({ outputs })).rejects.toMatchObject({
    code: "runtime",
    message: "input: expected at most 6 axes on tfjs-wasm, got [1,2,1,3,2,2,2]",
  });
});
