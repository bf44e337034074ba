/** @file Decodes image files and cuts them to size, as torchvision's transforms do. */
import type { Sharp } from "sharp";
import { openImage } from "./open-image.ts";

const MOST_PIXELS = 100e6;

/** An image as three bytes for each pixel, whatever it was; orientation tags do not count. */
async function open(path: string): Promise<Sharp> {
  return (await openImage(path, MOST_PIXELS)).toColourspace("srgb").removeAlpha();
}

// Averages over the area that a pixel covers, as PIL's bilinear filter does.
const filter = { kernel: "linear", fastShrinkOnLoad: false } as const;

/**
 * The middle of an image: scaled so that it covers height / crop times width / crop, then cut.
 *
 * @returns [height, width, 3].
 */
export async function cutCentre(
  path: string,
  { height, width, crop }: { height: number; width: number; crop: number },
): Promise<Uint8Array> {
  const [outerHeight, outerWidth] = [Math.round(height / crop), Math.round(width / crop)];
  const image = await open(path);
  return image
    .resize(outerWidth, outerHeight, { fit: "cover", position: "centre", ...filter })
    .extract({
      left: Math.floor((outerWidth - width) / 2),
      top: Math.floor((outerHeight - height) / 2),
      width,
      height,
    })
    .raw()
    .toBuffer();
}

/** Part of an image, in terms of its size: its area, width by height, and where it lies. */
export interface Region {
  readonly area: number;
  readonly ratio: number;
  readonly x: number;
  readonly y: number;
}

/**
 * The first of `regions` that lies within the image, scaled to height times width; the middle where
 * none does.
 *
 * @returns [height, width, 3].
 */
export async function cutRandom(
  path: string,
  options: { height: number; width: number; regions: readonly Region[]; mirrored: boolean },
): Promise<Uint8Array> {
  const { height, width, regions, mirrored } = options;
  const image = await open(path);
  const { width: fullWidth, height: fullHeight } = await image.metadata();
  const fitting = regions
    .map(({ area, ratio, x, y }) => {
      const size = area * fullWidth * fullHeight;
      const [w, h] = [Math.round(Math.sqrt(size * ratio)), Math.round(Math.sqrt(size / ratio))];
      const place = (share: number, free: number) => Math.floor(share * (free + 1));
      return { width: w, height: h, left: place(x, fullWidth - w), top: place(y, fullHeight - h) };
    })
    .find(
      (part) =>
        part.width <= fullWidth && part.height <= fullHeight && part.width > 0 && part.height > 0,
    );
  const cut =
    fitting === undefined
      ? image.resize(width, height, { fit: "cover", position: "centre", ...filter })
      : image.extract(fitting).resize(width, height, { fit: "fill", ...filter });
  return (mirrored ? cut.flop() : cut).raw().toBuffer();
}
