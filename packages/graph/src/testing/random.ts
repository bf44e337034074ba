/** @file Numbers for tests: reproducible, without a dependency. */

/** A generator of uniform numbers in [0, 1): the 32-bit mulberry generator. */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `count` float32 numbers, uniform between `low` and `high`. */
export function randomArray(count: number, seed: number, low = -1, high = 1): Float32Array {
  const next = uniform(seed);
  return Float32Array.from({ length: count }, () => low + (high - low) * next());
}
