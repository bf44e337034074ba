/** @file Downloads an npm package with npm's own client, under the user's npm settings. */
/// <reference path="./npmcli-config-definitions.d.ts" />
import { dirname, join } from "node:path";
import { PassThrough } from "node:stream";
import { throwIfAborted } from "@espalier/base";
import type { OpenOptions } from "./open-options.ts";
import { describeNetworkError, saveDownload } from "./save-download.ts";

export interface NpmPackage {
  /** `name@version`. */
  readonly spec: string;
  /** Size of its archive. */
  readonly bytes: number;
}

/**
 * Saves the package's tgz as `path`, checked against the integrity that the registry states.
 * Registry, proxy, certificates and credentials are those of `npm install` in this directory.
 *
 * @throws EspalierError `network`, `disk-full`, `aborted`.
 */
export async function downloadPackage(
  { spec, bytes }: NpmPackage,
  path: string,
  options: OpenOptions,
): Promise<void> {
  const subject = `npm package ${spec}`;
  // Ends the request also when what is received cannot be written.
  const request = new AbortController();
  const signals = options.signal ? [options.signal, request.signal] : [request.signal];
  try {
    // Loading the client takes 0.3 s, which only those who need it shall wait.
    const { default: pacote } = await import("pacote");
    const settings = await loadNpmSettings();
    throwIfAborted(options.signal);
    await pacote.tarball.stream(
      spec,
      (stream) => {
        // npm's streams throw an error into the void that comes while nobody waits for a chunk.
        const chunks = new PassThrough();
        stream.on("error", (error) => chunks.destroy(error));
        return saveDownload(path, subject, stream.pipe(chunks), bytes, options);
      },
      { ...settings, signal: AbortSignal.any(signals) },
    );
  } catch (error) {
    throw describeNetworkError(error, subject);
  } finally {
    request.abort();
  }
}

async function loadNpmSettings(): Promise<Record<string, unknown>> {
  const { default: Config } = await import("@npmcli/config");
  const { default: npm } = await import("@npmcli/config/lib/definitions/index.js");
  const bin = dirname(process.execPath);
  const config = new Config({
    ...npm,
    // Distributors put settings beside npm.
    npmPath: join(bin, process.platform === "win32" ? "." : "../lib", "node_modules/npm"),
    argv: [],
    // A copy, since load() writes npm's variables into it.
    env: { ...process.env },
  });
  await config.load();
  // npm's own defaults wait more than a minute before they report that there is no network, and
  // 5 minutes for a silent server. What the user has set still counts.
  config.set("fetch-retries", 1, "default");
  config.set("fetch-retry-mintimeout", 1_000, "default");
  config.set("fetch-timeout", 30_000, "default");
  // npm's cache would keep an archive that is of no use once it is unpacked.
  return { ...config.flat, cache: undefined };
}
