import { defineConfig } from "vitest/config";

// Packages export their TypeScript sources under this condition, so that tests need no build.
const conditions = ["@espalier/source", "node", "import", "default"];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: [
      "packages/*/src/**/*.test.ts",
      "apps/*/src/**/*.test.ts",
      "apps/*/tests/**/*.test.ts",
      "examples/*/src/**/*.test.ts",
    ],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    pool: "forks",
    maxWorkers: 2,
  },
});
