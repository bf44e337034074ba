import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";

const read = (path: string) => readFile(new URL(path, import.meta.url), "utf8");

test("the code in docs/write-a-model-family.md, one block after another, is the example", async () => {
  const guide = await read("../../../docs/write-a-model-family.md");
  const blocks = [...guide.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);
  expect(blocks.join("\n")).toBe(await read("index.ts"));
});

test("the test that the guide shows holds", async () => {
  const guide = await read("../../../docs/write-a-model-family.md");
  const [, code] = /^```js\n(.*?)^```$/ms.exec(guide)!;
  const body = code.replaceAll(/^import (\{.*?\}) from (".*?");$/gm, "const $1 = await load($2);");
  const modules: Record<string, () => Promise<unknown>> = {
    "@espalier/core": () => import("@espalier/core"),
    "@espalier/runtime-onnx": () => import("@espalier/runtime-onnx"),
    "@espalier/vision/testing": () => import("@espalier/vision/testing"),
    "mobilenet-family": () => import("./index.ts"),
  };
  const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor;
  await new AsyncFunction("load", body)((name: string) => modules[name]());
});
