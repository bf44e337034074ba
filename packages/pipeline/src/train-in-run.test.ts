import { Random } from "@espalier/core";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";
import { expect, test } from "vitest";
import { holdOut } from "./train-in-run.ts";

test("what is held out is never trained on, and the test set is neither", async () => {
  const all = noiseSamples(tinyResNet({ size: 4 }), 20);
  const { training, validation } = holdOut(all, 6, new Random(0));
  expect([training.count, validation?.count]).toEqual([14, 6]);
  const images = async (samples: typeof training) => {
    const { feeds } = await samples.batch([...Array(samples.count).keys()]);
    const pixels = feeds.pixel_values as Float32Array;
    return Array.from({ length: samples.count }, (_, i) => pixels[i * 48]);
  };
  const parts = [...(await images(training)), ...(await images(validation!))];
  // Every sample is in one of both, and none in two.
  expect(new Set(parts)).toEqual(new Set(await images(all)));
  expect(parts).toHaveLength(20);
});
