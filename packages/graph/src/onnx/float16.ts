/** @file Models in half precision. */
import { Float16Array } from "@petamoriken/float16";
import type { OnnxGraph, OnnxTensor, StoredType } from "./builder.ts";
import { storedDataTypes } from "./encode.ts";
import { graphValues } from "./read.ts";
import { Rewriter } from "./rewriter.ts";

// What neither adds up many numbers nor raises them to powers, and is safe within ±65504; products
// of matrices are added up in float32 by the runtimes. All else is computed in float32.
const COMPUTED_IN_HALF = new Set([
  ...["Add", "Concat", "Conv", "Expand", "Gather", "Gemm", "Identity", "MatMul", "Max", "MaxPool"],
  ...["Min", "Mul", "Neg", "Pad", "Relu", "Reshape", "Sigmoid", "Slice", "Sub", "Tanh"],
  ...["Transpose", "Where"],
]);

const LARGEST_HALF = 65504;

/**
 * The same model with weights in float16, and computed in it where that is safe. Inputs and outputs
 * stay as they are.
 */
export function toFloat16(graph: OnnxGraph): OnnxGraph<StoredType> {
  const values = graphValues(graph, "graph", { batch: 1, length: 1 });
  const isFloat = (name: string) => values.get(name)?.dtype === "float32";
  const rewriter = new Rewriter(graph);
  // The names that each float tensor has in either precision.
  const names = { half: new Map<string, string>(), full: new Map<string, string>() };
  for (const { name } of graph.inputs) names.full.set(name, name);
  for (const name of graph.tensors.keys()) names.full.set(name, name);
  const inPrecision = (name: string, precision: "half" | "full"): string => {
    if (!isFloat(name)) return name;
    const known = names[precision].get(name);
    if (known !== undefined) return known;
    const tensor = graph.tensors.get(name);
    const other = names[precision === "half" ? "full" : "half"].get(name)!;
    const made =
      tensor === undefined
        ? rewriter.node("Cast", [other], `${name}.${precision}`, {
            to: storedDataTypes[precision === "half" ? "float16" : "float32"],
          })
        : rewriter.tensor(`${name}.half`, halve(tensor));
    names[precision].set(name, made);
    return made;
  };
  const outputs = new Set(graph.outputs.map(({ name }) => name));
  for (const node of graph.nodes) {
    const precision = COMPUTED_IN_HALF.has(node.type) ? "half" : "full";
    const results = node.outputs.map((name) => {
      if (!isFloat(name)) return name;
      const made = outputs.has(name) && precision === "half" ? rewriter.name(`${name}.half`) : name;
      names[precision].set(name, made);
      return made;
    });
    const inputs = node.inputs.map((name) => inPrecision(name, precision));
    rewriter.keep({ ...node, inputs, outputs: results });
    node.outputs.forEach((name, i) => {
      if (results[i] === name) return;
      const attributes = { to: storedDataTypes.float32 };
      rewriter.keep({
        type: "Cast",
        domain: "",
        inputs: [results[i]],
        outputs: [name],
        attributes,
      });
      names.full.set(name, name);
    });
  }
  return rewriter.graph();
}

/** Rounded to the nearest float16; what is larger than any becomes the largest. */
function halve({ shape, data }: OnnxTensor): OnnxTensor<StoredType> {
  const limited = Float32Array.from(data as Float32Array, (value) =>
    Math.min(Math.max(value, -LARGEST_HALF), LARGEST_HALF),
  );
  const { buffer } = new Float16Array(limited);
  return { dtype: "float16", shape, data: new Uint16Array(buffer as ArrayBuffer) };
}
