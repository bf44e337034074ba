/** @file Fetches a data set as one tar.gz from a web server. */
import { join } from "node:path";
import { EspalierError } from "@espalier/base";
import type { Source } from "./cached-directory.ts";
import type { DatasetFile } from "./find-difference.ts";
import type { OpenOptions } from "./open-options.ts";
import { describeNetworkError, saveDownload } from "./save-download.ts";
import { unpackArchive } from "./unpack-archive.ts";

/** Milliseconds without data after which another source is tried. */
export interface Patience {
  readonly firstByte: number;
  readonly laterBytes: number;
}

/** @param url A tar.gz that holds `files` in one folder. */
export function siteArchive(
  url: string,
  files: readonly DatasetFile[],
  patience: Patience = { firstByte: 10_000, laterBytes: 30_000 },
): Source {
  return {
    name: "site",
    label: url,
    async fetch(directory, scratch, options) {
      const archive = join(scratch, "archive.tar.gz");
      await downloadUrl(url, archive, patience, options);
      const sizes = new Map(files.map(({ name, bytes }) => [name, bytes]));
      await unpackArchive(archive, directory, sizes, options.signal);
    },
  };
}

async function downloadUrl(
  url: string,
  path: string,
  patience: Patience,
  options: OpenOptions,
): Promise<void> {
  const silence = new AbortController();
  const give = (milliseconds: number) =>
    setTimeout(
      () => silence.abort(new Error(`no data for ${milliseconds / 1000} s`)),
      milliseconds,
    );
  let timer = give(patience.firstByte);
  try {
    const signals = options.signal ? [options.signal, silence.signal] : [silence.signal];
    const response = await fetch(url, { signal: AbortSignal.any(signals) });
    const { body } = response;
    if (!response.ok || body === null) {
      await body?.cancel();
      const reason = `HTTP ${response.status} ${response.statusText}`.trim();
      throw new EspalierError("network", `${url}: ${reason}`, { url, status: response.status });
    }
    const length = Number(response.headers.get("content-length"));
    const chunks = (async function* () {
      for await (const chunk of body) {
        clearTimeout(timer);
        timer = give(patience.laterBytes);
        yield chunk;
      }
    })();
    await saveDownload(path, url, chunks, length || undefined, options);
  } catch (error) {
    throw describeNetworkError(error, url);
  } finally {
    clearTimeout(timer);
  }
}
