/** @file Seeded randomness: independent streams, each named by what it is for. */
import { createHash } from "node:crypto";
import { uniformFloat64 } from "pure-rand/distribution/uniformFloat64";
import { uniformInt } from "pure-rand/distribution/uniformInt";
import { xoroshiro128plusFromState } from "pure-rand/generator/xoroshiro128plus";
import type { RandomGenerator } from "pure-rand/types/RandomGenerator";

/**
 * A stream of random numbers. Streams for different purposes are told apart by name, not by the
 * order in which they are used: `random.stream("tune", epoch)` gives the same numbers in a resumed
 * run as in an uninterrupted one.
 */
export class Random {
  readonly #generator: RandomGenerator;
  readonly #name: string;
  #bits = 0;
  #bitCount = 0;

  /** @param seed Any number or string; equal seeds give equal streams. */
  constructor(seed: number | string) {
    this.#name = String(seed);
    const digest = createHash("sha256").update(this.#name).digest();
    const state = [0, 4, 8, 12].map((offset) => digest.readInt32LE(offset));
    this.#generator = xoroshiro128plusFromState(state);
  }

  /** The stream of that name below this one. It does not depend on how far this one was read. */
  stream(...names: readonly (string | number)[]): Random {
    return new Random(JSON.stringify([this.#name, ...names]));
  }

  /** Uniform in [0, 1). */
  uniform(): number {
    return uniformFloat64(this.#generator);
  }

  /** A whole number, uniform in [0, bound). */
  integer(bound: number): number {
    return uniformInt(this.#generator, 0, bound - 1);
  }

  /** Standard normal (Box and Muller 1958). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** -1 or 1 with equal probability. */
  sign(): number {
    if (this.#bitCount === 0) {
      this.#bits = this.#generator.next();
      this.#bitCount = 32;
    }
    const bit = (this.#bits >>> --this.#bitCount) & 1;
    return bit === 0 ? -1 : 1;
  }

  /** The numbers 0 to count - 1 in random order (Fisher and Yates). */
  permutation(count: number): Uint32Array {
    const order = Uint32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}
