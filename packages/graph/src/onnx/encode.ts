/** @file ONNX graphs as bytes. */
import { create, toBinary } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  TensorProto_DataType,
  TensorProtoSchema,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "onnx-buf";
import type { DType } from "../value.ts";
import type { OnnxAttribute, OnnxGraph, OnnxPort, StoredType } from "./builder.ts";

/** Operator set 20 is the first with Gelu; ONNX Runtime reads it from 1.17 on. */
export const OPSET = 20;
const IR_VERSION = 9n;

/** Types as numbers, for files and the attribute `to` of Cast. */
export const storedDataTypes: Readonly<Record<StoredType, TensorProto_DataType>> = {
  float32: TensorProto_DataType.FLOAT,
  int64: TensorProto_DataType.INT64,
  bool: TensorProto_DataType.BOOL,
  float16: TensorProto_DataType.FLOAT16,
  int8: TensorProto_DataType.INT8,
  int32: TensorProto_DataType.INT32,
  uint8: TensorProto_DataType.UINT8,
};

export const onnxDataTypes: Readonly<Record<DType, TensorProto_DataType>> = {
  float32: TensorProto_DataType.FLOAT,
  int64: TensorProto_DataType.INT64,
  bool: TensorProto_DataType.BOOL,
};

// ONNX types attributes by operator; these are the ones of type float among those we emit.
export const FLOAT_ATTRIBUTES = new Set(["alpha", "beta", "epsilon"]);

function encodeAttribute(name: string, value: OnnxAttribute): AttributeProto {
  const encoder = new TextEncoder();
  if (typeof value === "string") {
    const type = AttributeProto_AttributeType.STRING;
    return create(AttributeProtoSchema, { name, type, s: encoder.encode(value) });
  }
  if (typeof value !== "number") {
    const type = AttributeProto_AttributeType.INTS;
    return create(AttributeProtoSchema, { name, type, ints: value.map(BigInt) });
  }
  return FLOAT_ATTRIBUTES.has(name)
    ? create(AttributeProtoSchema, { name, type: AttributeProto_AttributeType.FLOAT, f: value })
    : create(AttributeProtoSchema, {
        name,
        type: AttributeProto_AttributeType.INT,
        i: BigInt(value),
      });
}

function encodePort({ name, dtype, shape }: OnnxPort): ValueInfoProto {
  const dim = shape.map((size) =>
    create(TensorShapeProto_DimensionSchema, {
      value:
        typeof size === "number"
          ? { case: "dimValue", value: BigInt(size) }
          : { case: "dimParam", value: size },
    }),
  );
  const tensorType = create(TypeProto_TensorSchema, {
    elemType: onnxDataTypes[dtype],
    shape: create(TensorShapeProtoSchema, { dim }),
  });
  const type = create(TypeProtoSchema, { value: { case: "tensorType", value: tensorType } });
  return create(ValueInfoProtoSchema, { name, type });
}

/** An ONNX model file. `metadata` is stored as the model's properties. */
export function encodeOnnx(
  graph: OnnxGraph<StoredType>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const domains = new Set(["", ...graph.nodes.map(({ domain }) => domain)]);
  const model = create(ModelProtoSchema, {
    irVersion: IR_VERSION,
    producerName: "espalier",
    opsetImport: [...domains].map((domain) =>
      create(OperatorSetIdProtoSchema, { domain, version: domain === "" ? BigInt(OPSET) : 1n }),
    ),
    metadataProps: Object.entries(metadata).map(([key, value]) =>
      create(StringStringEntryProtoSchema, { key, value }),
    ),
    graph: create(GraphProtoSchema, {
      name: "espalier",
      input: graph.inputs.map(encodePort),
      output: graph.outputs.map(encodePort),
      node: graph.nodes.map(({ type, domain, inputs, outputs, attributes }) =>
        create(NodeProtoSchema, {
          opType: type,
          domain,
          name: outputs[0],
          input: [...inputs],
          output: [...outputs],
          attribute: Object.entries(attributes).map(([name, value]) =>
            encodeAttribute(name, value),
          ),
        }),
      ),
      initializer: [...graph.tensors].map(([name, { dtype, shape, data }]) =>
        create(TensorProtoSchema, {
          name,
          dataType: storedDataTypes[dtype],
          dims: shape.map(BigInt),
          rawData: new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength),
        }),
      ),
    }),
  });
  return toBinary(ModelProtoSchema, model);
}
