/** @file Writes a download to a file and reports how far it is. */
import { EspalierError, throwIfAborted, writeFileAtomic } from "@espalier/base";
import { startProgress } from "./dataset-event.ts";
import type { OpenOptions } from "./open-options.ts";

// The largest archive here has 170 MB. More than this is not what was asked for.
const MAXIMUM_BYTES = 1024 ** 3;

/**
 * @param subject What events and messages call the download: a URL or an npm package.
 * @throws EspalierError `network` when `chunks` fails, `disk-full`, `aborted`.
 */
export async function saveDownload(
  path: string,
  subject: string,
  chunks: AsyncIterable<Uint8Array>,
  totalBytes: number | undefined,
  { signal, onEvent }: OpenOptions,
): Promise<void> {
  const progress = startProgress("download", subject, totalBytes, onEvent);
  let bytes = 0;
  async function* observe() {
    try {
      for await (const chunk of chunks) {
        throwIfAborted(signal);
        bytes += chunk.length;
        if (bytes > MAXIMUM_BYTES) throw new Error(`more than ${MAXIMUM_BYTES} bytes`);
        progress.advance(chunk.length);
        yield chunk;
      }
    } catch (error) {
      throw describeNetworkError(error, subject);
    }
  }
  await writeFileAtomic(path, observe());
  progress.end();
}

/** Turns any error of a network client into one of ours; passes ours through. */
export function describeNetworkError(error: unknown, subject: string): EspalierError {
  if (EspalierError.isInstance(error)) return error;
  // Node's fetch only says "fetch failed"; the reason is its cause, at times with only a code.
  const { message, cause } = error as Error;
  const inner = cause as NodeJS.ErrnoException | undefined;
  const [line] = (inner?.message || inner?.code || message).split("\n", 1);
  // A registry's address may carry a password.
  const reason = line!.replace(/\/\/[^/@\s]*@/g, "//");
  return new EspalierError("network", `${subject}: ${reason}`, { subject }, error);
}
