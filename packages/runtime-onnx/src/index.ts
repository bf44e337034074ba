export {
  createOnnxExecutor,
  type OnnxExecutorOptions,
  onnxDevices,
  onnxVersion,
} from "./executor.ts";
export { type OnnxModel, openOnnxModel } from "./open.ts";
