/** @file An executor that interprets in float64: slow, exact, without any runtime. */
import {
  type Executor,
  expectFeed,
  type Feed,
  isDeviceTensor,
  memoryTensor,
  type ProgramSource,
} from "../executor.ts";
import { interpret } from "../interpret.ts";
import { isInput } from "../ops/leaf.ts";
import { type TensorData, topologicalOrder, type Value } from "../value.ts";

/** Results are rounded to float32 at the end alone. */
export function createReferenceExecutor(): Executor {
  return {
    name: "reference",
    compile: async <Output extends string, Kept extends string>({
      outputs,
      kept,
      constants = new Map<Value, TensorData>(),
    }: ProgramSource<Output, Kept>) => {
      const results = Object.entries<Value>({ ...outputs, ...kept });
      const values = results.map(([, value]) => value);
      const bound = [...constants].map(
        ([value, data]) => [value, Array.from(data, Number)] as const,
      );
      const inputs = topologicalOrder(values)
        .filter(isInput)
        .filter((value) => !constants.has(value));
      return {
        inputs: inputs.map(({ attributes }) => attributes),
        run: async (feeds: Readonly<Record<string, Feed>>) => {
          const read = inputs.map(async (value) => {
            const feed = expectFeed(value.attributes, feeds[value.attributes.name]);
            const data = isDeviceTensor(feed) ? await feed.read() : feed;
            return [value, Array.from(data, Number)] as const;
          });
          const given = await Promise.all(read);
          const computed = interpret(values, new Map([...bound, ...given]));
          return Object.fromEntries(
            results.map(([name, { dtype }], i) => {
              const { shape, data } = computed[i];
              const tensor = { dtype, shape, data: Float32Array.from(data) };
              return [name, kept !== undefined && name in kept ? memoryTensor(tensor) : tensor];
            }),
          ) as never;
        },
        dispose: async () => {},
      };
    },
  };
}
