/** @file A file from outside, read by ranges that are checked against its size. */
import type { FileHandle } from "node:fs/promises";
import { describeFileError, type ErrorData, EspalierError, openFile } from "@espalier/base";

/** Makes an error that names the file; the caller throws it. */
export type Fail = (message: string, data?: ErrorData) => EspalierError;

// One read of Node takes at most 2^31 - 1 bytes.
const LARGEST_READ = 2 ** 30;

export class SourceFile {
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  readonly #handle: FileHandle;

  private constructor(path: string, size: number, handle: FileHandle) {
    this.path = path;
    this.size = size;
    this.#handle = handle;
  }

  /**
   * Opens `path`, hands it to `use` and closes it.
   *
   * @throws EspalierError `missing-file`, `invalid-file` for what is not a regular file, what `use` throws.
   */
  static async use<T>(path: string, use: (file: SourceFile) => Promise<T>): Promise<T> {
    const handle = await openFile(path);
    try {
      const stats = await attempt(path, () => handle.stat());
      return await use(new SourceFile(path, stats.size, handle));
    } finally {
      await handle.close();
    }
  }

  readonly fail: Fail = (message, data) =>
    new EspalierError("invalid-file", `${this.path}: ${message}`, { path: this.path, ...data });

  /** Memory for something of the file. @throws EspalierError `invalid-file` where there is none. */
  allocate(length: number): Uint8Array<ArrayBuffer> {
    try {
      return new Uint8Array(length);
    } catch (error) {
      throw this.fail(`expected memory for ${length} bytes: ${(error as Error).message}`);
    }
  }

  /** @throws EspalierError `invalid-file` where the file does not have these bytes. */
  async read(position: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!(position >= 0 && length >= 0 && position + length <= this.size)) {
      throw this.fail(
        `expected ${length} bytes at byte ${position}, but the file ends at byte ${this.size}`,
      );
    }
    return await attempt(this.path, async () => {
      const bytes = this.allocate(length);
      for (let done = 0; done < length; ) {
        const wanted = Math.min(length - done, LARGEST_READ);
        const { bytesRead } = await this.#handle.read(bytes, done, wanted, position + done);
        if (bytesRead === 0) throw this.fail("the file became shorter while it was read");
        done += bytesRead;
      }
      return bytes;
    });
  }
}

async function attempt<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw describeFileError(error, path, "read");
  }
}
