import { readFile } from "node:fs/promises";
import { conv, gradient, input, mean, operations, square, sum } from "@espalier/graph";
import { conformanceChecks, expectConformance, randomArray } from "@espalier/graph/testing";
import { memory } from "@tensorflow/tfjs-core";
import { describe, expect, test } from "vitest";
import { createTfjsExecutor, tfjsBackends } from "./index.ts";
import { kernels } from "./kernels.ts";

test("every operation with operands has a kernel, and no other", () => {
  const leaves = ["input", "constant"];
  const names = [...operations.keys()].filter((name) => !leaves.includes(name));
  expect(Object.keys(kernels).sort()).toEqual(names.sort());
});

describe.each(["tfjs-wasm", "tfjs-cpu"])("%s", (device) => {
  test.each(conformanceChecks.map((check) => [check.name, check] as const))(
    "%s",
    async (_name, check) => {
      await expectConformance(check, await createTfjsExecutor({ device }));
    },
  );

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
    const total = sum(
      input("a", [2], "int64").dtype === "int64" ? input("b", [2]) : input("b", [2]),
    );
    const program = await executor.compile({ outputs: { total } });
    const before = memory().numTensors;
    await expect(program.run({})).rejects.toThrow("input b: expected 2 elements, got none");
    expect(memory().numTensors).toBe(before);
  });
});
