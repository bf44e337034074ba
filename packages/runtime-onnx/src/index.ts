export {
  createOnnxExecutor,
  type OnnxExecutorOptions,
  onnxDevices,
  onnxProviders,
  onnxVersion,
} from "./executor.ts";
export { type OnnxModel, openOnnxModel } from "./open.ts";
