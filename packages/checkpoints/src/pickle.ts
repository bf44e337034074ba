/**
 * @file A pickle machine that builds data and runs nothing. The npm packages do not fit: pickleparser
 * accepts every global, has no bound on work and rounds large integers; picklejs is abandoned.
 */
import { quote } from "@espalier/base";
import type { ByteReader } from "./byte-reader.ts";
import type { Fail } from "./source-file.ts";

/** What a global does with its arguments. `spend` counts work that outgrows the pickle's length. */
export type PickleFunction = (
  args: readonly unknown[],
  fail: Fail,
  spend: (steps: number) => void,
) => unknown;

export interface PickleRules {
  /** The allowed globals, as `module.name`: a PickleFunction, or the value the global stands for. */
  readonly globals: ReadonlyMap<string, unknown>;
  /** The object of a persistent id. */
  readonly persistentLoad: (id: unknown, fail: Fail) => unknown;
}

// Each step takes a bounded amount of memory, a few hundred bytes for a new dict, so this bounds the
// whole. A tensor takes about 40 steps.
const MOST_STEPS = 2_000_000;

// Bytes of the longest integer. The magic number of torch.save has 10.
const LONGEST_INTEGER = 64;

/**
 * Reads one pickle (protocols 1 to 5, the opcodes that torch.save writes in Python 2 and 3). Lists and
 * tuples become arrays, dicts become Maps, integers beyond 2^53 become bigints.
 *
 * @throws EspalierError of `failFile`, naming the opcode's offset.
 */
export function readPickle(reader: ByteReader, rules: PickleRules, failFile: Fail): unknown {
  const stack: unknown[] = [];
  const marks: number[] = [];
  const memo = new Map<number, unknown>();
  let steps = 0;
  let offset = 0;

  const fail: Fail = (message) =>
    failFile(`pickle opcode at byte ${offset}: ${message}`, { offset });

  function spend(count: number): void {
    steps += count;
    if (steps > MOST_STEPS) throw fail(`expected at most ${MOST_STEPS} steps`);
  }

  function push(value: unknown): void {
    stack.push(value);
  }

  function top(): unknown {
    if (stack.length <= (marks.at(-1) ?? 0)) throw fail("expected a value on the stack");
    return stack.at(-1);
  }

  function pop(): unknown {
    const value = top();
    stack.pop();
    return value;
  }

  /** The last `count` values, in the order in which they were pushed. */
  function popTuple(count: number): unknown[] {
    return Array.from({ length: count }, pop).reverse();
  }

  function popToMark(): unknown[] {
    const mark = marks.pop();
    if (mark === undefined) throw fail("expected a mark on the stack");
    return stack.splice(mark);
  }

  function append(values: unknown[]): void {
    const list = top();
    if (!Array.isArray(list)) throw fail("expected a list to append to");
    for (const value of values) list.push(value);
  }

  function setItems(keysAndValues: unknown[]): void {
    const dict = top();
    if (!(dict instanceof Map)) throw fail("expected a dict to set items of");
    if (keysAndValues.length % 2 !== 0) throw fail("expected a value for each key");
    for (let i = 0; i < keysAndValues.length; i += 2) {
      dict.set(keysAndValues[i], keysAndValues[i + 1]);
    }
  }

  function pushGlobal([module, name]: unknown[]): void {
    if (typeof module !== "string" || typeof name !== "string") {
      throw fail("expected the name of a global");
    }
    const full = `${module}.${name}`;
    if (!rules.globals.has(full)) {
      throw fail(
        `expected only what plain tensors need, got ${quote(full)}, which is not executed`,
      );
    }
    push(rules.globals.get(full));
  }

  function reduce([callable, args]: unknown[]): void {
    if (typeof callable !== "function") throw fail("expected a global that takes arguments");
    if (!Array.isArray(args)) throw fail("expected a tuple of arguments");
    push((callable as PickleFunction)(args, fail, spend));
  }

  /** Sets attributes, of which OrderedDicts have some: PyTorch's `_metadata`, module versions. */
  function build(): void {
    pop();
    if (!(top() instanceof Map)) throw fail("expected attributes of an OrderedDict only");
  }

  function recall(index: number): void {
    if (!memo.has(index)) throw fail(`expected memo entry ${index} to be set`);
    push(memo.get(index));
  }

  function decimal(text: string): number | bigint {
    if (!/^-?\d{1,150}$/.test(text)) throw fail(`expected an integer, got ${quote(text)}`);
    return toNumber(BigInt(text));
  }

  /** Protocol 1 has no opcodes for booleans; it writes them with a zero that integers do not have. */
  function booleanOrDecimal(text: string): boolean | number | bigint {
    return text === "01" || text === "00" ? text === "01" : decimal(text);
  }

  function twosComplement(length: number): number | bigint {
    if (length > LONGEST_INTEGER) {
      throw fail(`expected an integer of at most ${LONGEST_INTEGER} bytes, got ${length}`);
    }
    const hex = Buffer.from(reader.bytes(length)).reverse().toString("hex");
    return toNumber(BigInt.asIntN(length * 8, BigInt(`0x0${hex}`)));
  }

  function checkProtocol(protocol: number): void {
    if (protocol > 5) throw fail(`expected pickle protocol 5 or lower, got ${protocol}`);
  }

  // The comments are the names in Python's pickletools.
  const operations: Readonly<Record<string, () => void>> = {
    "\x80": () => checkProtocol(reader.uint8()), // PROTO
    "\x95": () => reader.uint64(), // FRAME
    "(": () => marks.push(stack.length), // MARK
    "0": pop, // POP
    "1": popToMark, // POP_MARK
    N: () => push(null), // NONE
    "\x88": () => push(true), // NEWTRUE
    "\x89": () => push(false), // NEWFALSE
    I: () => push(booleanOrDecimal(reader.line())), // INT
    L: () => push(decimal(reader.line().replace(/L$/, ""))), // LONG
    J: () => push(reader.int32()), // BININT
    K: () => push(reader.uint8()), // BININT1
    M: () => push(reader.uint16()), // BININT2
    "\x8a": () => push(twosComplement(reader.uint8())), // LONG1
    "\x8b": () => push(twosComplement(reader.uint32())), // LONG4
    G: () => push(reader.float64BigEndian()), // BINFLOAT
    U: () => push(reader.text(reader.uint8())), // SHORT_BINSTRING
    T: () => push(reader.text(reader.uint32())), // BINSTRING
    X: () => push(reader.text(reader.uint32())), // BINUNICODE
    "\x8c": () => push(reader.text(reader.uint8())), // SHORT_BINUNICODE
    "\x8d": () => push(reader.text(reader.uint64())), // BINUNICODE8
    C: () => push(reader.bytes(reader.uint8())), // SHORT_BINBYTES
    B: () => push(reader.bytes(reader.uint32())), // BINBYTES
    ")": () => push([]), // EMPTY_TUPLE
    t: () => push(popToMark()), // TUPLE
    "\x85": () => push(popTuple(1)), // TUPLE1
    "\x86": () => push(popTuple(2)), // TUPLE2
    "\x87": () => push(popTuple(3)), // TUPLE3
    "]": () => push([]), // EMPTY_LIST
    a: () => append(popTuple(1)), // APPEND
    e: () => append(popToMark()), // APPENDS
    "}": () => push(new Map()), // EMPTY_DICT
    s: () => setItems(popTuple(2)), // SETITEM
    u: () => setItems(popToMark()), // SETITEMS
    c: () => pushGlobal([reader.line(), reader.line()]), // GLOBAL
    "\x93": () => pushGlobal(popTuple(2)), // STACK_GLOBAL
    R: () => reduce(popTuple(2)), // REDUCE
    b: build, // BUILD
    Q: () => push(rules.persistentLoad(pop(), fail)), // BINPERSID
    q: () => memo.set(reader.uint8(), top()), // BINPUT
    r: () => memo.set(reader.uint32(), top()), // LONG_BINPUT
    "\x94": () => memo.set(memo.size, top()), // MEMOIZE
    h: () => recall(reader.uint8()), // BINGET
    j: () => recall(reader.uint32()), // LONG_BINGET
  };

  for (;;) {
    spend(1);
    offset = reader.position;
    const code = reader.uint8();
    const opcode = String.fromCharCode(code);
    if (opcode === ".") return pop(); // STOP
    const operation = operations[opcode];
    if (operation === undefined) {
      throw fail(`expected an opcode that torch.save writes, got 0x${code.toString(16)}`);
    }
    operation();
  }
}

function toNumber(value: bigint): number | bigint {
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}
