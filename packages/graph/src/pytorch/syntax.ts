/** @file The parts of PyTorch expressions. */
import type { DType, Shape } from "../value.ts";

/** What expressions are made of besides the inputs of an operation. */
export interface PyTorchSyntax {
  /** A shape as a list; dimensions that are left open are named. */
  sizes(shape: Shape): string;
  /** The device that tensors are to be made on. */
  readonly device: string;
}

const types: Readonly<Record<DType, string>> = {
  float32: "torch.float32",
  int64: "torch.int64",
  bool: "torch.bool",
};

/** The name that PyTorch has for a type. */
export function pytorchType(dtype: DType): string {
  return types[dtype];
}

/** A number as Python reads it, a float or an integer. */
export function pythonNumber(value: number | bigint, dtype: DType): string {
  if (dtype === "bool") return value ? "True" : "False";
  if (dtype === "int64") return String(value);
  const number = Number(value);
  if (!Number.isFinite(number)) return `float("${number}")`;
  if (Object.is(number, -0)) return "-0.0";
  return Number.isInteger(number) && Math.abs(number) < 1e21 ? `${number}.0` : String(number);
}

/** `name=value` after a comma for each argument that is not its default; pairs of one number are it. */
export function pythonArguments(
  given: Readonly<Record<string, readonly [value: number | readonly number[], standard: number]>>,
): string {
  return Object.entries(given)
    .map(([name, [value, standard]]) => {
      const values = typeof value === "number" ? [value] : value;
      if (values.every((n) => n === standard)) return "";
      const same = values.every((n) => n === values[0]);
      return `, ${name}=${same ? values[0] : `[${values.join(", ")}]`}`;
    })
    .join("");
}

/** `x` [N, C, H, W] with `filler` around it: [top, left, bottom, right]. */
export function paddedImage(x: string, around: readonly number[], filler = ""): string {
  const [top, left, bottom, right] = around;
  return around.every((n) => n === 0)
    ? x
    : `F.pad(${x}, [${left}, ${right}, ${top}, ${bottom}]${filler})`;
}
