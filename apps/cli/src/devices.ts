/** @file What there is to compute on, and how a device is opened. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { EspalierError } from "@espalier/base";
import { add, type Executor, input } from "@espalier/graph";
import {
  createOnnxExecutor,
  onnxDevices,
  onnxProviders,
  onnxVersion,
} from "@espalier/runtime-onnx";

export interface DeviceOptions {
  readonly device?: string | undefined;
  readonly threads?: number | undefined;
  readonly memoryLimit?: number | undefined;
}

/** Loaded when asked for: it takes longer than all the rest of the command. */
const runtimeTfjs = () => import("@espalier/runtime-tfjs");

const isTfjs = (device: string) => device === "tfjs" || device.startsWith("tfjs-");

/**
 * The executor on a device, which has been seen to compute.
 *
 * @throws EspalierError `unknown-device` if it is not there or does not work; `invalid-argument`.
 */
export async function openExecutor(options: DeviceOptions = {}): Promise<Executor> {
  const { device = "cpu" } = options;
  const { createTfjsExecutor, tfjsBackends } = isTfjs(device)
    ? await runtimeTfjs()
    : { createTfjsExecutor: undefined, tfjsBackends: [] };
  if (createTfjsExecutor !== undefined) {
    const known = device === "tfjs" || tfjsBackends.some((backend) => backend.device === device);
    if (known) return createTfjsExecutor(options);
  }
  if (!onnxDevices().includes(device)) {
    const { tfjsBackends } = await runtimeTfjs();
    const known = [...onnxDevices(), "tfjs", ...tfjsBackends.map((backend) => backend.device)];
    throw new EspalierError(
      "unknown-device",
      `device ${device}: expected one of ${known.join(", ")}; espalier env says more`,
      { device, known },
    );
  }
  const executor = createOnnxExecutor(options);
  if (device !== "cpu") await expectToCompute(executor, device);
  return executor;
}

/** The device of ONNX Runtime that times exported files, where programs run on `device`. */
export function onnxDeviceOf(device: string): string {
  return isTfjs(device) ? "cpu" : device;
}

/** Providers of ONNX Runtime are listed also where the machine has nothing for them. */
async function expectToCompute(executor: Executor, device: string): Promise<void> {
  const x = input("x", [1]);
  try {
    const program = await executor.compile({ outputs: { y: add(x, x) } });
    await program.run({ x: Float32Array.of(1) });
    await program.dispose();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    // What the provider says comes after the place in its source and the condition that failed.
    const [line] = message.split("\n").filter((text) => text.trim() !== "");
    const reason = line.replace(/^.* was false\. /, "");
    throw new EspalierError(
      "unknown-device",
      `device ${device}: ONNX Runtime's provider does not work here: ${reason}`,
      { device },
      error,
    );
  }
}

/** A device that the command knows by name. */
export interface DeviceState {
  readonly device: string;
  /** The package that computes, with its version where it is installed. */
  readonly runtime: string;
  /** Why it cannot be used, and what to do about it; undefined where it can. */
  readonly problem?: string | undefined;
}

/** Every device, the default first, whether it is there or not. */
export async function listDevices(): Promise<DeviceState[]> {
  const { installedVersion, tfjsBackends } = await runtimeTfjs();
  const onnx = onnxProviders().map(({ device, present }) => ({
    device,
    runtime: `onnxruntime-node ${onnxVersion()}`,
    problem: present
      ? undefined
      : "onnxruntime-node was installed without this provider; npm rebuild onnxruntime-node fetches it, where its script may run",
  }));
  const tfjs = tfjsBackends.map(({ device, package: name, optional }) => {
    const version = installedVersion(name);
    return {
      device,
      runtime: version === undefined ? name : `${name} ${version}`,
      problem:
        version !== undefined || !optional ? undefined : `npm install ${name}@4.22.0 adds it`,
    };
  });
  return [...onnx, ...tfjs];
}

/**
 * `listDevices`, each tried in a process of its own: native libraries write what they like to standard
 * error, and one that cannot be loaded may end the process.
 */
export async function tryDevices(): Promise<DeviceState[]> {
  return Promise.all(
    (await listDevices()).map(async (state) =>
      state.problem !== undefined || state.device === "cpu"
        ? state
        : { ...state, problem: await problemOf(state.device) },
    ),
  );
}

async function problemOf(device: string): Promise<string | undefined> {
  const args = [...process.execArgv, process.argv[1], "env", "--try", device];
  try {
    await promisify(execFile)(process.execPath, args);
    return undefined;
  } catch (error) {
    const { stderr = "", signal } = error as { stderr?: string; signal?: string };
    const line = stderr.split("\n").findLast((text) => text.startsWith("espalier: "));
    const message = line?.slice("espalier: ".length).replace(`device ${device}: `, "");
    return message ?? `it ended the process that tried it${signal == null ? "" : `, by ${signal}`}`;
  }
}
