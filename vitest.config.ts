import { existsSync } from "node:fs";
import { defineConfig } from "vitest/config";

// Packages export their TypeScript sources under this condition, so that tests need no build. "import"
// is not named: Node.js would apply it to what CommonJS packages require, too.
const conditions = ["@espalier/source", "node"];

// Debian's chromium has a Vulkan driver in software, which lets WebGPU be tested without a GPU.
const chromium = "/usr/lib/chromium";
const loaders = [
  "/usr/lib/x86_64-linux-gnu",
  "/usr/lib/aarch64-linux-gnu",
  "/usr/lib64",
  "/usr/lib",
];
const software =
  existsSync(`${chromium}/vk_swiftshader_icd.json`) &&
  !loaders.some((directory) => existsSync(`${directory}/libvulkan.so.1`));

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
    // Commands that are killed and resumed take minutes where others compute beside them.
    testTimeout: 600_000,
    hookTimeout: 120_000,
    env: software
      ? {
          LD_LIBRARY_PATH: chromium,
          VK_ICD_FILENAMES: `${chromium}/vk_swiftshader_icd.json`,
        }
      : {},
    pool: "forks",
    maxWorkers: 2,
  },
});
