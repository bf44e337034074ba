import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { add, type Executor, gather, input, sum } from "@espalier/graph";
import { conformanceChecks, expectConformance } from "@espalier/graph/testing";
import { describe, expect, test } from "vitest";
import { createOnnxExecutor } from "./index.ts";

// A worker is JavaScript, so that sources have none: the built package has, which tests come after.
const built = new URL("../dist/index.js", import.meta.url);
const packages: [string, typeof createOnnxExecutor][] = [["sources", createOnnxExecutor]];
if (existsSync(built)) {
  packages.push(["built package", (await import(built.href)).createOnnxExecutor]);
}

const computing = `
import { input, matmul } from "@espalier/graph";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
const x = input("x", [1000, 1000]);
const y = [...Array(20)].reduce((product) => matmul(product, x), x);
const program = await createOnnxExecutor({ threads: 1 }).compile({ outputs: { y } });
const result = program.run({ x: new Float32Array(1e6) });
setTimeout(() => { LEAVE; }, 20);
await result;
`;

test.each([
  ["process.exit(5)", 5],
  ['throw new Error("lost")', 1],
])("a process that ends by %s while it computes ends in order", (leave, status) => {
  const directory = fileURLToPath(new URL("..", import.meta.url));
  const args = ["--input-type=module", "--eval", computing.replace("LEAVE", leave)];
  const ended = spawnSync(process.execPath, args, { cwd: directory, encoding: "utf8", env: {} });
  expect([ended.signal, ended.status]).toEqual([null, status]);
});

test("the package was built, so that threads are tested", () => {
  expect(packages.map(([name]) => name)).toEqual(["sources", "built package"]);
});

describe.each(packages)("sessions of the %s", (name, create) => {
  const executor: Executor = create({ threads: 1 });

  if (name !== "sources") {
    test.each(conformanceChecks.map((check) => [check.name, check] as const))(
      "%s",
      async (_, check) => {
        await expectConformance(check, executor);
      },
    );

    test("leave this thread free for other work", async () => {
      const x = input("x", [1500, 1500]);
      const { matmul } = await import("@espalier/graph");
      const program = await executor.compile({ outputs: { y: sum(matmul(x, x)) } });
      let turns = 0;
      const timer = setInterval(() => turns++, 1);
      await program.run({ x: new Float32Array(1500 * 1500) });
      clearInterval(timer);
      await program.dispose();
      expect(turns).toBeGreaterThan(3);
    });
  }

  test("feeds can be used again while a program runs on them", async () => {
    const a = input("a", [1000]);
    const program = await executor.compile({ outputs: { sum: sum(add(a, a)) } });
    const feed = new Float32Array(1000).fill(1);
    const { sum: total } = await program.run({ a: feed });
    expect(feed).toHaveLength(1000);
    expect(total.data[0]).toBe(2000);
    await program.dispose();
  });

  test("what was disposed of can be neither fed nor read", async () => {
    const a = input("a", [2]);
    const program = await executor.compile({ outputs: {}, kept: { twice: add(a, a) } });
    const { twice } = await program.run({ a: Float32Array.of(1, 2) });
    twice.dispose();
    const gone = /tensor: expected one that is still there, got one that was disposed of/;
    await expect(program.run({ a: twice })).rejects.toThrow(gone);
    await expect(twice.read()).rejects.toThrow(gone);
    await program.dispose();
    await expect(program.run({ a: Float32Array.of(1, 2) })).rejects.toThrow(
      /program: expected one that is still there/,
    );
  });

  test("errors of ONNX Runtime are told as they are", async () => {
    const at = input("at", [1], "int64");
    const row = gather(input("a", [2]), at, 0);
    const program = await executor.compile({ outputs: { row } });
    const beyond = program.run({ a: new Float32Array(2), at: BigInt64Array.of(5n) });
    await expect(beyond).rejects.toMatchObject({ code: "runtime" });
    await expect(beyond).rejects.toThrow(/out of.* bounds/);
    await program.dispose();
  });
});
