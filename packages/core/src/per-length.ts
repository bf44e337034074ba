/** @file Programs for batches of several lengths. */
import type { Batch } from "./samples.ts";

/** Makes something for each length of batches when the first such batch comes, and keeps it. */
export class PerLength<T extends { dispose(): Promise<void> }> {
  readonly #make: (length: number | undefined) => Promise<T>;
  readonly #made = new Map<number | undefined, T>();

  constructor(make: (length: number | undefined) => Promise<T>) {
    this.#make = make;
  }

  /** What was made for batches as long as this one. */
  async for({ length }: Pick<Batch, "length">): Promise<T> {
    const made = this.#made.get(length) ?? (await this.#make(length));
    this.#made.set(length, made);
    return made;
  }

  async dispose(): Promise<void> {
    for (const made of this.#made.values()) await made.dispose();
    this.#made.clear();
  }
}
