/** @file ONNX files from anywhere as graphs. Nothing in them is believed before it is checked. */

import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { EspalierError, quote } from "@espalier/base";
import {
  type AttributeProto,
  AttributeProto_AttributeType,
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  type TensorProto,
  TensorProto_DataLocation,
  type ValueInfoProto,
} from "onnx-buf";
import { type DType, sizeOf, type TensorData, tensorArrays } from "../value.ts";
import type { OnnxAttribute, OnnxGraph, OnnxNode, OnnxPort, OnnxTensor } from "./builder.ts";
import { FLOAT_ATTRIBUTES, OPSET, onnxDataTypes } from "./encode.ts";
import { type Fail, failIn } from "./invalid-file.ts";

/** The content of an ONNX file. */
export interface OnnxFile {
  readonly graph: OnnxGraph;
  /** The model's properties. */
  readonly metadata: Readonly<Record<string, string>>;
}

// The longest message that protobuf allows.
const LARGEST_FILE = 2 ** 31 - 1;

// Bytes of everything but raw tensor data. As objects they can take 250 times as many (measured on
// a graph of empty nodes); a network of 500 layers has 100 kB of them.
const LARGEST_STRUCTURE = 4 * 2 ** 20;

/** Axes that a tensor may have; NumPy's limit too. */
export const LARGEST_RANK = 64;

/** More elements than any executor holds in one tensor. */
export const LARGEST_TENSOR = 2 ** 40;

// Softmax and the reductions have meant the same since operator set 13.
const OLDEST_OPSET = 13;

// The bytes of tensors: field 7 of a model is the graph, its field 5 are initializers, and field 9 of
// these is raw data (onnx.proto3).
const RAW_DATA_PATH = [7, 5, 9];

/**
 * @param origin What to call the file in messages.
 * @throws EspalierError `invalid-file` naming the file and the tensor or node that is at fault.
 */
export function decodeOnnx(bytes: Uint8Array, origin: string): OnnxFile {
  const fail = failIn(origin);
  const model = parse(bytes, fail);
  const opset = model.opsetImport.find(({ domain }) => isOwnDomain(domain))?.version;
  if (opset === undefined || opset < OLDEST_OPSET || opset > OPSET) {
    throw fail(
      `expected ONNX operator set ${OLDEST_OPSET} to ${OPSET}, got ${opset ?? "none"}: not an ONNX model, or one of another version`,
    );
  }
  if (model.graph === undefined) throw fail("expected a graph, got a model without one");
  return {
    graph: decodeGraph(model.graph, fail),
    metadata: Object.fromEntries(model.metadataProps.map(({ key, value }) => [key, value])),
  };
}

function parse(bytes: Uint8Array, fail: Fail): ModelProto {
  if (bytes.length > LARGEST_FILE) {
    throw fail(`expected at most ${LARGEST_FILE} bytes, got ${bytes.length}`);
  }
  try {
    const raw = countBytes(new BinaryReader(bytes), bytes.length, RAW_DATA_PATH);
    if (bytes.length - raw > LARGEST_STRUCTURE) {
      throw fail(
        `expected at most ${LARGEST_STRUCTURE} bytes besides raw tensor data, got ${bytes.length - raw}`,
      );
    }
    return fromBinary(ModelProtoSchema, bytes, { readUnknownFields: false });
  } catch (error) {
    if (EspalierError.isInstance(error)) throw error;
    const message = quote(error instanceof Error ? error.message : String(error));
    throw fail(`expected an ONNX model, got bytes that do not parse: ${message}`, {}, error);
  }
}

/** Sum of the lengths of all fields at `path` in the message that `reader` is at. */
function countBytes(
  reader: BinaryReader,
  end: number,
  [first, ...rest]: readonly number[],
): number {
  let total = 0;
  while (reader.pos < end) {
    const [field, wireType] = reader.tag();
    if (field !== first || wireType !== WireType.LengthDelimited) reader.skip(wireType, field);
    else if (rest.length === 0) total += reader.bytes().length;
    else total += countBytes(reader, reader.uint32() + reader.pos, rest);
  }
  return total;
}

function isOwnDomain(domain: string): boolean {
  return domain === "" || domain === "ai.onnx";
}

function decodeGraph(graph: GraphProto, fail: Fail): OnnxGraph {
  if (graph.sparseInitializer.length > 0) {
    throw fail("expected dense initializers, got sparse ones");
  }
  const known = new Set<string>();
  const define = (name: string, what: string) => {
    if (known.has(name)) throw fail(`${what} ${quote(name)}: expected a name of its own`);
    known.add(name);
  };
  const tensors = new Map<string, OnnxTensor>();
  for (const tensor of graph.initializer) {
    define(tensor.name, "initializer");
    tensors.set(tensor.name, decodeTensor(tensor, fail));
  }
  // Old files list initializers among the inputs as well.
  const inputs = graph.input.filter(({ name }) => !tensors.has(name));
  for (const { name } of inputs) define(name, "input");
  const nodes = graph.node.map((proto) => {
    const node = decodeNode(proto, fail);
    for (const name of node.inputs) {
      if (name !== "" && !known.has(name)) {
        throw fail(
          `node ${describe(proto)}: expected inputs that come before it, got ${quote(name)}`,
        );
      }
    }
    for (const name of node.outputs) if (name !== "") define(name, "result");
    return node;
  });
  for (const { name } of graph.output) {
    if (!known.has(name)) throw fail(`output ${quote(name)}: expected a node that computes it`);
  }
  return {
    inputs: inputs.map((port) => decodePort(port, "input", fail)),
    outputs: graph.output.map((port) => decodePort(port, "output", fail)),
    nodes,
    tensors,
  };
}

function decodeType(dataType: number, what: string, fail: Fail): DType {
  const found = Object.entries(onnxDataTypes).find(([, number]) => number === dataType);
  if (found === undefined) {
    const expected = Object.entries(onnxDataTypes).map(([name, number]) => `${number} (${name})`);
    throw fail(`${what}: expected data type ${expected.join(", ")}, got ${dataType}`);
  }
  return found[0] as DType;
}

function decodeSize(size: bigint, what: string, fail: Fail): number {
  if (size < 0n || size > 2n ** 31n) {
    throw fail(`${what}: expected dimensions from 0 to 2^31, got ${size}`);
  }
  return Number(size);
}

function checkRank(rank: number, what: string, fail: Fail): void {
  if (rank > LARGEST_RANK) {
    throw fail(`${what}: expected at most ${LARGEST_RANK} dimensions, got ${rank}`);
  }
}

function decodePort({ name, type }: ValueInfoProto, kind: string, fail: Fail): OnnxPort {
  const what = `${kind} ${quote(name)}`;
  if (type?.value.case !== "tensorType" || type.value.value.shape === undefined) {
    throw fail(`${what}: expected a tensor of known shape`);
  }
  const { elemType, shape } = type.value.value;
  checkRank(shape.dim.length, what, fail);
  return {
    name,
    dtype: decodeType(elemType, what, fail),
    shape: shape.dim.map(({ value }) =>
      value.case === "dimValue" ? decodeSize(value.value, what, fail) : (value.value ?? ""),
    ),
  };
}

function decodeTensor(tensor: TensorProto, fail: Fail): OnnxTensor {
  const what = `initializer ${quote(tensor.name)}`;
  const dtype = decodeType(tensor.dataType, what, fail);
  if (tensor.dataLocation === TensorProto_DataLocation.EXTERNAL) {
    throw fail(`${what}: expected data within the file, got external data`);
  }
  checkRank(tensor.dims.length, what, fail);
  const shape = tensor.dims.map((size) => decodeSize(size, what, fail));
  const data = decodeData(tensor, dtype);
  // Bytes that are not whole elements have no data.
  if (data?.length !== sizeOf(shape)) {
    const bytes = tensor.rawData.length;
    const got = bytes > 0 ? `${bytes} bytes` : `${data?.length} elements`;
    throw fail(`${what}: expected ${sizeOf(shape)} elements for ${dtype}[${shape}], got ${got}`);
  }
  return { dtype, shape, data };
}

function decodeData(tensor: TensorProto, dtype: DType): TensorData | undefined {
  const { rawData, floatData, int64Data, int32Data } = tensor;
  if (rawData.length === 0) {
    if (dtype === "float32") return Float32Array.from(floatData);
    return dtype === "int64" ? BigInt64Array.from(int64Data) : Uint8Array.from(int32Data);
  }
  const type = tensorArrays[dtype];
  // Copied, since elements must lie at multiples of their size.
  return rawData.length % type.BYTES_PER_ELEMENT === 0
    ? new type(Uint8Array.from(rawData).buffer)
    : undefined;
}

/** A node as messages call it. */
function describe({ name, opType, output }: NodeProto): string {
  return `${quote(name || (output[0] ?? ""))} (${quote(opType)})`;
}

function decodeNode(node: NodeProto, fail: Fail): OnnxNode {
  const what = `node ${describe(node)}`;
  if (!isOwnDomain(node.domain)) {
    throw fail(`${what}: expected an operator of ONNX itself, got one of ${quote(node.domain)}`);
  }
  const attributes = new Map<string, OnnxAttribute>();
  for (const attribute of node.attribute) {
    if (attributes.has(attribute.name)) {
      throw fail(`${what}: expected attribute ${quote(attribute.name)} once`);
    }
    attributes.set(attribute.name, decodeAttribute(attribute, what, fail));
  }
  return {
    type: node.opType,
    domain: "",
    inputs: node.input,
    outputs: node.output,
    attributes: Object.fromEntries(attributes),
  };
}

function decodeAttribute(attribute: AttributeProto, what: string, fail: Fail): OnnxAttribute {
  const { name, type } = attribute;
  const { FLOAT, INT, INTS, STRING } = AttributeProto_AttributeType;
  const integer = (value: bigint) => {
    if (!Number.isSafeInteger(Number(value))) {
      throw fail(`${what}: attribute ${quote(name)}: expected integers below 2^53, got ${value}`);
    }
    return Number(value);
  };
  if (type === FLOAT && FLOAT_ATTRIBUTES.has(name)) return attribute.f;
  if (type === INT && !FLOAT_ATTRIBUTES.has(name)) return integer(attribute.i);
  if (type === INTS) return attribute.ints.map(integer);
  if (type === STRING) return new TextDecoder().decode(attribute.s);
  const got = AttributeProto_AttributeType[type] ?? type;
  throw fail(`${what}: attribute ${quote(name)} of type ${got} is not supported`);
}
