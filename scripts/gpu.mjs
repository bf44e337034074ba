/**
 * Checks and measures the GPU of this machine: `node scripts/gpu.mjs [SOURCE]`.
 *
 * Runs all of the conformance suite on every device that computes on a GPU, then `espalier bench` on
 * SOURCE, or on the network that is shipped. Needs this directory, with what `npm ci` and
 * `npm run build` have made, and the driver's Vulkan loader; nothing is downloaded if they have run.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { build, espalier, install, root, runBin } from "./setup.mjs";

const [source = join(root, "examples", "resnet20-cifar10")] = process.argv.slice(2);
install();
build();

const command = join(root, "apps", "cli", "bin", "espalier.js");
const { stdout } = spawnSync(process.execPath, [command, "env", "--format", "json"], {
  encoding: "utf8",
  stdio: ["ignore", "pipe", "inherit"],
});
const { devices, absent } = JSON.parse(stdout);
const onGpu = ["webgpu", "cuda", "dml", "coreml", "tfjs-gpu"];
const present = devices.filter((device) => onGpu.includes(device));
for (const device of onGpu) {
  if (absent[device] !== undefined) process.stdout.write(`skipped ${device}: ${absent[device]}\n`);
}
let status = 0;
if (present.length === 0) {
  process.stdout.write("no device of this machine computes on a GPU\n");
  status = 1;
} else {
  status = runBin(
    "vitest",
    "vitest",
    ["run", "apps/cli/tests/conformance.test.ts", "--maxWorkers=1"],
    {
      env: { ...process.env, ESPALIER_DEVICES: present.join() },
    },
  );
}
process.exitCode = espalier(["bench", source]) || status;
