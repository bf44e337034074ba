/** @file Cost of the path of an ImageNet network: see imagenet-process.ts. */
import { mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { onnxVersion } from "@espalier/runtime-onnx";
import * as z from "zod";
import { runOurs } from "./program.ts";

const size = z.object({ parameters: z.number(), macs: z.number(), onnxBytes: z.number() });

/** What the process prints. */
const printed = z.object({
  images: z.number(),
  components: z.number(),
  decodedPerSecond: z.number(),
  sensitivitySeconds: z.number(),
  computedPerSecond: z.number(),
  peakBytes: z.number(),
  planSeconds: z.number(),
  dense: size,
  pruned: size,
  latencies: z.array(
    z.object({
      batch: z.number(),
      denseMilliseconds: z.number(),
      prunedMilliseconds: z.number(),
      speedUp: z.number(),
    }),
  ),
});

export interface ImagenetResult extends z.infer<typeof printed> {
  readonly processor: string;
  readonly threads: number;
  readonly onnxruntime: string;
}

export interface ImagenetOptions {
  /** A folder of images, as `imagefolder:DIR` takes. */
  readonly images: string;
  readonly threads: number;
}

// What programs may take; the process has more: files, results, Node itself.
const MEMORY_LIMIT = 3 * 1024 ** 3;

export async function measureImagenet({
  images,
  threads,
}: ImagenetOptions): Promise<ImagenetResult> {
  const directory = await mkdtemp(join(tmpdir(), "espalier-imagenet-"));
  try {
    const args = [images, String(threads), String(MEMORY_LIMIT), directory];
    const measured = runOurs("imagenet-process.js", args, printed);
    return { ...measured, processor: cpus()[0].model, threads, onnxruntime: onnxVersion() };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export function imagenetMarkdown(result: ImagenetResult): string {
  const { dense, pruned } = result;
  const millions = (n: number) => (n / 1e6).toFixed(2);
  const megabytes = (n: number) => (n / 1e6).toFixed(1);
  const row = (name: string, before: string, after: string, ratio: number) =>
    `| ${name} | ${before} | ${after} | ${ratio.toFixed(2)} |`;
  return [
    "# ResNet-50 at 224×224",
    "",
    `${result.processor}, ${result.threads} threads, ONNX Runtime ${result.onnxruntime}. Fresh weights: there is no trained network behind these figures, which are of cost and shape alone. \`npm run bench -- imagenet --folder DIR\``,
    "",
    "| | |",
    "|---|---|",
    `| components scored, on ${result.images} images by \`probe\` with one draw | ${result.components.toLocaleString("en")} |`,
    `| time of it, compiling and decoding included | ${result.sensitivitySeconds.toFixed(0)} s |`,
    `| memory of the process at its peak | ${(result.peakBytes / 1e9).toFixed(2)} GB |`,
    `| images decoded per second, one thread beside an idle machine | ${result.decodedPerSecond.toFixed(0)} |`,
    `| images scored per second | ${result.computedPerSecond.toFixed(1)} |`,
    `| plan for half of the parameters | ${result.planSeconds.toFixed(1)} s |`,
    "",
    "| | dense | pruned | ratio |",
    "|---|---|---|---|",
    row(
      "parameters, millions",
      millions(dense.parameters),
      millions(pruned.parameters),
      dense.parameters / pruned.parameters,
    ),
    row(
      "multiply-accumulates, millions",
      millions(dense.macs),
      millions(pruned.macs),
      dense.macs / pruned.macs,
    ),
    row(
      "ONNX file, MB",
      megabytes(dense.onnxBytes),
      megabytes(pruned.onnxBytes),
      dense.onnxBytes / pruned.onnxBytes,
    ),
    ...result.latencies.map(({ batch, denseMilliseconds, prunedMilliseconds, speedUp }) =>
      row(
        `ms, batch ${batch}`,
        denseMilliseconds.toFixed(1),
        prunedMilliseconds.toFixed(1),
        speedUp,
      ),
    ),
  ].join("\n");
}
