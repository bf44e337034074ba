/**
 * @file Where the entries of a zip archive lie. The npm packages do not fit: yauzl lets a range error
 * out of a callback, which ends the process, when a zip64 offset is beyond 2^53; fflate wants the whole
 * file in memory.
 *
 * Nothing is ever inflated or extracted: torch.save stores entries uncompressed, so an entry is a range
 * of the file and no archive can be larger inside than outside. CRC-32 sums are not checked, as PyTorch
 * does not, which can leave them out when it saves.
 */
import { quote } from "@espalier/base";
import { ByteReader } from "./byte-reader.ts";
import type { SourceFile } from "./source-file.ts";

/** A stored entry. The data begins after a local header of variable length; see `entryPosition`. */
export interface ZipEntry {
  readonly name: string;
  /** Offset of the local header. */
  readonly header: number;
  /** Bytes of the data. */
  readonly size: number;
  /** Offset of whatever follows: the next entry or the directory. */
  readonly end: number;
}

// Signatures and sizes: PKWARE APPNOTE 6.3.10, sections 4.3.7 and 4.3.12 to 4.3.16.
const LOCAL_HEADER = 0x04034b50;
const DIRECTORY_ENTRY = 0x02014b50;
const ZIP64_END = 0x06064b50;
const ZIP64_LOCATOR = 0x07064b50;
const END = Buffer.from("PK\x05\x06", "latin1");
const LOCAL_HEADER_BYTES = 30;
const ZIP64_END_BYTES = 56;
const ZIP64_LOCATOR_BYTES = 20;
const END_BYTES = 22;
const LONGEST_COMMENT = 0xffff;
const ZIP64_EXTRA = 0x0001;
const IN_ZIP64 = 0xffffffff;
const ENCRYPTED = 1;

/** The entries by name. @throws EspalierError `invalid-file` */
export async function readZipDirectory(
  file: SourceFile,
  headerBytes: number,
): Promise<Map<string, ZipEntry>> {
  const { fail } = file;
  const { start, size } = await findDirectory(file);
  if (size > headerBytes) {
    throw fail(`expected a zip directory of at most ${headerBytes} bytes, got ${size}`);
  }
  const reader = new ByteReader(await file.read(start, size), fail);
  const entries: Omit<ZipEntry, "end">[] = [];
  while (reader.position < size) entries.push(readEntry(reader, fail));
  entries.sort((a, b) => a.header - b.header);
  const directory = new Map<string, ZipEntry>();
  for (const [index, entry] of entries.entries()) {
    const end = entries[index + 1]?.header ?? start;
    if (directory.has(entry.name)) throw fail(`expected one zip entry ${quote(entry.name)}`);
    directory.set(entry.name, { ...entry, end });
  }
  return directory;
}

/** Offset of an entry's data, all of which lies before whatever follows the entry. */
export async function entryPosition(file: SourceFile, entry: ZipEntry): Promise<number> {
  const failEntry = (message: string) => file.fail(`zip entry ${quote(entry.name)}: ${message}`);
  const reader = new ByteReader(await file.read(entry.header, LOCAL_HEADER_BYTES), file.fail);
  if (reader.uint32() !== LOCAL_HEADER) {
    throw failEntry(`expected its header at byte ${entry.header}`);
  }
  reader.bytes(22);
  const nameAndExtraBytes = reader.uint16() + reader.uint16();
  const position = entry.header + LOCAL_HEADER_BYTES + nameAndExtraBytes;
  if (position + entry.size > entry.end) {
    throw failEntry(
      `expected ${entry.size} bytes at byte ${position}, but byte ${entry.end} begins something else`,
    );
  }
  return position;
}

async function findDirectory(file: SourceFile): Promise<{ start: number; size: number }> {
  const tailBytes = Math.min(file.size, ZIP64_LOCATOR_BYTES + END_BYTES + LONGEST_COMMENT);
  const tailStart = file.size - tailBytes;
  const tail = Buffer.from((await file.read(tailStart, tailBytes)).buffer);
  const found = tail.lastIndexOf(END);
  if (found < 0) {
    throw file.fail("expected a zip archive, got no end of directory: a partial file?");
  }

  const end = new ByteReader(tail.subarray(found), file.fail);
  end.bytes(12);
  const directory = { size: end.uint32(), start: end.uint32() };
  if (end.bytes(end.uint16()).length !== tail.length - found - END_BYTES) {
    throw file.fail("expected the zip archive to end after its directory");
  }

  const locatorStart = found - ZIP64_LOCATOR_BYTES;
  if (locatorStart < 0) return directory;
  const locator = new ByteReader(tail.subarray(locatorStart, found), file.fail);
  if (locator.uint32() !== ZIP64_LOCATOR) return directory;
  locator.bytes(4);
  const zip64 = new ByteReader(await file.read(locator.uint64(), ZIP64_END_BYTES), file.fail);
  if (zip64.uint32() !== ZIP64_END) throw file.fail("expected a zip64 end of directory");
  zip64.bytes(36);
  return { size: zip64.uint64(), start: zip64.uint64() };
}

function readEntry(reader: ByteReader, fail: SourceFile["fail"]): Omit<ZipEntry, "end"> {
  if (reader.uint32() !== DIRECTORY_ENTRY) throw fail("expected a zip directory entry");
  reader.bytes(4);
  const flags = reader.uint16();
  const method = reader.uint16();
  reader.bytes(8);
  let compressed = reader.uint32();
  let size = reader.uint32();
  const [nameBytes, extraBytes, commentBytes] = [reader.uint16(), reader.uint16(), reader.uint16()];
  reader.bytes(8);
  let header = reader.uint32();
  const name = reader.text(nameBytes);
  const extra = new ByteReader(reader.bytes(extraBytes), fail);
  reader.bytes(commentBytes);

  // Sizes that do not fit 32 bits are in an extra field, which has only those, in this order.
  if ([size, compressed, header].includes(IN_ZIP64)) {
    while (extra.uint16() !== ZIP64_EXTRA) extra.bytes(extra.uint16());
    extra.uint16();
    if (size === IN_ZIP64) size = extra.uint64();
    if (compressed === IN_ZIP64) compressed = extra.uint64();
    if (header === IN_ZIP64) header = extra.uint64();
  }

  const failEntry = (message: string) => fail(`zip entry ${quote(name)}: ${message}`);
  if (name.startsWith("/") || /[\\\0]/.test(name) || name.split("/").includes("..")) {
    throw failEntry("expected a relative path without backslashes and ..");
  }
  if (method !== 0 || flags & ENCRYPTED || compressed !== size) {
    throw failEntry(
      "expected it to be stored as torch.save does, neither compressed nor encrypted",
    );
  }
  return { name, header, size };
}
