/** @file Implants fitted to what they replace, by linear least squares. */
import {
  bindParameters,
  type FitOptions,
  fitBatch,
  type Model,
  type Parameter,
  type Samples,
  sumOverBatches,
} from "@espalier/core";
import {
  cost,
  findUses,
  gather,
  matmul,
  multiply,
  reshape,
  simplify,
  slice,
  sum,
  transpose,
  type Value,
} from "@espalier/graph";
import { CholeskyDecomposition, Matrix } from "ml-matrix";
import { type Declaration, positionsOf } from "./network.ts";

/** Rows of a weight that became implants. */
export interface Implant {
  /** The implant's weight in the pruned model: [rows, columns, 1, 1]. */
  readonly implant: string;
  /** The weight that it replaces rows of, in the model before. */
  readonly weight: string;
  /** Rows of `weight`, one for each row of the implant that is new. */
  readonly rows: readonly number[];
  /** Where these are among the rows of the implant. */
  readonly implantRows: readonly number[];
  /**
   * Input channels of `weight` that the implant still sees; undefined where each row sees its own
   * channel alone.
   */
  readonly columns: readonly number[] | undefined;
}

/** The implants that a pruned model has and the model before it had not. */
export function findImplants(
  before: ReadonlyMap<string, Declaration>,
  after: ReadonlyMap<string, Declaration>,
): Implant[] {
  return [...after].flatMap(([implant, { channels }]) => {
    if (!implant.endsWith(".implant.weight")) return [];
    const weight = implant.replace(/\.implant\.weight$/, ".weight");
    const source = before.get(weight);
    if (source === undefined) return [];
    const old = before.get(implant)?.channels[0] ?? [];
    const fresh = channels[0]!.filter((channel) => !old.includes(channel));
    if (fresh.length === 0) return [];
    return {
      implant,
      weight,
      rows: positionsOf(fresh, source.channels[0]!),
      implantRows: positionsOf(fresh, channels[0]!),
      columns: channels[1] && positionsOf(channels[1], source.channels[1]!),
    };
  });
}

// Added to the diagonal of the normal equations, relative to its mean: keeps them solvable where
// channels are linearly dependent on the samples.
const RIDGE = 1e-6;

/**
 * `pruned` with `implants` fitted: over all samples and positions, the outputs of each implant, up to
 * a constant per channel, are as close as can be to those of the rows of `dense` that it replaces.
 * The constants are left to the statistics of the normalisation that follows.
 */
export async function fitImplants(
  dense: Model,
  pruned: Model,
  implants: readonly Implant[],
  samples: Samples,
  { executor, batchSize, signal }: FitOptions,
): Promise<Model> {
  if (implants.length === 0) return pruned;
  const wanted = Math.min(batchSize, samples.count);
  const prepared = fitBatch(executor, wanted, (size) => prepareSums(dense, implants, size));
  const { outputs, constants } = prepared;
  const options = { executor, samples, batchSize: prepared.batchSize, signal };
  const { sums: totals, batches } = await sumOverBatches({ outputs, constants }, options);
  const parameters = new Map<string, Parameter>(pruned.parameters);
  for (const { implant, rows, implantRows, columns } of implants) {
    const observations = batches * prepared.positions.get(implant)!;
    const part = (name: string) => totals.get(`${implant} ${name}`)!;
    const sums = [part("xx"), part("xy"), part("x"), part("y"), observations] as const;
    const solution = columns === undefined ? solveEach(...sums) : solve(...sums);
    const width = columns?.length ?? 1;
    const { shape, kind, data } = pruned.parameters.get(implant)!;
    const fitted = Float32Array.from(data);
    implantRows.forEach((row, r) => {
      for (let c = 0; c < width; c++) fitted[row * width + c] = solution[c * rows.length + r];
    });
    parameters.set(implant, { shape, kind, data: fitted });
  }
  return pruned.withParameters(parameters);
}

/** For each implant the sums over a batch that its normal equations are made of. */
function prepareSums(dense: Model, implants: readonly Implant[], batchSize: number) {
  const { graph, constants } = bindParameters(dense, batchSize, "evaluation");
  const uses = findUses(
    [graph.logits],
    implants.map(({ weight }) => graph.parameters.get(weight)!),
  );
  const outputs: Record<string, Value> = {};
  const positions = new Map<string, number>();
  for (const { implant, weight, rows, columns } of implants) {
    const { user } = uses.get(graph.parameters.get(weight)!)!;
    const [n, , height, width] = user.shape;
    positions.set(implant, n * height * width);
    const strides = user.attributes.strides as readonly [number, number];
    // The centre tap of the kernel saw every stride-th position of the input.
    const [, , inputHeight, inputWidth] = user.inputs[0].shape;
    const seen = slice(
      slice(user.inputs[0], 2, 0, inputHeight, strides[0]),
      3,
      0,
      inputWidth,
      strides[1],
    );
    // Without columns of its own a row sees the channel of its number.
    const channels = columns ?? rows;
    const x = reshape(gather(seen, channels, 1), [n, channels.length, height * width]);
    const y = reshape(gather(user, rows, 1), [n, rows.length, height * width]);
    const product = (a: Value, b: Value) =>
      columns === undefined ? sum(multiply(a, b), [0, 2]) : sum(matmul(a, transpose(b)), [0]);
    outputs[`${implant} xx`] = product(x, x);
    outputs[`${implant} xy`] = product(x, y);
    outputs[`${implant} x`] = sum(x, [0, 2]);
    outputs[`${implant} y`] = sum(y, [0, 2]);
  }
  const { peakBytes } = cost(simplify(Object.values(outputs)));
  return { batchSize, constants, outputs, positions, peakBytes };
}

/**
 * The coefficients [columns, rows] that best predict y from x, given sums over n observations of
 * x xᵀ, x yᵀ, x and y; the mean of both is taken out.
 */
function solve(
  xx: Float64Array,
  xy: Float64Array,
  x: Float64Array,
  y: Float64Array,
  n: number,
): Float64Array {
  const columns = x.length;
  const rows = y.length;
  const centred = new Matrix(columns, columns);
  const target = new Matrix(columns, rows);
  let diagonal = 0;
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < columns; j++) centred.set(i, j, xx[i * columns + j] - (x[i] * x[j]) / n);
    for (let r = 0; r < rows; r++) target.set(i, r, xy[i * rows + r] - (x[i] * y[r]) / n);
    diagonal += centred.get(i, i);
  }
  const ridge = (RIDGE * diagonal) / columns || 1;
  for (let i = 0; i < columns; i++) centred.set(i, i, centred.get(i, i) + ridge);
  return Float64Array.from(new CholeskyDecomposition(centred).solve(target).to1DArray());
}

/** As `solve`, where each of y is predicted from the x of its number alone. */
function solveEach(
  xx: Float64Array,
  xy: Float64Array,
  x: Float64Array,
  y: Float64Array,
  n: number,
): Float64Array {
  return xx.map((square, i) => {
    const variance = square - (x[i] * x[i]) / n;
    return (xy[i] - (x[i] * y[i]) / n) / (variance * (1 + RIDGE) || 1);
  });
}
