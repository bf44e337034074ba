import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { EspalierError } from "@espalier/base";
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  SparseTensorProtoSchema,
  TensorProto_DataLocation,
  TensorProto_DataType,
  TensorShapeProto_DimensionSchema,
} from "onnx-buf";
import { describe, expect, test } from "vitest";
import { conv } from "../ops/convolution.ts";
import { add, relu } from "../ops/elementwise.ts";
import { input } from "../ops/leaf.ts";
import { mean, perChannel } from "../ops/normalize.ts";
import { maxPool } from "../ops/pool.ts";
import { conformanceCases, conformanceProblem, randomArray, uniform } from "../testing/index.ts";
import { sizeOf, type Value } from "../value.ts";
import { decodeOnnx } from "./decode.ts";
import { encodeOnnx } from "./encode.ts";
import { lowerToOnnx } from "./lower.ts";
import { readOnnx } from "./read.ts";

function smallModel(): Uint8Array<ArrayBuffer> {
  const [x, w, b] = [input("x", [2, 3, 8, 8]), input("w", [4, 3, 3, 3]), input("b", [4])];
  const hidden = relu(add(conv(x, w, { padding: [1, 1, 1, 1] }), perChannel(b, 4)));
  const pooled = maxPool(hidden, { kernel: [2, 2], strides: [2, 2], padding: [0, 0, 0, 0] });
  const constants = new Map(
    [w, b].map((value: Value, i) => [value, randomArray(sizeOf(value.shape), i)]),
  );
  const graph = lowerToOnnx({ y: mean(pooled, [2, 3]) }, { constants, openBatch: 2 });
  return encodeOnnx(graph, { license: "Apache-2.0" });
}

/** The small model with `change` made to it. */
function changed(change: (model: ModelProto) => void): Uint8Array {
  const model = fromBinary(ModelProtoSchema, smallModel());
  change(model);
  return toBinary(ModelProtoSchema, model);
}

test.each(conformanceCases.map((entry) => [entry.name, entry] as const))(
  "%s is decoded as it was encoded",
  (_name, entry) => {
    const graph = lowerToOnnx(conformanceProblem(entry).outputs);
    const decoded = decodeOnnx(encodeOnnx(graph, { a: "b" }), "model.onnx");
    expect(decoded.metadata).toEqual({ a: "b" });
    expect(decoded.graph.inputs).toEqual(graph.inputs);
    expect(decoded.graph.outputs).toEqual(graph.outputs);
    expect(decoded.graph.tensors).toEqual(graph.tensors);
    // Attributes of type float are rounded.
    const rounded = graph.nodes.map((node) => ({
      ...node,
      attributes: Object.fromEntries(
        Object.entries(node.attributes).map(([name, value]) => [
          name,
          typeof value === "number" ? Math.fround(value) : value,
        ]),
      ),
    }));
    expect(decoded.graph.nodes).toEqual(rounded);
  },
);

test("elements may be listed instead of raw, and initializers repeated among the inputs", () => {
  const bytes = changed(({ graph }) => {
    const [bias, shape] = [graph!.initializer[0], graph!.initializer.at(-1)!];
    bias.floatData = [...new Float32Array(bias.rawData.slice().buffer)];
    bias.rawData = new Uint8Array();
    shape.int64Data = [...new BigInt64Array(shape.rawData.slice().buffer)];
    shape.rawData = new Uint8Array();
    graph!.input.push({ ...graph!.input[0], name: bias.name });
  });
  expect(decodeOnnx(bytes, "model.onnx")).toEqual(decodeOnnx(smallModel(), "model.onnx"));
});

test("the batch dimension stays open and is given a size by the reader", () => {
  const { inputs, outputs } = readOnnx(smallModel(), "model.onnx", { batch: 5 });
  expect(inputs.x.shape).toEqual([5, 3, 8, 8]);
  expect(outputs.y.shape).toEqual([5, 4]);
  for (const batch of [undefined, 0, 1.5]) {
    const read = () => readOnnx(smallModel(), "model.onnx", batch === undefined ? {} : { batch });
    expect(read).toThrow(/input "x" leaves the batch dimension open: expected the option batch/);
  }
});

const attribute = (fields: object) => create(AttributeProtoSchema, fields as never);
const dimension = (value: bigint) =>
  create(TensorShapeProto_DimensionSchema, { value: { case: "dimValue", value } });
const inputDimensions = ({ graph }: ModelProto) => {
  const { value } = graph!.input[0].type!;
  return value.case === "tensorType" ? value.value.shape!.dim : [];
};

describe("refuses, naming the file and the place,", () => {
  test.each<[string, RegExp, (model: ModelProto) => void]>([
    ["no graph", /expected a graph/, (model) => delete model.graph],
    ["no operator set", /operator set 13 to 20, got none/, (model) => (model.opsetImport = [])],
    ["a newer operator set", /got 99/, (model) => (model.opsetImport[0].version = 99n)],
    ["an older operator set", /got 9/, (model) => (model.opsetImport[0].version = 9n)],
    [
      "only another domain's operators",
      /got none/,
      (model) => {
        model.opsetImport = [create(OperatorSetIdProtoSchema, { domain: "com.x", version: 1n })];
      },
    ],
    [
      "a node of another domain",
      /node "Conv_0" \("Conv"\): .*"com\.x"/,
      ({ graph }) => (graph!.node.find(({ opType }) => opType === "Conv")!.domain = "com.x"),
    ],
    [
      "an unknown operator",
      /node "Relu_\d+" \("Vortex"\): this operator is not supported/,
      ({ graph }) => (graph!.node.find(({ opType }) => opType === "Relu")!.opType = "Vortex"),
    ],
    [
      "an operator called like a property of objects",
      /\("constructor"\): this operator/,
      ({ graph }) => (graph!.node[0].opType = "constructor"),
    ],
    [
      "an unknown attribute",
      /\("Relu"\): attribute "__proto__" is not supported/,
      ({ graph }) =>
        graph!.node
          .find(({ opType }) => opType === "Relu")!
          .attribute.push(attribute({ name: "__proto__", type: 2, i: 1n })),
    ],
    [
      "an attribute of an unsupported type",
      /attribute "body" of type GRAPH/,
      ({ graph }) =>
        graph!.node[0].attribute.push(
          attribute({
            name: "body",
            type: AttributeProto_AttributeType.GRAPH,
            g: create(GraphProtoSchema),
          }),
        ),
    ],
    [
      "an attribute twice",
      /attribute "pads" once/,
      ({ graph }) =>
        graph!.node.forEach(({ attribute: list }) => {
          list.push(...list.filter(({ name }) => name === "pads"));
        }),
    ],
    [
      "an attribute beyond 2^53",
      /integers below 2\^53, got 9007199254740993/,
      ({ graph }) =>
        (graph!.node
          .find(({ opType }) => opType === "Conv")!
          .attribute.find(({ name }) => name === "strides")!.ints = [2n ** 53n + 1n]),
    ],
    [
      "attributes of the wrong number",
      /attribute strides: expected 2 numbers from 1, got "0,1,1"/,
      ({ graph }) =>
        (graph!.node
          .find(({ opType }) => opType === "Conv")!
          .attribute.find(({ name }) => name === "strides")!.ints = [0n, 1n, 1n]),
    ],
    [
      "data that does not fit",
      /initializer "w": expected 108 elements for float32\[4,3,3,3\], got 100 bytes/,
      ({ graph }) => {
        const w = graph!.initializer.find(({ name }) => name === "w")!;
        w.rawData = w.rawData.slice(0, 100);
      },
    ],
    [
      "data of no whole number of elements",
      /expected 108 elements .*, got 431 bytes/,
      ({ graph }) => {
        const w = graph!.initializer.find(({ name }) => name === "w")!;
        w.rawData = w.rawData.slice(1);
      },
    ],
    [
      "a tensor of another type",
      /initializer "w": expected data type 1 \(float32\), .*, got 11/,
      ({ graph }) =>
        (graph!.initializer.find(({ name }) => name === "w")!.dataType =
          TensorProto_DataType.DOUBLE),
    ],
    [
      "a negative dimension",
      /initializer "w": .* got -4/,
      ({ graph }) => (graph!.initializer.find(({ name }) => name === "w")!.dims[0] = -4n),
    ],
    [
      "overflowing dimensions",
      /initializer "w": expected \S+ elements/,
      ({ graph }) =>
        (graph!.initializer.find(({ name }) => name === "w")!.dims = Array(9).fill(2n ** 31n)),
    ],
    [
      "too many dimensions",
      /initializer "w": expected at most 64 dimensions, got 65/,
      ({ graph }) =>
        (graph!.initializer.find(({ name }) => name === "w")!.dims = Array(65).fill(1n)),
    ],
    [
      "external data",
      /initializer "w": .* external data/,
      ({ graph }) =>
        (graph!.initializer.find(({ name }) => name === "w")!.dataLocation =
          TensorProto_DataLocation.EXTERNAL),
    ],
    [
      "sparse tensors",
      /sparse/,
      ({ graph }) => graph!.sparseInitializer.push(create(SparseTensorProtoSchema)),
    ],
    [
      "an input that is no tensor",
      /input "x": expected a tensor/,
      ({ graph }) => delete graph!.input[0].type,
    ],
    [
      "an input with a dimension that is no size",
      /input "x": .* got -1/,
      (model) => (inputDimensions(model)[1] = dimension(-1n)),
    ],
    [
      "an input without elements",
      /input "x": expected 1 to \d+ elements/,
      (model) => (inputDimensions(model)[1] = dimension(0n)),
    ],
    [
      "a second open dimension",
      /input "x": expected dimension 2 to be known, got ""/,
      (model) => (inputDimensions(model)[2] = create(TensorShapeProto_DimensionSchema)),
    ],
    [
      "shapes that do not fit",
      /node "Conv_\d+" \("Conv"\): conv: expected x/,
      (model) => (inputDimensions(model)[1] = dimension(7n)),
    ],
    [
      "a result larger than memory",
      /node "Expand_0" \("Expand"\): expected a result of at most/,
      ({ graph }) => {
        const size = graph!.initializer.find(({ dataType }) => dataType === 7)!;
        size.name = "size";
        size.dims = [4n];
        size.rawData = new Uint8Array(BigInt64Array.from([1n, 1n, 2n ** 31n, 2n ** 31n]).buffer);
        graph!.initializer = [graph!.initializer.find(({ name }) => name === "b")!, size];
        graph!.initializer[0].dims = [1n, 4n, 1n, 1n];
        graph!.node = [
          create(NodeProtoSchema, {
            opType: "Expand",
            input: ["b", "size"],
            output: ["Expand_0"],
          }),
        ];
        graph!.output[0].name = "Expand_0";
      },
    ],
    [
      "an input that nothing defines",
      /node "Conv_\d+" \("Conv"\): .* come before it, got "nowhere"/,
      ({ graph }) => (graph!.node.find(({ opType }) => opType === "Conv")!.input[0] = "nowhere"),
    ],
    ["nodes in the wrong order", /come before it/, ({ graph }) => graph!.node.reverse()],
    [
      "a name defined twice",
      /result "x": expected a name of its own/,
      ({ graph }) => (graph!.node[0].output[0] = "x"),
    ],
    [
      "an output that nothing computes",
      /output "nothing": /,
      ({ graph }) => (graph!.output[0].name = "nothing"),
    ],
    [
      "an input left out",
      /\("Conv"\): expected an input 1/,
      ({ graph }) => (graph!.node.find(({ opType }) => opType === "Conv")!.input[1] = ""),
    ],
    [
      "names that would break a message",
      /^model\.onnx: output "\\n\\u\{9b\}31m"/u,
      ({ graph }) => (graph!.output[0].name = "\n\u009b31m"),
    ],
  ])("%s", (_name, message, change) => {
    expectRefused(() => readOnnx(changed(change), "model.onnx", { batch: 2 }), message);
  });

  test("bytes that are something else", () => {
    const other = new TextEncoder().encode("<!doctype html>");
    expectRefused(() => decodeOnnx(other, "model.onnx"), /expected an ONNX model/);
    expectRefused(() => decodeOnnx(new Uint8Array(), "model.onnx"), /operator set/);
  });

  test("millions of empty nodes", () => {
    const nodes = new Uint8Array(6 * 2 ** 20);
    for (let i = 0; i < nodes.length; i += 2) nodes[i] = 0x0a;
    const length = [0x80, 0x80, 0x80, 0x03];
    const bytes = Uint8Array.from([0x3a, ...length, ...nodes]);
    expectRefused(() => decodeOnnx(bytes, "model.onnx"), /at most 4194304 bytes besides/);
  });
});

function expectRefused(read: () => unknown, message = /./): void {
  let error: unknown;
  try {
    read();
  } catch (caught) {
    error = caught;
  }
  if (!EspalierError.isInstance(error, "invalid-file")) throw error ?? new Error("was accepted");
  expect(error.message).toMatch(message);
  expect(error.message).toMatch(/^model\.onnx: [^\n\r]+$/);
  expect(error.message.length).toBeLessThan(600);
}

/** Whether the model was read; refusing it is the only other outcome allowed. */
function isRead(bytes: Uint8Array): boolean {
  let read = false;
  try {
    readOnnx(bytes, "model.onnx", { batch: 2 });
    read = true;
  } catch (error) {
    expectRefused(() => {
      throw error;
    });
  }
  return read;
}

test("cut off anywhere, a model is refused", () => {
  const whole = smallModel();
  expect(isRead(whole)).toBe(true);
  const lengths = [...Array(whole.length).keys()].filter((n) => isRead(whole.subarray(0, n)));
  // What comes last are the properties, which a model may do without.
  const withoutMetadata = changed((model) => (model.metadataProps = [])).length;
  expect(lengths).toEqual([withoutMetadata]);
});

test("with bytes changed, a model is read or refused", () => {
  const models = conformanceCases
    .filter(({ name }) => /stride 2, padding 1|padded|attention|concat|batchNorm$/.test(name))
    .map((entry) => encodeOnnx(lowerToOnnx(conformanceProblem(entry).outputs)))
    .concat(smallModel());
  const next = uniform(1);
  const below = (n: number) => Math.floor(next() * n);
  let read = 0;
  for (let run = 0; run < 2000; run++) {
    const bytes = models[below(models.length)].slice();
    for (let change = below(4); change >= 0; change--) {
      bytes[below(bytes.length)] ^= 1 << below(8);
    }
    if (isRead(bytes)) read++;
  }
  expect(read).toBeGreaterThan(100);
});
