/** @file Models for inference and tuning as PyTorch modules: Python source for tensors of a file. */
import { EspalierError } from "@espalier/base";
import { isConstant, isInput } from "../ops/leaf.ts";
import { simplify } from "../passes.ts";
import { type DType, type Shape, topologicalOrder, type Value } from "../value.ts";
import { type PyTorchSyntax, pythonNumber, pytorchType } from "./syntax.ts";

/** A model applied to one batch. */
export interface PyTorchGraph {
  readonly output: Value;
  /** Inputs that are read from the file of tensors, under their names. */
  readonly parameters: ReadonlyMap<string, Value>;
  /** Names of those parameters that are not trained but updated by batch normalisation. */
  readonly statistics: ReadonlySet<string>;
}

const MODULE = "model.py";

const IDENTIFIER = /^[A-Za-z_]\w*$/;
const OWN_NAMES: ReadonlySet<string> = new Set(["self", "w", "batch", "length", "torch", "F"]);

// Primes, so that no other dimension is a multiple of them by chance.
const SIZES = [
  [1009, 1019],
  [1013, 1021],
] as const;

/**
 * The source of a Python file `model.py` with a module `Model` and a function `load`, which reads a file
 * of safetensors that has the parameters under their names. The module takes batches of any size and
 * sequences of any length; while it trains, batch normalisation uses and updates what it knows of them.
 *
 * @param build Builds the model for a given batch size, and for sequences of a given length. Nothing
 *   runs at these sizes, which are large.
 * @param weights The name of the file of tensors, beside `model.py`.
 * @throws EspalierError `invalid-graph` naming an operation that PyTorch has no expression for here, or
 *   a batch size that is built in.
 */
export function pytorchModule(
  build: (batch: number, length: number) => PyTorchGraph,
  weights: string,
): string {
  const [source, other] = SIZES.map(([batch, length]) =>
    moduleSource(build(batch, length), batch, length, weights),
  );
  if (source === other) return source;
  const lines = other.split("\n");
  const line = source.split("\n").find((text, i) => text !== lines[i]);
  throw new EspalierError(
    "invalid-graph",
    `${MODULE}: "${line?.trim()}" differs between batches of ${SIZES.map(([batch]) => batch).join(" and ")}: the size is built in`,
  );
}

function moduleSource(graph: PyTorchGraph, batch: number, length: number, weights: string): string {
  const { parameters, statistics } = graph;
  const [output] = simplify([graph.output]);
  const order = topologicalOrder([output]);
  const stored = new Map([...parameters].map(([name, value]) => [value, name]));
  const inputs = order.filter(isInput).filter((value) => !stored.has(value));
  const inputNames = inputs.map(({ attributes }) => attributes.name);
  for (const name of inputNames) {
    if (IDENTIFIER.test(name) && !OWN_NAMES.has(name)) continue;
    throw new EspalierError(
      "invalid-graph",
      `${MODULE}: expected an input whose name is free for a variable, got ${JSON.stringify(name)}`,
    );
  }
  const syntax: PyTorchSyntax = {
    sizes: (shape) => `[${shape.map((n) => sizeSource(n, { batch, length })).join(", ")}]`,
    device: `${inputNames[0]}.device`,
  };
  const { statements, result } = statementsOf(order, inputNames, syntax, (value) => {
    const name = stored.get(value);
    if (name !== undefined) return `w[${JSON.stringify(name)}]`;
    if (isInput(value)) return value.attributes.name;
    return isConstant(value) ? constantSource(value, syntax) : undefined;
  });
  const sizes = ["batch", "length"].flatMap((name, axis) =>
    statements.some((line) => new RegExp(`\\b${name}\\b`).test(line))
      ? [`${name} = ${inputNames[0]}.shape[${axis}]`]
      : [],
  );
  const forward = [
    ...(stored.size > 0 ? ["w = self.state_dict(keep_vars=True)"] : []),
    ...sizes,
    ...statements,
    `return ${result}`,
  ];
  const described = (value: Value) => `${value.dtype} ${syntax.sizes(value.shape)}`;
  return `"""A network as a PyTorch module. Its tensors are in ${weights}, beside this file.

    from model import load

    model = load()          # for inference
    model = load().train()  # for tuning; save with safetensors.torch.save_file(model.state_dict(), …)

It needs torch and safetensors.
"""
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

# What batch normalisation knows of all batches, which is not trained.
STATISTICS = {${[...statistics].map((name) => `\n    ${JSON.stringify(name)},`).join("")}
}


class Model(nn.Module):
    """${inputs.map((value) => `${value.attributes.name}: ${described(value)}`).join(", ")} -> ${described(output)}"""

    def __init__(self, tensors):
        super().__init__()
        for name, tensor in tensors.items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]
            if name in STATISTICS:
                module.register_buffer(leaf, tensor)
            else:
                module.register_parameter(leaf, nn.Parameter(tensor))

    def forward(self, ${inputNames.join(", ")}):
${forward.map((line) => `        ${line}`).join("\n")}


def load(path=Path(__file__).with_name(${JSON.stringify(weights)})):
    return Model(load_file(path)).eval()
`;
}

/**
 * One assignment for each value of `order`, but for those that `leafSource` has an expression of, and
 * the expression of the last value.
 */
function statementsOf(
  order: readonly Value[],
  reserved: readonly string[],
  syntax: PyTorchSyntax,
  leafSource: (value: Value) => string | undefined,
): { readonly statements: readonly string[]; readonly result: string } {
  const lastUse = new Map(order.flatMap((user) => user.inputs.map((value) => [value, user])));
  const variables = new Variables(reserved);
  const expressions = new Map<Value, string>();
  const assigned = new Set<Value>();
  const statements: string[] = [];
  for (const value of order) {
    const leaf = leafSource(value);
    if (leaf !== undefined) {
      expressions.set(value, leaf);
      continue;
    }
    const { operation, inputs } = value;
    const operands = inputs.map((operand) => expressions.get(operand)!);
    const expression = operation.pytorch?.(operands, value, syntax);
    if (expression === undefined) {
      throw new EspalierError(
        "invalid-graph",
        `${MODULE}: PyTorch has no expression for ${operation.name} as it is used here`,
        { operation: operation.name },
      );
    }
    for (const operand of new Set(inputs)) {
      const done = assigned.has(operand) && lastUse.get(operand) === value;
      if (done) variables.release(expressions.get(operand)!);
    }
    const name = variables.take();
    expressions.set(value, name);
    assigned.add(value);
    statements.push(`${name} = ${expression}`);
  }
  return { statements, result: expressions.get(order[order.length - 1])! };
}

/** A dimension as a product of what is open and a number. */
function sizeSource(n: number, open: Readonly<Record<"batch" | "length", number>>): string {
  const factors = Object.entries(open).filter(([, size]) => n > 0 && n % size === 0);
  const rest = factors.reduce((quotient, [, size]) => quotient / size, n);
  const names = factors.map(([name]) => name);
  return [...names, ...(rest === 1 && names.length > 0 ? [] : [rest])].join(" * ");
}

function constantSource(value: Value, { device }: PyTorchSyntax): string {
  const { data, shape, dtype } = value.attributes as {
    data: ArrayLike<number | bigint>;
    shape: Shape;
    dtype: DType;
  };
  const numbers = Array.from(data, (number) => pythonNumber(number, dtype));
  const content = shape.length === 0 ? numbers[0] : `[${numbers.join(", ")}]`;
  const tensor = `torch.tensor(${content}, dtype=${pytorchType(dtype)}, device=${device})`;
  return shape.length > 1 ? `${tensor}.reshape([${shape.join(", ")}])` : tensor;
}

/** Names of tensors, taken anew as soon as they are free, so that what is not needed is not kept. */
class Variables {
  readonly #free: string[] = [];
  readonly #reserved: ReadonlySet<string>;
  #count = 0;

  constructor(reserved: Iterable<string>) {
    this.#reserved = new Set(reserved);
  }

  take(): string {
    const free = this.#free.sort().shift();
    if (free !== undefined) return free;
    const name = ["x", "y", "z"][this.#count] ?? `z${this.#count - 2}`;
    this.#count++;
    return this.#reserved.has(name) ? this.take() : name;
  }

  release(name: string): void {
    this.#free.push(name);
  }
}
