/**
 * Every device computes what the float64 reference does. Devices that are absent are skipped under
 * their names. ESPALIER_DEVICES=webgpu,tfjs-gpu names the devices that must be there, and runs all
 * checks on them.
 */
import { conformanceChecks, expectConformance } from "@espalier/graph/testing";
import { describe, test } from "vitest";
import { listDevices, openExecutor } from "../src/devices.ts";
import { networkChecks } from "./network-checks.ts";

const wanted = process.env.ESPALIER_DEVICES?.split(",");
const networks = networkChecks();

// Software drivers of GPUs take seconds to compile a convolution: each kind once.
const few =
  /^(exp|where|sum, kept|what is kept is fed|transpose|concat|gather$|softmax|matmul$|linear$|batchNormTraining$|maxPool, 2x2|inputs bound|conv\w*, 3x3, stride 2, padding 1$)/;

const states = (await listDevices()).filter(({ device }) => wanted?.includes(device) ?? true);
const variants = states.flatMap((state) =>
  state.device === "cpu" ? [1, 2].map((threads) => ({ ...state, threads })) : [state],
);

for (const { device, runtime, problem, ...options } of variants) {
  const executor =
    problem === undefined
      ? await openExecutor({ device, ...options }).catch((error: Error) => error)
      : new Error(problem);
  const name = `${device}${"threads" in options ? `, ${options.threads} threads` : ""} (${runtime})`;
  if (executor instanceof Error) {
    const title = `${name}: ${executor.message}`;
    if (wanted === undefined) test.skip(title, () => {});
    else
      test(title, () => {
        throw executor;
      });
    continue;
  }
  const all = wanted !== undefined || !["webgpu"].includes(device);
  const checks = all
    ? [...conformanceChecks, ...networks]
    : conformanceChecks.filter((check) => few.test(check.name));
  describe(name, () => {
    test.each(checks.map((check) => [check.name, check] as const))("%s", async (_, check) => {
      await expectConformance(check, executor);
    });
  });
}
