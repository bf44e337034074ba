/** Makes a fresh clone ready: installs packages and builds, whatever of it is missing. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

// As bin/espalier.js has it: docs/decisions/033, 034 and 036.
const memory = {
  MALLOC_MMAP_THRESHOLD_: "1073741824",
  MALLOC_TRIM_THRESHOLD_: "1073741824",
  MALLOC_ARENA_MAX: "1",
};
const nodeOptions = ["--no-incremental-marking"];

/** Runs a command in the repository; its exit code. Its output goes where ours does. */
export function run(command, args, options = {}) {
  const { env = process.env, ...others } = options;
  const { status, error } = spawnSync(command, args, {
    ...{ cwd: root, stdio: "inherit", ...others },
    env: { ...memory, ...env },
  });
  if (error) throw error;
  return status ?? 1;
}

function orExit(status) {
  if (status !== 0) process.exit(status);
}

/** Runs a command of an installed package by this Node, which needs no shell on any platform. */
export function runBin(packageName, command, args, options) {
  const directory = join(root, "node_modules", packageName);
  const { bin } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
  return run(process.execPath, [join(directory, bin[command]), ...args], options);
}

/** Installs what package-lock.json names, unless it has been. */
export function install() {
  const lock = join(root, "package-lock.json");
  const installed = join(root, "node_modules", ".package-lock.json");
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return;
  process.stderr.write("installing packages\n");
  // npm ci leaves the lock file as it is; output goes to stderr, where progress belongs.
  const args = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
  // On Windows npm is a script of the shell.
  const shell = process.platform === "win32";
  orExit(run("npm", args, { stdio: ["ignore", 2, 2], shell }));
}

/** Builds what has changed of every package, or of `name` and what it needs. */
export function build(name) {
  process.stderr.write("building\n");
  const args = ["run", "build", "--output-logs=errors-only", "--log-order=grouped"];
  if (name !== undefined) args.push(`--filter=${name}...`);
  orExit(
    runBin("turbo", "turbo", args, {
      stdio: ["ignore", 2, 2],
      env: { ...process.env, TURBO_TELEMETRY_DISABLED: "1", TURBO_NO_UPDATE_NOTIFIER: "1" },
    }),
  );
}

/** Runs a script at `path`, from the root of the repository, as the espalier command runs. */
export function runScript(path, args) {
  return run(process.execPath, [...nodeOptions, join(root, path), ...args]);
}

/** Runs the espalier command. */
export function espalier(args) {
  return runScript("apps/cli/bin/espalier.js", args);
}
