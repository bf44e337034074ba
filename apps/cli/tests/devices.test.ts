import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { espalier, makeWorkspace } from "./harness.ts";

let workspace: Awaited<ReturnType<typeof makeWorkspace>>;
beforeAll(async () => {
  workspace = await makeWorkspace();
});
afterAll(() => workspace.remove());

const at = (...names: string[]) => join(workspace.path, ...names);

test("env says which devices are there and what to install for others", async () => {
  const { stdout, code } = await espalier("env", "--format", "json");
  expect(code).toBe(0);
  const { devices, absent } = JSON.parse(stdout);
  expect(devices).toEqual(expect.arrayContaining(["cpu", "tfjs-wasm", "tfjs-cpu"]));
  for (const device of ["tfjs-gpu", "tfjs-node"]) {
    if (!devices.includes(device)) expect(absent[device]).toMatch(/@tensorflow\/tfjs-node/);
  }
});

test("a device whose package is missing is refused with the package", async () => {
  const { devices } = JSON.parse((await espalier("env", "--format", "json")).stdout);
  if (devices.includes("tfjs-gpu")) return;
  const refused = await espalier(
    "export",
    at("model"),
    "--to",
    at("never"),
    "--device",
    "tfjs-gpu",
  );
  expect(refused.code).toBe(2);
  expect(refused.stderr).toMatch(/^espalier: device tfjs-gpu: .*@tensorflow\/tfjs-node-gpu/m);
});

test("the main job on TensorFlow.js ends where it does on ONNX Runtime", async () => {
  const results = await Promise.all(
    ["cpu", "tfjs-wasm"].map(async (device) => {
      const output = at(`run-${device}`);
      const { code, stderr } = await espalier(
        ...["prune", at("model"), "--data", `cifar10:${at("data")}`, "-o", output],
        ...["--device", device, "--keep-macs", "0.6", "--implant", "0.3", "--round-to", "2"],
        ...["--samples", "32", "--calibration", "32", "--tune", "1", "--tune-batch-size", "32"],
        ...["--hold-out", "40", "--threads", "1", "--no-bars", "--format", "json"],
      );
      expect(stderr).not.toMatch(/^espalier:/m);
      expect(code).toBe(0);
      const read = async (name: string) => JSON.parse(await readFile(join(output, name), "utf8"));
      return {
        scores: (await read("sensitivity.json")).groups as { scores: number[] }[],
        evaluation: await read("evaluation.json"),
      };
    }),
  );
  const [onnx, tfjs] = results;
  onnx.scores.forEach(({ scores }, group) => {
    const scale = Math.max(...scores.map(Math.abs));
    scores.forEach((score, i) => {
      expect(Math.abs(tfjs.scores[group].scores[i] - score) / scale).toBeLessThan(1e-4);
    });
  });
  for (const stage of ["dense", "pruned", "tuned"]) {
    const [loss, other] = [onnx, tfjs].map(({ evaluation }) => evaluation[stage].loss);
    expect(Math.abs(other / loss - 1), stage).toBeLessThan(stage === "tuned" ? 1e-2 : 1e-4);
  }
});

test("bench measures devices, each in a process of its own", async () => {
  const { stdout, code } = await espalier(
    ...[
      "bench",
      at("model"),
      "--device",
      "cpu,tfjs-wasm",
      "--batch-size",
      "2",
      "--rounds",
      "1",
      "--format",
      "json",
      "--no-bars",
    ],
  );
  expect(code).toBe(0);
  const { devices, absent } = JSON.parse(stdout);
  expect(devices.map(({ device }: { device: string }) => device)).toEqual(["cpu", "tfjs-wasm"]);
  for (const { operations, peakBytes } of devices) {
    expect(operations.map(({ operation }: { operation: string }) => operation)).toEqual([
      "forward",
      "gradient",
      "Hessian-vector product",
      "exact trace, 10 passes",
      "training step",
    ]);
    for (const { seconds } of operations) expect(seconds).toBeGreaterThan(0);
    expect(peakBytes).toBeGreaterThan(1e7);
  }
  for (const { problem } of absent) expect(problem).toMatch(/\w/);
});

test("bench leaves out a device that takes longer than it may", async () => {
  const given = ["bench", at("model"), "--device", "tfjs-cpu,tfjs-wasm", "--batch-size", "256"];
  const { stdout, code } = await espalier(
    ...[...given, "--limit", "1", "--format", "json", "--no-bars"],
  );
  const { devices, absent } = JSON.parse(stdout);
  // Where nothing was measured, the command has failed.
  expect(code).toBe(devices.length === 0 ? 1 : 0);
  expect(absent).toContainEqual({
    device: "tfjs-cpu",
    problem: "not done after 1 seconds; see --limit",
  });
});

test("bench refuses devices that nobody knows, and a source that is none, at once", async () => {
  for (const [source, devices, code, message] of [
    [at("model"), "cpu,abacus", 2, /^espalier: device abacus: expected some of cpu, .*commas\n$/],
    [at("nowhere"), "cpu,tfjs-cpu", 1, /^espalier: \S*nowhere: no such file.*\n$/],
  ] as const) {
    const result = await espalier("bench", source, "--device", devices);
    expect(result.stderr).toMatch(message);
    expect(result).toMatchObject({ code, stdout: "" });
  }
});
