import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "@espalier/core";
import sharp from "sharp";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type DatasetEvent, openDataset } from "./index.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-folder-"));
});
afterEach(() => rm(root, { recursive: true }));

type Format = "jpeg" | "png" | "webp";

/** An image of one colour. */
async function write(
  path: string,
  { r, g, b }: { r: number; g: number; b: number },
  { width = 20, height = 10, format = "png" as Format, channels = 3 as 3 | 4 } = {},
): Promise<void> {
  await mkdir(join(root, path, ".."), { recursive: true });
  const background = channels === 4 ? { r, g, b, alpha: 0.5 } : { r, g, b };
  await sharp({ create: { width, height, channels, background } })
    .toFormat(format, { lossless: true, quality: 100 })
    .toFile(join(root, path));
}

const red = { r: 255, g: 0, b: 0 };
const blue = { r: 0, g: 0, b: 255 };
const preprocessing = { kind: "image", shape: [3, 4, 4], mean: [0, 0, 0], std: [1, 1, 1] } as const;

async function writeTwoClasses(perClass = 2): Promise<void> {
  for (const half of ["train", "val"]) {
    for (let i = 0; i < perClass; i++) {
      await write(`${half}/red/${i}.png`, red);
      await write(`${half}/blue/${i}.png`, blue);
    }
  }
}

const open = (onEvent?: (event: DatasetEvent) => void) =>
  openDataset(`imagefolder:${root}`, { onEvent });

/** The means of the three channels of each image. */
function colours(pixels: Float32Array): number[][] {
  return Array.from({ length: pixels.length / 48 }, (_, n) =>
    [0, 1, 2].map((channel) => {
      const start = (3 * n + channel) * 16;
      const sum = pixels.subarray(start, start + 16).reduce((a, b) => a + b, 0);
      return Math.round((100 * sum) / 16) / 100;
    }),
  );
}

describe("an image folder", () => {
  test("has the classes of its folders, in the order of their names", async () => {
    await writeTwoClasses();
    const data = await open();
    expect(data).toMatchObject({ classes: ["blue", "red"], counts: { train: 4, test: 4 } });
    const { feeds, labels } = await data.test(preprocessing).batch([3, 0, 1]);
    expect(Array.from(labels)).toEqual([1, 0, 0]);
    expect(colours(feeds.pixel_values as Float32Array)).toEqual([
      [1, 0, 0],
      [0, 0, 1],
      [0, 0, 1],
    ]);
  });

  test("reads JPEG, PNG and WebP, with alpha, grey, and of any size; leaves others alone", async () => {
    await write("train/a/1.JPG", red, { format: "jpeg", width: 300, height: 200 });
    await write("train/a/2.webp", red, { format: "webp", width: 1, height: 7 });
    await write("train/a/3.png", red, { channels: 4 });
    await sharp({
      create: { width: 9, height: 9, channels: 3, background: { r: 128, g: 128, b: 128 } },
    })
      .toColourspace("b-w")
      .png()
      .toFile(join(root, "train/a/4.png"));
    await write("train/b/1.jpeg", blue, { format: "jpeg" });
    await writeFile(join(root, "train/a/notes.txt"), "not an image");
    await writeFile(join(root, "train/a/._1.JPG"), "not an image either");
    await mkdir(join(root, "train/.hidden"));
    await symlink(join(root, "train"), join(root, "validation"));
    const data = await open();
    expect(data.counts).toEqual({ train: 5, test: 5 });
    const { feeds } = await data.train(preprocessing).batch([0, 1, 2, 3, 4]);
    const found = colours(feeds.pixel_values as Float32Array).map((each) => each.map(Math.round));
    expect(found).toEqual([
      [1, 0, 0],
      [1, 0, 0],
      [1, 0, 0],
      [1, 1, 1],
      [0, 0, 1],
    ]);
  });

  test("normalises, and cuts the middle out", async () => {
    await writeTwoClasses();
    // Blue with a red frame of a quarter: the middle half is blue.
    await sharp({ create: { width: 40, height: 40, channels: 3, background: red } })
      .composite([
        {
          input: { create: { width: 20, height: 20, channels: 3, background: blue } },
          left: 10,
          top: 10,
        },
      ])
      .png()
      .toFile(join(root, "val/blue/0.png"));
    const data = await open();
    const middle = await data.test({ ...preprocessing, crop: 0.4 }).batch([0]);
    expect(colours(middle.feeds.pixel_values as Float32Array)).toEqual([[0, 0, 1]]);
    const whole = await data
      .test({ ...preprocessing, mean: [1, 0, 0], std: [0.5, 1, 1] })
      .batch([0]);
    expect(colours(whole.feeds.pixel_values as Float32Array)[0][0]).toBeCloseTo((0.75 - 1) / 0.5);
  });

  test("augmented, a part of the image is drawn by the seed and mirrored half of the time", async () => {
    await writeTwoClasses(1);
    // The left half dark, the right half bright.
    const pixels = Buffer.from(Array.from({ length: 64 * 64 }, (_, i) => (i % 64 < 32 ? 0 : 255)));
    await sharp(pixels, { raw: { width: 64, height: 64, channels: 1 } })
      .png()
      .toFile(join(root, "train/blue/0.png"));
    const samples = (await open()).train(preprocessing);
    const indices = new Array<number>(64).fill(0);
    const draw = async (seed: number) =>
      (await samples.batch(indices, new Random(seed))).feeds.pixel_values as Float32Array;
    const first = await draw(1);
    expect(await draw(1)).toEqual(first);
    expect(await draw(2)).not.toEqual(first);
    const brighter = Array.from({ length: 64 }, (_, n) => first[n * 48 + 3] - first[n * 48]);
    expect(brighter.filter((x) => x > 0).length).toBeGreaterThan(10);
    expect(brighter.filter((x) => x < 0).length).toBeGreaterThan(10);
  });

  test("reports what cannot be read once, and puts the next image in its place", async () => {
    await writeTwoClasses(5);
    await writeFile(join(root, "val/red/1.png"), "no image");
    await writeFile(join(root, "val/red/3.png"), Buffer.alloc(0));
    const events: DatasetEvent[] = [];
    const samples = (await open((event) => events.push(event))).test(preprocessing);
    const batch = await samples.batch([5, 6, 7, 8]);
    expect(batch.substitutes).toEqual(new Set([1, 3]));
    expect(Array.from(batch.labels)).toEqual([1, 1, 1, 1]);
    await samples.batch([6]);
    const skipped = events.map((event) => event.type === "image-skip" && event.subject);
    expect(skipped.sort()).toEqual([join(root, "val/red/1.png"), join(root, "val/red/3.png")]);
  });

  test("has a digest of names, sizes and classes", async () => {
    await writeTwoClasses();
    const digest = async () => (await open()).digest();
    const before = await digest();
    expect(before).toMatch(/^[0-9a-f]{64}$/);
    expect(await digest()).toBe(before);
    await symlink(join(root, "nowhere"), join(root, "val/red/2.png"));
    expect(await digest()).not.toBe(before);
    await rm(join(root, "val/red/2.png"));
    await rename(join(root, "val/red/1.png"), join(root, "val/blue/2.png"));
    expect(await digest()).not.toBe(before);
    await rename(join(root, "val/blue/2.png"), join(root, "val/red/1.png"));
    expect(await digest()).toBe(before);
    await writeFile(join(root, "val/red/1.png"), "x", { flag: "a" });
    expect(await digest()).not.toBe(before);
  });

  test("reads no other formats, whatever they are called", async () => {
    await writeTwoClasses();
    const svg =
      '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9"/></svg>';
    await writeFile(join(root, "val/red/0.png"), svg);
    const gif = sharp({ create: { width: 9, height: 9, channels: 3, background: red } }).gif();
    await writeFile(join(root, "val/red/1.png"), await gif.toBuffer());
    const events: DatasetEvent[] = [];
    const samples = (await open((event) => events.push(event))).test(preprocessing);
    await samples.batch([2, 3]);
    const paths = events.map((event) => [event.subject, "error" in event && event.error.message]);
    const reason = "expected the content of a JPEG, PNG or WebP image, got something else";
    expect(paths).toEqual(
      ["0.png", "1.png"].map((name) => {
        const path = join(root, "val/red", name);
        return [path, `${path}: ${reason}`];
      }),
    );
  });

  test.skipIf(process.platform === "win32")("does not wait for a FIFO", async () => {
    await writeTwoClasses();
    await rm(join(root, "val/red/0.png"));
    execFileSync("mkfifo", [join(root, "val/red/0.png")]);
    const events: DatasetEvent[] = [];
    const samples = (await open((event) => events.push(event))).test(preprocessing);
    expect((await samples.batch([2])).substitutes).toEqual(new Set([0]));
    const message = expect.stringMatching(/0\.png: expected a file, got a FIFO/);
    expect(events).toMatchObject([{ type: "image-skip", error: { message } }]);
  });

  test("gives up when too many cannot be read", async () => {
    await writeTwoClasses(5);
    for (const i of [0, 1, 2, 3]) await writeFile(join(root, `val/red/${i}.png`), "no image");
    const samples = (await open()).test(preprocessing);
    await expect(samples.batch([5, 6, 7, 8])).rejects.toMatchObject({
      code: "invalid-file",
      message: expect.stringMatching(
        /val: expected at most 3 of 10 images that cannot be read, got 4, such as .*red.0\.png: /,
      ),
    });
  });

  test("a truncated photograph cannot be read", async () => {
    await writeTwoClasses();
    const noise = Buffer.from(Array.from({ length: 3 * 64 * 64 }, (_, i) => (i * 7919) % 251));
    const bytes = await sharp(noise, { raw: { width: 64, height: 64, channels: 3 } })
      .jpeg()
      .toBuffer();
    await writeFile(join(root, "val/blue/0.png"), bytes.subarray(0, bytes.length / 2));
    const batch = await (await open()).test(preprocessing).batch([0]);
    expect(batch.substitutes).toEqual(new Set([0]));
  });

  test.each<[string, () => Promise<unknown>, string, RegExp]>([
    [
      "that is not there",
      async () => rm(root, { recursive: true }).then(() => mkdir(root)),
      "missing-file",
      /expected folders train and val or validation or test/,
    ],
    [
      "of one class",
      () => write("train/red/1.png", red).then(() => write("val/red/1.png", red)),
      "invalid-file",
      /expected a folder for each of two classes or more, got 1/,
    ],
    [
      "with a class of no images",
      () =>
        writeTwoClasses()
          .then(() => mkdir(join(root, "train/green")))
          .then(() => writeFile(join(root, "train/green/x.txt"), "")),
      "invalid-file",
      /train.green: expected JPEG, PNG or WebP images, got none/,
    ],
    [
      "with no images to judge on",
      () =>
        writeTwoClasses()
          .then(() => rm(join(root, "val"), { recursive: true }))
          .then(() => mkdir(join(root, "val"))),
      "invalid-file",
      /val: expected images, got none/,
    ],
    [
      "with a class that cannot be trained",
      () => writeTwoClasses().then(() => write("val/green/1.png", red)),
      "invalid-file",
      /val.green: .*train has no such class/,
    ],
  ])("a folder %s is refused", async (_name, prepare, code, message) => {
    await prepare();
    await expect(open()).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test("a model for other channels is refused", async () => {
    await writeTwoClasses();
    const data = await open();
    const grey = { kind: "image", shape: [1, 4, 4], mean: [0], std: [1] } as const;
    expect(() => data.train(grey)).toThrow(
      /expected a model for images of 3 channels, got one for 1/,
    );
  });

  test.skipIf(process.platform === "win32")("names that are not UTF-8 are left out", async () => {
    await writeTwoClasses();
    const events: DatasetEvent[] = [];
    const folder = Buffer.from(join(root, "train/red/"));
    await writeFile(Buffer.concat([folder, Buffer.from([0xff]), Buffer.from(".png")]), "");
    expect((await open((event) => events.push(event))).counts.train).toBe(4);
    expect(events).toMatchObject([{ type: "image-skip" }]);
  });
});
