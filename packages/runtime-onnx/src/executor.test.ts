import { expect, test } from "vitest";
import { createOnnxExecutor, onnxDevices } from "./index.ts";

// What executors compute is compared with the reference in apps/cli/tests/conformance.test.ts.

test("a processor is always among the devices", () => {
  expect(onnxDevices()).toContain("cpu");
});

test("a device that is not there is refused with those that are", () => {
  expect(() => createOnnxExecutor({ device: "abacus" })).toThrow(
    /device abacus: expected one of cpu/,
  );
});

test.each([
  ["threads", { threads: 0 }],
  ["memoryLimit", { memoryLimit: 0 }],
])("%s must be positive", (name, options) => {
  expect(() => createOnnxExecutor(options)).toThrow(`${name}: expected a positive`);
});
