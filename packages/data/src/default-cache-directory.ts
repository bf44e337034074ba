/** @file Where downloads are kept. */
import { homedir } from "node:os";
import { join } from "node:path";

/**
 * `ESPALIER_CACHE`, else `espalier` in `XDG_CACHE_HOME`, else in the platform's place for caches:
 * `~/.cache`, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows.
 */
export function defaultCacheDirectory(): string {
  const { ESPALIER_CACHE, XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (ESPALIER_CACHE) return ESPALIER_CACHE;
  if (XDG_CACHE_HOME) return join(XDG_CACHE_HOME, "espalier");
  switch (process.platform) {
    case "darwin":
      return join(homedir(), "Library", "Caches", "espalier");
    case "win32":
      return join(LOCALAPPDATA || join(homedir(), "AppData", "Local"), "espalier", "Cache");
    default:
      return join(homedir(), ".cache", "espalier");
  }
}
