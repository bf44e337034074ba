/** @file TensorFlow.js's backends: which are there, and how each is loaded. */
import { createRequire } from "node:module";
import * as util from "node:util";
import { EspalierError } from "@espalier/base";
import { backend, enableProdMode, setBackend } from "@tensorflow/tfjs-core";
import type { Capabilities } from "./kernel.ts";
import { replaceWasmSlice } from "./wasm-slice.ts";

/** A backend that a program can run on. */
export interface TfjsBackend extends Capabilities {
  /** As `--device` calls it. */
  readonly device: string;
  readonly package: string;
  /** What TensorFlow.js calls it. */
  readonly engine: string;
  /** Whether users install the package by themselves. */
  readonly optional: boolean;
  /** Bytes that it can address at most. */
  readonly mostBytes?: number;
  /** Axes that a tensor has at most. */
  readonly mostAxes?: number;
}

const contractions = ["BatchMatMul", "Conv2DBackpropInput", "Conv2DBackpropFilter"];

/** The best first. */
export const tfjsBackends: readonly TfjsBackend[] = [
  {
    device: "tfjs-gpu",
    package: "@tensorflow/tfjs-node-gpu",
    engine: "tensorflow",
    optional: true,
    fast: new Set(contractions),
  },
  {
    device: "tfjs-node",
    package: "@tensorflow/tfjs-node",
    engine: "tensorflow",
    optional: true,
    fast: new Set(contractions),
  },
  {
    device: "tfjs-wasm",
    package: "@tensorflow/tfjs-backend-wasm",
    engine: "wasm",
    optional: false,
    // XNNPACK has convolutions and single products; the rest are plain loops, 10 to 20 times slower.
    fast: new Set(),
    // WebAssembly's memory ends at 4 GiB, and where it does results are wrong without an error.
    mostBytes: 3e9,
    // XNNPACK's limit; past it, results are wrong without an error.
    mostAxes: 6,
  },
  {
    device: "tfjs-cpu",
    package: "@tensorflow/tfjs-backend-cpu",
    engine: "cpu",
    optional: false,
    fast: new Set(contractions),
  },
];

const require = createRequire(import.meta.url);

/** The version of a package, or undefined where it is not installed. */
export function installedVersion(name: string): string | undefined {
  try {
    return (require(`${name}/package.json`) as { version: string }).version;
  } catch {
    return undefined;
  }
}

const loaded = new Map<string, Promise<void>>();

/**
 * Loads a backend and makes it TensorFlow.js's current one.
 *
 * @param threads For tfjs-node, if it was not loaded before; others have one thread.
 * @throws EspalierError `unknown-device` with what to install or to change.
 */
export async function loadBackend(chosen: TfjsBackend, threads?: number): Promise<void> {
  const { device, engine } = chosen;
  let loading = loaded.get(device);
  if (loading === undefined) {
    loading = load(chosen, threads);
    loaded.set(device, loading);
  }
  await loading;
  await setBackend(engine);
}

async function load(chosen: TfjsBackend, threads: number | undefined): Promise<void> {
  const { device, package: name, engine } = chosen;
  const fail = (message: string, cause?: unknown): never => {
    throw new EspalierError("unknown-device", `device ${device}: ${message}`, { device }, cause);
  };
  if (installedVersion(name) === undefined) {
    fail(`expected the package ${name}, which is not installed; npm install ${name} adds it`);
  }
  if (engine === "tensorflow") {
    // tfjs-node 4 calls functions that Node.js 23 took away.
    if (!("isNullOrUndefined" in util)) {
      fail(
        `${name} does not run on Node.js ${process.versions.node}, expected 22 or earlier; tfjs-wasm runs on all`,
      );
    }
    // Read by TensorFlow's library when it is loaded.
    process.env.TF_CPP_MIN_LOG_LEVEL ??= "2";
    if (threads !== undefined) process.env.TF_NUM_INTRAOP_THREADS ??= String(threads);
  }
  enableProdMode();
  try {
    await import(name);
    if (engine === "wasm") replaceWasmSlice();
    if (!(await setBackend(engine))) fail(`${name} did not start`);
  } catch (error) {
    const [line] = (error instanceof Error ? error.message : String(error)).split("\n");
    fail(`${name} could not be loaded: ${line}`, error);
  }
  const { isUsingGpuDevice } = backend() as { isUsingGpuDevice?: boolean };
  if (device === "tfjs-gpu" && isUsingGpuDevice !== true) {
    fail(`${name} found no GPU; tfjs-node computes on the processor`);
  }
}
