/** @file The two containers of torch.save: where they keep the pickle and the storages. */
import { quote } from "@espalier/base";
import { ByteReader } from "./byte-reader.ts";
import { readPickle } from "./pickle.ts";
import { type PickledStorage, torchRules } from "./pickled-tensor.ts";
import type { SourceFile } from "./source-file.ts";
import { DTYPES } from "./tensor.ts";
import { entryPosition, readZipDirectory, type ZipEntry } from "./zip-directory.ts";

export interface PytorchArchive {
  readonly format: "pytorch-zip" | "pytorch-legacy";
  /** The object that was saved: arrays, Maps, PickledTensors and scalars. */
  readonly root: unknown;
  /** Offset in the file of a storage's bytes, all of which are there. */
  readonly locate: (storage: PickledStorage) => Promise<number>;
}

/** The first bytes of a zip archive. */
const ZIP_MAGIC = "PK\x03\x04";

/** The opcode with which every pickle of protocol 2 and above begins. */
const PICKLE_START = "\x80";

/** @throws EspalierError `invalid-file` */
export async function openPytorch(file: SourceFile, headerBytes: number): Promise<PytorchArchive> {
  const start = await file.read(0, Math.min(16, file.size));
  const text = Buffer.from(start).toString("latin1");
  if (text.startsWith(ZIP_MAGIC)) return await openZip(file, headerBytes);
  if (text.startsWith(PICKLE_START)) return await openLegacy(file, headerBytes);
  throw file.fail(
    `expected a checkpoint, safetensors or of torch.save, got a file that begins with ${quote(text)}`,
  );
}

/** Since PyTorch 1.6: a zip archive with `<name>/data.pkl` and one entry for each storage. */
async function openZip(file: SourceFile, headerBytes: number): Promise<PytorchArchive> {
  const { fail } = file;
  const directory = await readZipDirectory(file, headerBytes);
  const pickles = [...directory.values()].filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  const [pickle] = pickles;
  if (pickle === undefined || pickles.length > 1) {
    throw fail(`expected one entry <name>/data.pkl in the zip archive, got ${pickles.length}`);
  }
  const folder = pickle.name.slice(0, -"data.pkl".length);

  const readEntry = async (entry: ZipEntry) => {
    if (entry.size > headerBytes) {
      throw fail(`expected zip entry ${quote(entry.name)} to have at most ${headerBytes} bytes`);
    }
    return await file.read(await entryPosition(file, entry), entry.size);
  };

  const byteOrderEntry = directory.get(`${folder}byteorder`);
  if (byteOrderEntry !== undefined) {
    const byteOrder = Buffer.from(await readEntry(byteOrderEntry)).toString("latin1");
    if (byteOrder !== "little") {
      throw fail(`expected little-endian numbers, got byte order ${quote(byteOrder)}`);
    }
  }
  const root = readPickle(new ByteReader(await readEntry(pickle), fail), torchRules().rules, fail);

  const locate = async (storage: PickledStorage) => {
    const name = `${folder}data/${storage.key}`;
    const entry = directory.get(name);
    if (entry === undefined) throw fail(`expected a zip entry ${quote(name)}`);
    if (entry.size !== storage.bytes) {
      throw fail(
        `zip entry ${quote(name)}: expected ${storage.bytes} bytes, which its tensors claim, got ${entry.size}`,
      );
    }
    return await entryPosition(file, entry);
  };
  return { format: "pytorch-zip", root, locate };
}

/** The number with which torch.save began its files before it wrote zip archives. */
const MAGIC_NUMBER = 0x1950a86a20f9469cfc6cn;
const PROTOCOL_VERSION = 1001;

// The pickles end somewhere; the first window holds those of most models.
const FIRST_WINDOW = 2 ** 20;

/**
 * Before PyTorch 1.6: five pickles (magic number, version, facts on the machine, the object, the keys
 * of the storages) and then, for each key, the number of elements and the elements.
 */
async function openLegacy(file: SourceFile, headerBytes: number): Promise<PytorchArchive> {
  const { fail } = file;
  const { root, keys, storages, end } = await readLegacyPickles(file, headerBytes);
  const positions = new Map<string, number>();
  let position = end;
  for (const key of keys) {
    if (typeof key !== "string") throw fail("expected the keys of the storages to be strings");
    const storage = storages.get(key);
    const expected = storage === undefined ? 0 : storage.bytes / DTYPES[storage.dtype].bytes;
    const count = new ByteReader(await file.read(position, 8), fail).uint64();
    if (count !== expected) {
      throw fail(
        `storage ${quote(key)} at byte ${position}: expected ${expected} elements, which its tensors claim, got ${count}`,
      );
    }
    positions.set(key, position + 8);
    position += 8 + (storage?.bytes ?? 0);
  }
  const locate = async ({ key }: PickledStorage) => {
    const position = positions.get(key);
    if (position === undefined) throw fail(`expected a storage ${quote(key)} after the pickles`);
    return position;
  };
  return { format: "pytorch-legacy", root, locate };
}

async function readLegacyPickles(file: SourceFile, headerBytes: number) {
  const longest = Math.min(file.size, headerBytes);
  for (let length = Math.min(longest, FIRST_WINDOW); ; length = Math.min(longest, length * 4)) {
    const reader = new ByteReader(await file.read(0, length), file.fail);
    try {
      return parseLegacyPickles(reader, file.fail);
    } catch (error) {
      if (!reader.exhausted || length === longest) throw error;
    }
  }
}

function parseLegacyPickles(reader: ByteReader, fail: SourceFile["fail"]) {
  const { rules, storages } = torchRules();
  if (readPickle(reader, rules, fail) !== MAGIC_NUMBER) {
    throw fail("expected a file of torch.save, got another pickle");
  }
  const version = readPickle(reader, rules, fail);
  if (version !== PROTOCOL_VERSION) {
    throw fail(`expected version ${PROTOCOL_VERSION} of the format of torch.save`);
  }
  const machine = readPickle(reader, rules, fail);
  if (!(machine instanceof Map) || machine.get("little_endian") !== true) {
    throw fail("expected little-endian numbers");
  }
  const root = readPickle(reader, rules, fail);
  const keys = readPickle(reader, rules, fail);
  if (!Array.isArray(keys)) throw fail("expected a list of the keys of the storages");
  return { root, keys: keys as unknown[], storages, end: reader.position };
}
