import { add, input, scalar } from "@espalier/graph";
import { conformanceCases, conformanceProblem, interpret } from "@espalier/graph/testing";
import { describe, expect, test } from "vitest";
import { createOnnxExecutor } from "./index.ts";

const executors = [createOnnxExecutor({ threads: 1 }), createOnnxExecutor({ threads: 2 })];

// Largest error of a result relative to its largest element; float32 has 6e-8 per operation.
const TOLERANCE = 2e-6;

describe.each(executors)("$name", (executor) => {
  test.each(conformanceCases.map((entry) => [entry.name, entry] as const))(
    "%s agrees with the reference, derivatives included",
    async (_name, entry) => {
      const { inputs, feeds, outputs } = conformanceProblem(entry);
      const names = Object.keys(outputs);
      const expected = interpret(
        Object.values(outputs),
        new Map(inputs.map((value, i) => [value, feeds[i]])),
      );
      const program = await executor.compile({ outputs });
      const results = await program.run(
        Object.fromEntries(feeds.map((data, i) => [`x${i}`, data])),
      );
      names.forEach((name, i) => {
        expect(results[name].shape).toEqual([...expected[i].shape]);
        const scale = expected[i].data.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-3);
        const error = expected[i].data.reduce(
          (a, b, k) => Math.max(a, Math.abs(b - Number(results[name].data[k]))),
          0,
        );
        expect(error / scale, name).toBeLessThan(TOLERANCE);
      });
      await program.dispose();
    },
  );

  test("inputs bound as constants are no longer fed", async () => {
    const [a, b] = [input("a", [2]), input("b", [2])];
    const program = await executor.compile({
      outputs: { total: add(a, b) },
      constants: new Map([[b, Float32Array.of(10, 20)]]),
    });
    expect(program.inputs.map(({ name }) => name)).toEqual(["a"]);
    const { total } = await program.run({ a: Float32Array.of(1, 2) });
    expect([...total.data]).toEqual([11, 22]);
  });

  test("feeds that are missing or too short are named", async () => {
    const program = await executor.compile({ outputs: { y: add(input("a", [2]), scalar(1)) } });
    await expect(program.run({})).rejects.toThrow("input a: expected 2 elements, got none");
    await expect(program.run({ a: new Float32Array(3) })).rejects.toThrow("got 3");
  });
});
