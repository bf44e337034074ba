/** @file The ranges that activations of a model take. */
import {
  fitBatch,
  forEachBatch,
  type ImagePreprocessing,
  type Random,
  type Samples,
} from "@espalier/core";
import {
  cost,
  type Executor,
  float32Data,
  graphValues,
  type OnnxGraph,
  type Range,
  simplify,
} from "@espalier/graph";

export interface CalibrateOptions {
  readonly executor: Executor;
  readonly samples: Samples;
  readonly batchSize: number;
  readonly signal?: AbortSignal | undefined;
}

/** The smallest and the largest element of each of the tensors `names` of `graph`, over all samples. */
export async function calibrate(
  graph: OnnxGraph,
  names: readonly string[],
  { executor, samples, batchSize, signal }: CalibrateOptions,
): Promise<Map<string, Range>> {
  const ranges = new Map<string, Range>();
  if (names.length === 0 || samples.count === 0) return ranges;
  const prepared = fitBatch(executor, Math.min(batchSize, samples.count), (size) => {
    const values = graphValues(graph, "the exported model", { batch: size });
    const outputs = Object.fromEntries(names.map((name) => [name, values.get(name)!]));
    const { peakBytes } = cost(simplify(Object.values(outputs)));
    return { batchSize: size, outputs, peakBytes };
  });
  const program = await executor.compile({ outputs: prepared.outputs });
  try {
    await forEachBatch({ samples, batchSize: prepared.batchSize, signal }, async ({ feeds }) => {
      for (const [name, tensor] of Object.entries(await program.run(feeds))) {
        let { least, most } = ranges.get(name) ?? { least: 0, most: 0 };
        for (const element of float32Data(tensor)) {
          if (element < least) least = element;
          if (element > most) most = element;
        }
        ranges.set(name, { least, most });
      }
    });
  } finally {
    await program.dispose();
  }
  return ranges;
}

// Of photographs, roughly: the mean and the deviation of brightness, and how much less colours vary.
const BRIGHTNESS = 0.45;
const CONTRAST = 0.25;
const COLOUR = 0.3;

/**
 * Images that stand for photographs where there are none: patterns of all sizes, each as strong as
 * the others, since the power of photographs falls with the square of the frequency (Field 1987).
 */
export function syntheticImages(
  { shape, mean, std }: ImagePreprocessing,
  count: number,
  random: Random,
): Samples {
  const [channels, height, width] = shape;
  const plane = height * width;
  const draw = (image: number): Float32Array => {
    const common = pattern(height, width, random.stream("brightness", image));
    const pixels = new Float32Array(channels * plane);
    for (let channel = 0; channel < channels; channel++) {
      const own = pattern(height, width, random.stream("colour", image, channel));
      for (let i = 0; i < plane; i++) {
        const value = BRIGHTNESS + CONTRAST * (common[i] + COLOUR * own[i]);
        const pixel = Math.min(Math.max(value, 0), 1);
        pixels[channel * plane + i] = (pixel - mean[channel]) / std[channel];
      }
    }
    return pixels;
  };
  return {
    count,
    batch: async (indices) => {
      const pixels = new Float32Array(indices.length * channels * plane);
      Array.from(indices).forEach((index, n) => {
        pixels.set(draw(index), n * channels * plane);
      });
      return { feeds: { pixel_values: pixels }, labels: new Int32Array(indices.length) };
    },
  };
}

/** Noise of all sizes from one pixel to the whole image, of mean 0 and variance about 1. */
function pattern(height: number, width: number, random: Random): Float32Array {
  const sum = new Float32Array(height * width);
  let octaves = 0;
  for (let cell = 1; cell <= Math.max(height, width); cell *= 2) {
    octaves++;
    const columns = Math.ceil(width / cell) + 1;
    const rows = Math.ceil(height / cell) + 1;
    const grid = Float32Array.from({ length: rows * columns }, () => random.normal());
    for (let y = 0; y < height; y++) {
      const [row, v] = [Math.floor(y / cell), (y % cell) / cell];
      for (let x = 0; x < width; x++) {
        const [column, u] = [Math.floor(x / cell), (x % cell) / cell];
        const at = row * columns + column;
        const above = grid[at] * (1 - u) + grid[at + 1] * u;
        const below = grid[at + columns] * (1 - u) + grid[at + columns + 1] * u;
        // Interpolation averages; this keeps the variance.
        const norm = Math.hypot(1 - u, u) * Math.hypot(1 - v, v);
        sum[y * width + x] += (above * (1 - v) + below * v) / norm;
      }
    }
  }
  return sum.map((value) => value / Math.sqrt(octaves));
}
