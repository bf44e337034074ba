/** @file A cursor over bytes from outside: never past the end, no number without its last digit. */
import type { Fail } from "./source-file.ts";

// A byte order mark is kept: it is part of the name.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Little endian, except where said otherwise. */
export class ByteReader {
  position = 0;
  /** Whether more bytes were asked for than there are. */
  exhausted = false;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #fail: Fail;

  constructor(bytes: Uint8Array, fail: Fail) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#fail = fail;
  }

  uint8(): number {
    return this.#view.getUint8(this.#advance(1));
  }

  uint16(): number {
    return this.#view.getUint16(this.#advance(2), true);
  }

  int32(): number {
    return this.#view.getInt32(this.#advance(4), true);
  }

  uint32(): number {
    return this.#view.getUint32(this.#advance(4), true);
  }

  uint64(): number {
    const start = this.#advance(8);
    const value = Number(this.#view.getBigUint64(start, true));
    if (!Number.isSafeInteger(value)) {
      throw this.#fail(`expected a size below 2^53 at byte ${start}, got ${value}`);
    }
    return value;
  }

  float64BigEndian(): number {
    return this.#view.getFloat64(this.#advance(8));
  }

  bytes(length: number): Uint8Array {
    const start = this.#advance(length);
    return this.#bytes.subarray(start, start + length);
  }

  text(length: number): string {
    const start = this.position;
    const bytes = this.bytes(length);
    try {
      return utf8.decode(bytes);
    } catch {
      throw this.#fail(`expected UTF-8 text at byte ${start}`);
    }
  }

  /** Text up to a line feed, which is skipped. */
  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.position);
    if (end < 0) {
      this.exhausted = true;
      throw this.#fail(`expected a line feed after byte ${this.position}`);
    }
    const text = this.text(end - this.position);
    this.position = end + 1;
    return text;
  }

  #advance(length: number): number {
    const start = this.position;
    if (start + length > this.#bytes.length) {
      this.exhausted = true;
      throw this.#fail(
        `expected ${length} bytes at byte ${start}, but the data ends at byte ${this.#bytes.length}`,
      );
    }
    this.position += length;
    return start;
  }
}
