/** @file The family of examples/mobilenet-family, through every command that takes models. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openOnnxModel } from "@espalier/runtime-onnx";
import { afterAll, beforeAll, expect, test } from "vitest";
import { espalier, makeWorkspace, start } from "./harness.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const family = join(root, "examples/mobilenet-family/dist/index.js");
const plugin = ["--plugin", family];

let workspace: Awaited<ReturnType<typeof makeWorkspace>>;
let data: readonly string[];
beforeAll(async () => {
  workspace = await makeWorkspace();
  data = ["--data", `cifar10:${join(workspace.path, "data")}`, "--no-bars", "--threads", "1"];
});
afterAll(() => workspace.remove());

const at = (...names: string[]) => join(workspace.path, ...names);
const json = async (...names: string[]) => JSON.parse(await readFile(at(...names), "utf8"));

const pruning = () => [
  ...["prune", at("trained"), ...data, "-o", at("pruned"), "--keep-macs", "0.6", "--round-to", "4"],
  ...[
    "--implant",
    "0.5",
    "--samples",
    "16",
    "--calibration",
    "32",
    "--tune",
    "1",
    "--hold-out",
    "40",
  ],
  ...["--tune-batch-size", "50", "--seed", "1"],
];

test("a family of a plugin is trained, scored, pruned, judged, exported and reported on", async () => {
  const network = "mobilenetv2-tiny-cifar10";
  const training = ["--epochs", "1", "--train-batch-size", "50", ...data, "-o", at("trained")];
  const trained = await espalier("train", network, ...plugin, ...training);
  expect(trained).toMatchObject({ code: 0 });
  expect(await json("trained", "run.json")).toMatchObject({ plugins: [family] });
  expect(await json("trained", "training.json")).toHaveLength(1);

  const inspected = await espalier("inspect", at("trained"), ...plugin, "--format", "json");
  const dense = JSON.parse(inspected.stdout);
  expect(dense).toMatchObject({ preset: network, components: 704, parameters: 36_506 });

  const scores = ["--samples", "8", ...data, "-o", at("scores")];
  expect(await espalier("sensitivity", at("trained"), ...plugin, ...scores)).toMatchObject({
    code: 0,
  });
  expect(await json("scores", "run.json")).toMatchObject({ plugins: [family] });

  const pruned = await espalier(...pruning(), ...plugin, "--format", "json");
  expect(pruned.code).toBe(0);
  const { plan, evaluation } = JSON.parse(pruned.stdout);
  expect(plan.after.macs).toBeLessThanOrEqual(0.6 * plan.before.macs);
  expect(plan.after.implants).toBeGreaterThan(0);
  expect(await readFile(at("pruned", "README.md"), "utf8")).toContain(`--plugin ${family}`);

  const judged = await espalier("evaluate", at("pruned"), ...plugin, ...data, "--format", "json");
  expect(JSON.parse(judged.stdout).accuracy).toBe(evaluation.tuned.accuracy);
  expect((await espalier("report", at("pruned"), ...plugin)).code).toBe(0);

  expect((await espalier("export", at("pruned"), ...plugin, "--to", at("exported"))).code).toBe(0);
  const bytes = await readFile(at("exported", "onnx", "model.onnx"));
  const model = await openOnnxModel(bytes, { device: "cpu" });
  const image = { dtype: "float32", shape: [2, 3, 32, 32], data: new Float32Array(6144) } as const;
  const { logits } = await model.run({ pixel_values: image });
  expect(logits.shape).toEqual([2, 10]);
  await model.dispose();
  // The run goes on, and ends, as one of a family of our own does.
  expect((await espalier(...pruning(), ...plugin, "--resume")).code).toBe(0);
}, 600_000);

test("without the plugin, commands say which is missing", async () => {
  const line = (text: string) => new RegExp(`^espalier: .*${text}.*\\n$`);
  for (const args of [
    ["inspect", at("trained")],
    ["evaluate", at("pruned", "pruned"), ...data],
    ["export", at("pruned", "export", "pruned"), "--to", at("never")],
  ]) {
    const { code, stderr } = await espalier(...args);
    expect(code).toBe(1);
    expect(stderr).toMatch(line(`its run was made with --plugin ${family}`));
  }
  const resumed = await espalier(...pruning(), "--resume");
  expect(resumed.code).toBe(2);
  expect(resumed.stderr).toMatch(
    line(`the run was begun with --plugin ${family}, which is needed`),
  );
});

test("a plugin is a package or a file of the working directory, named as often as there are", async () => {
  const options = { cwd: root };
  const args = ["inspect", at("trained"), "--plugin", "mobilenet-family"];
  expect((await start(args, options).done).code).toBe(0);
  await writeFile(at("empty.mjs"), "export const nothing = 0;");
  const refused = await start([...args.slice(0, 2), ...plugin, "--plugin", "./empty.mjs"], {
    cwd: workspace.path,
  }).done;
  expect(refused).toMatchObject({ code: 2, stdout: "" });
  expect(refused.stderr).toBe(
    'espalier: plugin ./empty.mjs: expected an export "families", an array of model families, got none\n',
  );
});

test("help says that a plugin's code is run", async () => {
  for (const command of [
    "inspect",
    "sensitivity",
    "prune",
    "evaluate",
    "export",
    "report",
    "train",
  ]) {
    const { stdout } = await espalier(command, "--help");
    expect(stdout.replaceAll(/\s+/g, " "), command).toMatch(/--plugin .* whose code is run/);
  }
});
