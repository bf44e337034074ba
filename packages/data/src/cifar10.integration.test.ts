import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openCifar10 } from "./cifar10.ts";
import { defaultCacheDirectory } from "./index.ts";

const directory = join(defaultCacheDirectory(), "datasets", "cifar10");

test.skipIf(!existsSync(directory))(
  "CIFAR-10 itself (skipped unless it is in the cache)",
  async () => {
    const { verified, classes, splits } = await openCifar10(directory, {});
    expect(verified).toBe(true);
    for (const [split, perClass] of [
      [splits.train, 5_000],
      [splits.test, 1_000],
    ] as const) {
      expect(split.count).toBe(10 * perClass);
      const counts = classes.map(
        (_, label) => split.labels.filter((each) => each === label).length,
      );
      expect(counts).toEqual(classes.map(() => perClass));
    }
  },
);
