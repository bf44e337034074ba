import fc from "fast-check";
import { expect, test } from "vitest";
import { gather, isContiguous, windowEnd } from "./gather.ts";

const windows = fc
  .array(fc.record({ size: fc.nat({ max: 4 }), stride: fc.nat({ max: 6 }) }), { maxLength: 4 })
  .chain((axes) =>
    fc.record({
      offset: fc.nat({ max: 5 }),
      shape: fc.constant(axes.map(({ size }) => size)),
      strides: fc.constant(axes.map(({ stride }) => stride)),
    }),
  );

/** Indices of a window in C order, by definition. */
function indices(offset: number, shape: readonly number[], strides: readonly number[]): number[] {
  if (shape.length === 0) return [offset];
  return Array.from({ length: shape[0]! }, (_, i) =>
    indices(offset + i * strides[0]!, shape.slice(1), strides.slice(1)),
  ).flat();
}

test.each([1, 2, 4, 8] as const)(
  "gather copies the elements of a window, %d bytes each",
  (size) => {
    fc.assert(
      fc.property(windows, (window) => {
        const expected = indices(window.offset, window.shape, window.strides);
        const count = windowEnd(window);
        if (expected.length > 0) expect(count).toBe(Math.max(...expected) + 1);
        const source = Uint8Array.from({ length: count * size }, (_, i) => (i * 37) % 251);
        const element = (index: number) => [...source.subarray(index * size, (index + 1) * size)];
        const target = new Uint8Array(expected.length * size);
        gather(source, target, size, window);
        expect([...target]).toEqual(expected.flatMap(element));
      }),
    );
  },
);

test("isContiguous tells whether the elements follow one another", () => {
  fc.assert(
    fc.property(windows, (window) => {
      const found = indices(window.offset, window.shape, window.strides);
      const inOrder = found.every((index, i) => index === window.offset + i);
      if (isContiguous(window)) expect(inOrder).toBe(true);
      else if (found.length > 0 && !window.shape.includes(0)) expect(inOrder).toBe(false);
    }),
  );
});
