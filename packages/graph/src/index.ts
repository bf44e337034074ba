export {
  findUses,
  gradient,
  hessianQuadraticForms,
  jvp,
  type ParameterUse,
  sampleGradientNorms,
  sampleQuadraticForms,
  vjp,
} from "./autodiff.ts";
export { bytesOf, type Cost, cost } from "./cost.ts";
export {
  type AdditionPolicy,
  type CoupledParameter,
  type CoupledSlices,
  coupleSlices,
  type Slice,
} from "./coupling.ts";
export {
  type DeviceTensor,
  type Executor,
  expectFeed,
  expectMemory,
  expectMemoryLimit,
  type Feed,
  float32Data,
  isDeviceTensor,
  memoryTensor,
  type Program,
  type ProgramSource,
  type Tensor,
} from "./executor.ts";
export {
  type ConvAttributes,
  type ConvEmitter,
  type MatmulEmitter,
  OnnxBuilder,
  type OnnxGraph,
  type OnnxNode,
  type OnnxPort,
  type OnnxTensor,
  type StoredType,
} from "./onnx/builder.ts";
export { decodeOnnx, type OnnxFile } from "./onnx/decode.ts";
export { encodeOnnx } from "./onnx/encode.ts";
export {
  type ExportOptions,
  exportOnnx,
  type InferenceGraph,
  inferenceOnnx,
} from "./onnx/export.ts";
export { toFloat16 } from "./onnx/float16.ts";
export { type LowerOptions, lowerToOnnx } from "./onnx/lower.ts";
export { quantize, type Range, tensorsToCalibrate } from "./onnx/quantize.ts";
export { graphValues, type OnnxValues, type ReadOnnxOptions, readOnnx } from "./onnx/read.ts";
export { tidyForInference } from "./onnx/tidy.ts";
export { linear, matmul } from "./ops/contract.ts";
export {
  type ConvolutionAttributes,
  conv,
  convInputGradient,
  convWeightGradient,
} from "./ops/convolution.ts";
export {
  abs,
  add,
  cast,
  clip,
  divide,
  equal,
  erf,
  exp,
  gelu,
  greater,
  log,
  maximum,
  minimum,
  multiply,
  negate,
  reciprocal,
  relu,
  reluGradient,
  sigmoid,
  sign,
  sqrt,
  square,
  subtract,
  tanh,
  where,
} from "./ops/elementwise.ts";
export { operations } from "./ops/index.ts";
export { constant, input, integers, isConstant, isInput, scalar } from "./ops/leaf.ts";
export {
  addChannels,
  batchNorm,
  batchNormTraining,
  crossEntropy,
  layerNorm,
  logSoftmax,
  mean,
  oneHot,
  perChannel,
  softmax,
} from "./ops/normalize.ts";
export { averagePool, maxPool, type PoolAttributes } from "./ops/pool.ts";
export {
  broadcastTo,
  concat,
  exchangesLast,
  full,
  gather,
  pad,
  place,
  positions,
  reshape,
  slice,
  sum,
  sumTo,
  transpose,
} from "./ops/shape.ts";
export {
  findCommon,
  makePortable,
  type Part,
  type Stages,
  simplify,
  splitSequence,
  splitStages,
  substitute,
  verify,
} from "./passes.ts";
export { type PyTorchGraph, pytorchModule } from "./pytorch/module.ts";
export {
  type DType,
  type Layer,
  type NdArray,
  type Operation,
  type Shape,
  sameShape,
  sizeOf,
  type TensorData,
  topologicalOrder,
  type Value,
} from "./value.ts";
