/** @file An executor that interprets in float64: slow, exact, without any runtime. */
import { EspalierError } from "@espalier/base";
import type { Executor } from "../executor.ts";
import { interpret } from "../interpret.ts";
import { isInput } from "../ops/leaf.ts";
import { sizeOf, type TensorData, topologicalOrder, type Value } from "../value.ts";

/** Results are rounded to float32 at the end alone. */
export function createReferenceExecutor(): Executor {
  return {
    name: "reference",
    compile: async <Output extends string>({
      outputs,
      constants = new Map<Value, TensorData>(),
    }: Parameters<Executor["compile"]>[0]) => {
      const names = Object.keys(outputs) as Output[];
      const values = Object.values(outputs);
      const bound = [...constants].map(
        ([value, data]) => [value, Array.from(data, Number)] as const,
      );
      const inputs = topologicalOrder(values)
        .filter(isInput)
        .filter((value) => !constants.has(value));
      return {
        inputs: inputs.map(({ attributes }) => attributes),
        run: async (feeds: Readonly<Record<string, TensorData>>) => {
          const given = inputs.map((value) => {
            const data = feeds[value.attributes.name];
            if (data?.length !== sizeOf(value.shape)) {
              throw new EspalierError(
                "invalid-argument",
                `input ${value.attributes.name}: wrong length`,
              );
            }
            return [value, Array.from(data, Number)] as const;
          });
          const results = interpret(values, new Map([...bound, ...given]));
          return Object.fromEntries(
            names.map((name, i) => [
              name,
              {
                dtype: values[i].dtype,
                shape: results[i].shape,
                data: Float32Array.from(results[i].data),
              },
            ]),
          ) as never;
        },
        dispose: async () => {},
      };
    },
  };
}
