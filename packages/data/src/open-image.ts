/** @file Opens image files with sharp, of the formats that data sets have. */
import { EspalierError, statFile } from "@espalier/base";
import sharp, { type Sharp } from "sharp";

// Images are decoded side by side, each by one thread, and none twice in a row.
sharp.concurrency(1);
sharp.cache(false);

// Formats are told by the content, whatever a file is called. Of others some are programs: an SVG of a few
// bytes can ask to be drawn for hours. What decoding these costs is bounded by the number of pixels.
sharp.block({ operation: ["VipsForeignLoad"] });
sharp.unblock({
  operation: ["VipsForeignLoadJpegFile", "VipsForeignLoadPngFile", "VipsForeignLoadWebpFile"],
});

/** @param mostPixels Larger images are refused: a file of a few bytes can ask for more memory than there is. */
export async function openImage(path: string, mostPixels: number): Promise<Sharp> {
  // Opening a FIFO would wait for who writes it, in a thread that nothing interrupts.
  await statFile(path);
  return sharp(path, { limitInputPixels: mostPixels, failOn: "error" });
}

/** Why the image could not be read, in one line that names it. */
export function describeImageError(error: unknown, path: string): string {
  if (EspalierError.isInstance(error)) return error.message;
  const [reason] = (error instanceof Error ? error.message : String(error)).split("\n");
  // What sharp says of a format that is blocked, too.
  return reason === "Input file contains unsupported image format"
    ? `${path}: expected the content of a JPEG, PNG or WebP image, got something else`
    : `${path}: ${reason}`;
}
