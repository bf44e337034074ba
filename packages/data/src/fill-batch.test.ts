import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fillBatch } from "./fill-batch.ts";
import type { ImageSplit } from "./image-dataset.ts";

const shape = [3, 5, 4] as const;
const SIZE = 3 * 5 * 4;
const split: ImageSplit = {
  count: 6,
  shape,
  images: Uint8Array.from({ length: 6 * SIZE }, (_, i) => (i * 2_654_435_761) >>> 24),
  labels: Uint8Array.from([3, 1, 4, 1, 5, 9]),
};
const normalization = { mean: [0.4914, 0.4822, 0.4465], std: [0.2023, 0.1994, 0.201] };

/** Pads the raw image, crops, mirrors, then normalises, pixel by pixel in float64. */
function reference(indices: readonly number[], placements: readonly (readonly number[])[]) {
  const [channels, height, width] = shape;
  return indices.flatMap((index, n) => {
    const [dy, dx, flip] = placements[n] as [number, number, number];
    return Array.from({ length: SIZE }, (_, i) => {
      const channel = Math.floor(i / (height * width));
      const y = Math.floor(i / width) % height;
      const x = flip ? width - 1 - (i % width) : i % width;
      const [sourceY, sourceX] = [y + dy, x + dx];
      const inside = sourceY >= 0 && sourceY < height && sourceX >= 0 && sourceX < width;
      const position = ((index * channels + channel) * height + sourceY) * width + sourceX;
      const pixel = inside ? split.images[position]! : 0;
      return (pixel / 255 - normalization.mean[channel]!) / normalization.std[channel]!;
    });
  });
}

const emptyBatch = (count: number) => ({
  images: new Float32Array(count * SIZE).fill(Number.NaN),
  labels: new Int32Array(count).fill(-1),
});

describe("fillBatch", () => {
  test("equals a float64 reference, cropped and mirrored in any way", () => {
    const placement = fc.tuple(
      fc.integer({ min: -7, max: 7 }),
      fc.integer({ min: -7, max: 7 }),
      fc.integer({ min: 0, max: 1 }),
    );
    const image = fc.tuple(fc.nat({ max: 5 }), placement);
    fc.assert(
      fc.property(fc.array(image, { maxLength: 4 }), (chosen) => {
        const indices = chosen.map(([index]) => index);
        const placements = chosen.map(([, each]) => each);
        const batch = emptyBatch(chosen.length);
        fillBatch(split, indices, normalization, batch, Int8Array.from(placements.flat()));
        expect(batch.images).toEqual(Float32Array.from(reference(indices, placements)));
        expect([...batch.labels]).toEqual(indices.map((index) => split.labels[index]));
      }),
    );
  });

  test("leaves images in place without placements", () => {
    const indices = Uint32Array.of(5, 0, 5);
    const batch = emptyBatch(3);
    fillBatch(split, indices, normalization, batch);
    const inPlace = Array.from({ length: 3 }, () => [0, 0, 0]);
    expect(batch.images).toEqual(Float32Array.from(reference([...indices], inPlace)));
  });

  test("the offset is torchvision's crop position less the padding", () => {
    // The crop at the top left of an image padded by 4 shows padding in its first 4 rows.
    const one: ImageSplit = {
      count: 1,
      shape: [1, 6, 6],
      images: Uint8Array.from({ length: 36 }, (_, i) => i + 1),
      labels: Uint8Array.of(0),
    };
    const batch = { images: new Float32Array(36), labels: new Int32Array(1) };
    fillBatch(one, [0], { mean: [0], std: [1 / 255] }, batch, Int8Array.of(-4, -4, 0));
    const rows = Array.from({ length: 6 }, (_, y) =>
      [...batch.images.subarray(6 * y, 6 * y + 6)].map(Math.round),
    );
    const empty = [0, 0, 0, 0, 0, 0];
    expect(rows).toEqual([empty, empty, empty, empty, [0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 7, 8]]);
  });

  test.each<[string, () => void, RegExp]>([
    [
      "an index",
      () => fillBatch(split, [6], normalization, emptyBatch(1)),
      /indices\[0\].*5, got 6/,
    ],
    ["a fraction", () => fillBatch(split, [0.5], normalization, emptyBatch(1)), /got 0\.5/],
    ["images", () => fillBatch(split, [0], normalization, emptyBatch(2)), /images: expected 60/],
    [
      "labels",
      () => fillBatch(split, [0], normalization, { ...emptyBatch(1), labels: new Int32Array(0) }),
      /labels: expected 1/,
    ],
    [
      "mean",
      () => fillBatch(split, [0], { mean: [0], std: [1] }, emptyBatch(1)),
      /mean: expected 3/,
    ],
    [
      "std",
      () => fillBatch(split, [0], { mean: [0, 0, 0], std: [1, 0, 1] }, emptyBatch(1)),
      /std\[1\]: expected .* above 0, got 0/,
    ],
    [
      "placements",
      () => fillBatch(split, [0], normalization, emptyBatch(1), new Int8Array(2)),
      /placements: expected 3/,
    ],
  ])("refuses %s that do not fit", (_name, fill, message) => {
    expect(fill).toThrow(message);
  });
});
