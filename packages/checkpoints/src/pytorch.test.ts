import { writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import {
  bytes,
  call,
  dict,
  global,
  integer,
  pickle,
  storage,
  string,
  tensor,
  torchLegacy,
  torchZip,
  tuple,
  twoFloats,
  uint16,
  uint32,
  uint64,
  weight,
  zip,
} from "./fixtures/build.ts";
import { expectRefusal, fixture, temporaryDirectory } from "./fixtures/files.ts";
import { readCheckpoint, readPytorch, readSafetensors, toFloat32 } from "./index.ts";

const inTemporary = temporaryDirectory();

async function read(content: Uint8Array, limits = {}) {
  const path = inTemporary("built.pt");
  await writeFile(path, content);
  return await readPytorch(path, limits);
}

describe("files of torch.save", () => {
  test.each([
    ["torch-1.13-zip.pt", "pytorch-zip"],
    ["torch-1.13-legacy.pt", "pytorch-legacy"],
    ["torch-2.15-zip.pt", "pytorch-zip"],
    ["torch-2.15-legacy.pt", "pytorch-legacy"],
  ])("%s holds what the safetensors package wrote", async (name, format) => {
    const expected = await readSafetensors(fixture("expected.safetensors"));
    const checkpoint = await readPytorch(fixture(name));
    expect(checkpoint).toMatchObject({ format, path: fixture(name), metadata: {} });
    expect([...checkpoint.tensors.keys()].slice(0, 3)).toEqual(["f64", "f32", "f16"]);
    expect(new Map([...checkpoint.tensors].sort())).toEqual(new Map([...expected.tensors].sort()));
  });

  test.each(["torch-1.13-training.pt", "torch-2.15-training.pt"])(
    "%s: the model of a training program",
    async (name) => {
      const { tensors, metadata } = await readPytorch(fixture(name));
      expect([...tensors.keys()]).toEqual([
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
      ]);
      expect(tensors.get("0.weight")!.shape).toEqual([2, 1, 1, 1]);
      expect([...toFloat32(tensors.get("1.bias")!)]).toEqual([3, 4]);
      expect(metadata).toEqual({
        epoch: "7",
        arch: "resnet20",
        best_prec1: "91.75",
        done: "false",
      });
    },
  );

  test.each([1, 4, 5])("pickle protocol %d", async (protocol) => {
    const { tensors, metadata } = await readPytorch(fixture(`torch-2.15-protocol-${protocol}.pt`));
    expect([...toFloat32(tensors.get("weight")!)]).toEqual([0, 1, 2, 3]);
    expect(metadata).toEqual({ count: String(2 ** 40), flag: "true" });
  });

  test("unsigned types, which have no typed storage", async () => {
    const { tensors } = await readPytorch(fixture("torch-2.15-unsigned.pt"));
    expect([...tensors.values()].map(({ dtype }) => dtype)).toEqual(["U16", "U32", "U64"]);
    for (const tensor of tensors.values()) expect([...toFloat32(tensor)]).toEqual([0, 1, 2]);
  });
});

describe("pickles of other origin", () => {
  test("items of an OrderedDict as Python 2 passes them, with byte strings", async () => {
    const key = bytes("U", 6, "weight");
    const item = bytes("](", key, tensor(storage("0", 2)), "e");
    const { tensors } = await read(
      torchLegacy(pickle(call("collections.OrderedDict", bytes("](", item, "e")))),
    );
    expect([...toFloat32(tensors.get("weight")!)]).toEqual([1, 2]);
  });

  test("names that mean something to JavaScript", async () => {
    const from = tensor(storage("0", 2));
    const names = ["__proto__", "constructor", "toString"].map(string);
    const { tensors, metadata } = await read(
      torchZip(
        pickle(
          dict(...names.flatMap((name) => [name, from]), string("hasOwnProperty"), integer(1)),
        ),
      ),
    );
    expect([...tensors.keys()]).toEqual(["__proto__", "constructor", "toString"]);
    expect(Object.entries(metadata)).toEqual([["hasOwnProperty", "1"]]);
    const polluting = dict(string("__proto__"), string("polluted"), string("w"), from);
    const checkpoint = await read(torchZip(pickle(polluting)));
    expect(Object.entries(checkpoint.metadata)).toEqual([["__proto__", "polluted"]]);
    expect(Object.getPrototypeOf(checkpoint.metadata)).toBe(Object.prototype);
  });

  test("some tensors with the prefix module. and some without keep their names", async () => {
    const from = tensor(storage("0", 2));
    const { tensors } = await read(
      torchZip(pickle(dict(string("module.a"), from, string("b"), from))),
    );
    expect([...tensors.keys()]).toEqual(["module.a", "b"]);
  });

  test("a dict that holds itself", async () => {
    const own = bytes("}q", 0, "(", string("model"), "h", 0, string("w"));
    const { tensors } = await read(torchZip(pickle(own, tensor(storage("0", 2)), "u")));
    expect([...tensors.keys()]).toEqual(["w"]);
  });
});

const saved = (from: Uint8Array) => torchZip(pickle(dict(string("weight"), from)));
const repeat = (count: number, ...parts: Parameters<typeof bytes>) =>
  Buffer.alloc(count * bytes(...parts).length, bytes(...parts));

// Tuples of two of the one before: 2^40 leaves for whoever walks them.
const laughs = bytes(")q", 0, repeat(40, "h", 0, "h", 0, 0x86, "q", 0));

describe("hostile pickles are refused", () => {
  test.each<[string, Uint8Array, RegExp]>([
    [
      "a call of os.system",
      saved(call("os.system", string("touch /tmp/owned"))),
      /opcode at byte \d+: .*"os\.system", which is not executed/,
    ],
    ["builtins.eval", saved(call("builtins.eval", string("1"))), /"builtins\.eval"/],
    ["a name on the stack", saved(bytes(string("os"), string("system"), 0x93)), /"os\.system"/],
    [
      "a name that is a bomb",
      saved(bytes(laughs, "0h", 0, "h", 0, 0x93)),
      /expected the name of a global/,
    ],
    ["a name with control characters", saved(global("os.\x1b[2J\r")), /"os\.\\u001b\[2J\\r"/],
    ["an object of a class", saved(bytes(global("torch.Size"), ")", 0x81)), /opcode.*0x81/],
    ["a call of a value", saved(bytes(string("x"), ")R")), /a global that takes arguments/],
    ["a call of a type", saved(call("torch.float32")), /a global that takes arguments/],
    ["a call without a tuple", saved(bytes(global("torch.Size"), "NR")), /a tuple of arguments/],
    ["attributes of a tuple", saved(bytes(")}b")), /attributes of an OrderedDict/],
    ["an integer of 2^31 bytes", saved(bytes(0x8b, uint32(2 ** 31))), /at most 64 bytes/],
    ["an integer of 2^16 digits", saved(bytes("L", "9".repeat(65536), "L\n")), /an integer/],
    ["a string beyond the end", saved(bytes("X", uint32(2 ** 32 - 1))), /expected 4294967295 b/],
    ["a string of 2^63 bytes", saved(bytes(0x8d, uint64(2n ** 63n))), /below 2\^53/],
    ["a string that is not UTF-8", saved(bytes("X", uint32(1), 0xff)), /UTF-8/],
    ["protocol 99", torchZip(bytes(0x80, 99, ".")), /protocol 5 or lower, got 99/],
    ["an unknown opcode", torchZip(pickle(0xff)), /0xff/],
    ["an empty stack", torchZip(pickle()), /a value on the stack/],
    ["a value below the mark", torchZip(pickle("N(0")), /a value on the stack/],
    ["a missing mark", torchZip(pickle("t")), /a mark/],
    ["a missing memo entry", torchZip(pickle("h", 9)), /memo entry 9/],
    ["a key without a value", torchZip(pickle("}(Nu")), /a value for each key/],
    ["an item of a tuple", torchZip(pickle("NNNs")), /a dict/],
    ["an append to a dict", torchZip(pickle("}Na")), /a list/],
    ["a list of tensors", torchZip(pickle(tuple(tensor(storage("0", 2))))), /other than a dict/],
    ["no tensors", saved(integer(1)), /expected tensors.*a dict with "weight"/],
    ["an empty dict", torchZip(pickle("}")), /a dict with nothing/],
    ["a tuple bomb", torchZip(pickle(laughs)), /other than a dict/],
    ["a million levels", torchZip(pickle(repeat(900_000, "]"), repeat(899_999, "a"))), /a dict/],
    ["millions of dicts", torchZip(pickle(repeat(5_000_000, "}"))), /at most 2000000 steps/],
    [
      "an OrderedDict made again and again of one list",
      torchZip(
        pickle(
          "](",
          repeat(50_000, "NN", 0x86),
          "eq",
          0,
          repeat(9_000, global("collections.OrderedDict"), "h", 0, 0x85, "R"),
        ),
      ),
      /at most 2000000 steps/,
    ],
    ["a pickle that is too long", torchZip(pickle("X", uint32(3e7), repeat(3e7, 0))), /data\.pkl/],
  ])("%s", async (_name, content, message) => {
    await expectRefusal(readCheckpoint, inTemporary("hostile.pt"), content, message);
  });

  test("the legacy format holds to the same list", async () => {
    const path = inTemporary("hostile.th");
    const content = torchLegacy(pickle(dict(string("w"), call("posix.system", string("true")))));
    await expectRefusal(readCheckpoint, path, content, /"posix\.system"/);
  });
});

describe("hostile tensors are refused", () => {
  const two = storage("0", 2);
  test.each<[string, Uint8Array, RegExp]>([
    ["beyond the storage", saved(tensor(two, { shape: [3] })), /"weight": .*storage of 8 bytes/],
    ["an offset beyond it", saved(tensor(two, { offset: 1 })), /from element 1 to lie/],
    ["a stride beyond it", saved(tensor(two, { strides: [2] })), /strides \[2\]/],
    [
      "a shape without an exact product",
      saved(tensor(two, { shape: [2 ** 40, 2 ** 40], strides: [0, 0] })),
      /to lie in its storage/,
    ],
    [
      "a terabyte of one element",
      saved(tensor(two, { shape: [2 ** 40], strides: [0] })),
      /at most \d+ bytes of tensors, got 4398046511104/,
    ],
    ["a negative size", saved(tensor(two, { shape: [-1] })), /whole numbers, zero or more/],
    ["a negative stride", saved(tensor(two, { strides: [-1] })), /whole numbers, zero or more/],
    ["a negative offset", saved(tensor(two, { offset: -1 })), /whole numbers, zero or more/],
    ["a stride missing", saved(tensor(two, { strides: [] })), /whole numbers, zero or more/],
    [
      "a thousand dimensions",
      saved(tensor(two, { shape: Array(1000).fill(1), strides: Array(1000).fill(1) })),
      /whole numbers/,
    ],
    ["no storage", saved(tensor(bytes("N"))), /to have a storage/],
    ["a parameter of nothing", saved(call("torch._utils._rebuild_parameter", "N")), /parameter/],
    [
      "no type",
      saved(call("torch._utils._rebuild_tensor_v3", two, "K", 0, "))N", 0x89, "N")),
      /to have a type/,
    ],
    [
      "a sign to be changed later",
      saved(call("torch._utils._rebuild_tensor_v2", two, "K", 0, "))", 0x89, "N}")),
      /to hold its numbers as they are/,
    ],
    ["an unknown storage", saved(tensor(storage("9", 2))), /a zip entry "archive\/data\/9"/],
    ["a path as storage", saved(tensor(storage("../data.pkl", 2))), /a zip entry/],
    ["a storage of another size", saved(tensor(storage("0", 3))), /expected 12 bytes.*got 8/],
    ["a type that is not plain", saved(storage("0", 2, "torch.QInt8Storage")), /QInt8Storage/],
    [
      "a persistent id that is no storage",
      saved(bytes(tuple(string("module")), "Q")),
      /persistent/,
    ],
    [
      "one storage with two types",
      saved(tuple(tensor(two), tensor(storage("0", 1, "torch.DoubleStorage")))),
      /"0" to have one type/,
    ],
  ])("%s", async (_name, content, message) => {
    await expectRefusal(readPytorch, inTemporary("hostile.pt"), content, message);
  });

  test("a tensor that no memory holds, within the limit", async () => {
    const content = saved(tensor(two, { shape: [2 ** 50], strides: [0] }));
    const readUnlimited = (path: string) => readPytorch(path, { tensorBytes: Infinity });
    const path = inTemporary("large.pt");
    await expectRefusal(readUnlimited, path, content, /expected memory for 4503599627370496 bytes/);
  });

  test("axes of size 1 cost no time for every element", async () => {
    const shape = [2 ** 24, ...Array<number>(63).fill(1)];
    const strides = shape.map(() => 0);
    const path = inTemporary("axes.pt");
    await writeFile(
      path,
      zip([
        {
          name: "a/data.pkl",
          data: pickle(
            dict(string("w"), tensor(storage("0", 1, "torch.ByteStorage"), { shape, strides })),
          ),
        },
        { name: "a/data/0", data: Uint8Array.of(7) },
      ]),
    );
    const start = performance.now();
    const { data } = (await readPytorch(path)).tensors.get("w")!;
    // It took more than ten seconds.
    expect(performance.now() - start).toBeLessThan(5000);
    expect(data).toHaveLength(2 ** 24);
    expect(data.at(-1)).toBe(7);
  }, 60_000);

  test("many views of one storage, copied, stay within the limit", async () => {
    const view = tensor(bytes("h", 0), { shape: [100, 100], strides: [1, 100] });
    const items = Array.from({ length: 2000 }, (_, i) => bytes(string(`w${i}`), view));
    const content = zip([
      { name: "a/data.pkl", data: pickle(storage("0", 10_000), "q", 0, "0", dict(...items)) },
      { name: "a/data/0", data: new Uint8Array(40_000) },
    ]);
    const path = inTemporary("views.pt");
    await expectRefusal(readPytorch, path, content, /at most \d+ bytes of tensors/);
    expect((await readPytorch(path, { tensorBytes: 1e9 })).tensors.size).toBe(2000);
  });
});

describe("hostile zip archives are refused", () => {
  const good = { name: "archive/data.pkl", data: pickle(weight) };
  const numbers = { name: "archive/data/0", data: twoFloats };
  const edit = (content: Buffer, offset: number, replacement: Uint8Array) =>
    bytes(content.subarray(0, offset), replacement, content.subarray(offset + replacement.length));
  const whole = torchZip(pickle(weight));
  const end = whole.length - 22;

  test("sizes in a zip64 field, after another field, are read", async () => {
    const sizes = bytes(uint16(1), uint16(24), uint64(8), uint64(8), uint64(good.data.length + 46));
    const extra = bytes(uint16(0x5455), uint16(1), 0, sizes);
    const claims = { size: 2 ** 32 - 1, header: 2 ** 32 - 1, extra };
    const { tensors } = await read(zip([good, { ...numbers, ...claims }]));
    expect([...toFloat32(tensors.get("weight")!)]).toEqual([1, 2]);
  });

  test("the archive they are made from is read", async () => {
    expect([...toFloat32((await read(whole)).tensors.get("weight")!)]).toEqual([1, 2]);
  });

  test.each<[string, Uint8Array, RegExp]>([
    [
      "compressed, a bomb or not",
      zip([good, { ...numbers, method: 8, size: 2 ** 32 - 2 }]),
      /stored/,
    ],
    ["sizes that differ", zip([good, { ...numbers, compressedSize: 7 }]), /stored/],
    ["encrypted", zip([good, { ...numbers, flags: 1 }]), /encrypted/],
    ["entries that overlap", zip([good, { ...numbers, header: 8 }]), /at byte/],
    [
      "an entry that reaches into the next",
      zip([{ ...good, size: good.data.length + 9 }, numbers]),
      /begins something else/,
    ],
    ["an entry beyond the file", zip([good, { ...numbers, header: 2 ** 30 }]), /file ends at byte/],
    [
      "a size beyond the file",
      torchZip(pickle(weight), { ...numbers, name: "archive/byteorder", size: 1e6 }),
      /begins something else/,
    ],
    [
      "a relative path",
      zip([good, numbers, { name: "archive/../../x", data: twoFloats }]),
      /relative path/,
    ],
    [
      "an absolute path",
      zip([good, numbers, { name: "/etc/x", data: twoFloats }]),
      /relative path/,
    ],
    ["backslashes", zip([good, numbers, { name: "a\\..\\x", data: twoFloats }]), /relative path/],
    ["a null in a name", zip([good, numbers, { name: "a\0", data: twoFloats }]), /relative path/],
    ["the same name twice", zip([good, numbers, numbers]), /one zip entry "archive\/data\/0"/],
    ["no pickle", zip([numbers]), /data\.pkl in the zip archive, got 0/],
    ["two pickles", zip([good, { ...good, name: "other/data.pkl" }, numbers]), /got 2/],
    [
      "big-endian numbers",
      torchZip(pickle(weight), { name: "archive/byteorder", data: bytes("big") }),
      /byte order "big"/,
    ],
    ["no directory", whole.subarray(0, end), /no end of directory/],
    ["a directory beyond the file", edit(whole, end + 16, uint32(2 ** 31)), /file ends at byte/],
    ["a directory of another place", edit(whole, end + 16, uint32(0)), /a zip directory entry/],
    [
      "a zip64 directory at 2^63",
      bytes(
        whole.subarray(0, end),
        "PK\x06\x07",
        uint32(0),
        uint64(2n ** 63n),
        uint32(1),
        whole.subarray(end),
      ),
      /below 2\^53/,
    ],
    [
      "a size in a zip64 field that is not there",
      zip([good, { ...numbers, size: 2 ** 32 - 1 }]),
      /expected 2 bytes/,
    ],
  ])("%s", async (_name, content, message) => {
    await expectRefusal(readPytorch, inTemporary("hostile.zip"), content, message);
  });

  test("a directory longer than the limit", async () => {
    const path = inTemporary("long.zip");
    const readLimited = (file: string) => readPytorch(file, { headerBytes: 64 });
    await expectRefusal(readLimited, path, whole, /directory of at most 64 bytes/);
  });
});

describe("hostile legacy files are refused", () => {
  const pickled = pickle(weight);

  test("the file they are made from is read", async () => {
    expect([...toFloat32((await read(torchLegacy(pickled))).tensors.get("weight")!)]).toEqual([
      1, 2,
    ]);
  });

  test("pickles longer than the first window are read", async () => {
    const long = pickle(
      dict(string("text"), string("x".repeat(3e6)), string("w"), tensor(storage("0", 2))),
    );
    const { metadata } = await read(torchLegacy(long));
    expect(metadata.text).toHaveLength(3e6);
    const path = inTemporary("long.th");
    await expectRefusal(
      (file) => readPytorch(file, { headerBytes: 2e6 }),
      path,
      torchLegacy(long),
      /the data ends at byte 2000000/,
    );
  });

  test.each<[string, Uint8Array, RegExp]>([
    ["another pickle", pickle("N"), /expected a file of torch\.save/],
    [
      "another number of elements",
      torchLegacy(pickled, undefined, bytes(uint64(3), twoFloats)),
      /storage "0" at byte \d+: expected 2 elements.*got 3/,
    ],
    ["2^63 elements", torchLegacy(pickled, undefined, uint64(2n ** 63n)), /below 2\^53/],
    ["a storage cut short", torchLegacy(pickled, undefined, uint64(2)), /file ends at byte/],
    ["no storages", torchLegacy(pickled, bytes("]"), bytes()), /a storage "0" after the pickles/],
    ["keys that are no list", torchLegacy(pickled, bytes("N")), /a list of the keys/],
    ["a key that is no string", torchLegacy(pickled, bytes("](Ne")), /to be strings/],
  ])("%s", async (_name, content, message) => {
    await expectRefusal(readPytorch, inTemporary("hostile.th"), content, message);
  });
});

describe("files of no known format", () => {
  test.each<[string, Uint8Array, RegExp]>([
    ["empty", bytes(), /begins with ""/],
    ["text", bytes("version https://git-lfs.github.com"), /begins with "version https:\/\/"/],
    ["binary", bytes("\x89HDF\r\n\x1a\n"), /begins with ".*HDF\\r\\n/],
  ])("%s", async (_name, content, message) => {
    await expectRefusal(readCheckpoint, inTemporary("unknown"), content, message);
  });

  test("no file", async () => {
    const reading = readCheckpoint(inTemporary("absent.pt"));
    await expect(reading).rejects.toMatchObject({ code: "missing-file" });
  });

  test("a directory", async () => {
    const reading = readCheckpoint(inTemporary(""));
    await expect(reading).rejects.toMatchObject({ code: "invalid-file" });
  });
});
