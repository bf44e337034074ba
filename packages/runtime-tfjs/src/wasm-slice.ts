/**
 * @file Slices on the WebAssembly backend.
 *
 * TensorFlow.js's own kernel first copies the whole tensor out of the backend's memory, so that
 * taking a tensor apart sample by sample takes quadratic time. This one copies what is asked for.
 */
import {
  type DataId,
  getKernel,
  registerKernel,
  slice_util,
  type TensorInfo,
  unregisterKernel,
} from "@tensorflow/tfjs-core";

interface WasmBackend {
  makeOutput(shape: readonly number[], dtype: string): TensorInfo;
  typedArrayFromHeap(tensor: TensorInfo): Float32Array | Int32Array | Uint8Array;
  incRef(id: DataId): void;
}

// Shorter runs are copied element by element; a view costs as much as so many.
const VIEWED = 32;

function sliceTensor(x: TensorInfo, begin: number[], size: number[], backend: WasmBackend) {
  if (size.every((n, axis) => n === x.shape[axis])) {
    backend.incRef(x.dataId);
    return { dataId: x.dataId, shape: size, dtype: x.dtype };
  }
  const result = backend.makeOutput(size, x.dtype);
  // Memory may have moved when the result was made.
  const [from, to] = [backend.typedArrayFromHeap(x), backend.typedArrayFromHeap(result)];
  // What is whole at the end goes with the last axis that is cut.
  let last = x.shape.length - 1;
  let stride = 1;
  for (; last > 0 && size[last] === x.shape[last]; last--) stride *= x.shape[last];
  const run = stride * size[last];
  const strides = new Array<number>(last + 1);
  for (let axis = last; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= x.shape[axis];
  }
  const index = new Array<number>(last).fill(0);
  let position = strides.reduce((total, n, axis) => total + n * begin[axis], 0);
  for (let target = 0; target < to.length; target += run) {
    if (run >= VIEWED) to.set(from.subarray(position, position + run), target);
    else for (let i = 0; i < run; i++) to[target + i] = from[position + i];
    for (let axis = last - 1; axis >= 0; axis--) {
      position += strides[axis];
      if (++index[axis] < size[axis]) break;
      position -= strides[axis] * size[axis];
      index[axis] = 0;
    }
  }
  return result;
}

/** Puts this kernel in the place of the backend's own, which is left the tensors of strings. */
export function replaceWasmSlice(): void {
  const name = { kernelName: "Slice", backendName: "wasm" };
  const original = getKernel(name.kernelName, name.backendName);
  unregisterKernel(name.kernelName, name.backendName);
  registerKernel({
    ...name,
    kernelFunc: (call) => {
      const x = call.inputs.x as TensorInfo;
      if (x.dtype === "string") return original.kernelFunc(call);
      const { begin, size } = call.attrs as unknown as { begin: number[]; size: number[] };
      const [from, wanted] = slice_util.parseSliceParams(x as never, begin, size);
      return sliceTensor(x, from, wanted, call.backend as WasmBackend);
    },
  });
}
