import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { defaultCacheDirectory, openDataset } from "./index.ts";

describe("openDataset", () => {
  test.each([
    "cifar11",
    "",
    ":",
    "cifar10:",
    "CIFAR10",
    "imagefolder",
    "imagefolder:",
    "textfolder",
    "toString",
  ])("refuses %j and lists what is known", async (spec) => {
    await expect(openDataset(spec)).rejects.toMatchObject({
      code: "invalid-argument",
      message: expect.stringContaining(
        `data set ${JSON.stringify(spec)}: expected cifar10, cifar10:DIRECTORY, imagefolder:DIRECTORY, textfolder:DIRECTORY, glue/cola, `,
      ),
    });
  });

  test("takes everything after the first colon as the directory", async () => {
    await expect(openDataset("cifar10:/no/such:directory")).rejects.toMatchObject({
      code: "missing-file",
      data: { path: "/no/such:directory" },
    });
  });
});

describe("defaultCacheDirectory", () => {
  afterEach(() => vi.unstubAllEnvs());

  test("prefers ESPALIER_CACHE, then XDG_CACHE_HOME", () => {
    vi.stubEnv("ESPALIER_CACHE", "/a");
    vi.stubEnv("XDG_CACHE_HOME", "/b");
    expect(defaultCacheDirectory()).toBe("/a");
    vi.stubEnv("ESPALIER_CACHE", undefined);
    expect(defaultCacheDirectory()).toBe(join("/b", "espalier"));
    vi.stubEnv("XDG_CACHE_HOME", undefined);
    expect(defaultCacheDirectory()).toMatch(/espalier/);
  });
});
