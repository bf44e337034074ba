/** @file Sentences as samples for models: tokens in batches of few lengths. */
import { EspalierError } from "@espalier/base";
import type { Samples, TextInput } from "@espalier/core";
import { Tokenizer } from "@huggingface/tokenizers";

/** One half of a data set. */
export interface TextSplit {
  /** One or two for each sample. */
  readonly sentences: readonly (readonly string[])[];
  /** Class of each sample, or the number to be predicted. */
  readonly labels: readonly number[];
}

interface Tokens {
  readonly ids: readonly number[];
  readonly types: readonly number[];
}

// Batches are this long or a little longer than their samples: steps grow with the length, so that
// little is filled up, and few programs are compiled.
const STEPS = [
  { below: 64, step: 16 },
  { below: 128, step: 32 },
  { below: 256, step: 64 },
  { below: Number.POSITIVE_INFINITY, step: 128 },
] as const;

/** The length of a batch that has a sample of so many tokens. */
export function bucketLength(tokens: number, most: number): number {
  const { step } = STEPS.find(({ below }) => tokens <= below)!;
  return Math.min(most, Math.ceil(tokens / step) * step);
}

/**
 * The sentences of `split` as `input_ids`, `attention_mask` and `token_type_ids`, int64, each batch as
 * long as its longest sample asks for. Samples of more than `most` tokens are cut: of two sentences the
 * longer one first, as Hugging Face's `longest_first`.
 *
 * @param name Of the split, for messages.
 * @throws EspalierError `mismatched-model` if the model has no tokenizer or one that is not its own, or
 *   too few positions for a sample that nothing asks to be cut; `invalid-file` for a tokenizer that
 *   cannot be used.
 */
export function textSamples(
  split: TextSplit,
  input: TextInput,
  most: number,
  name: string,
): Samples {
  const limit = Math.min(most, input.maxLength);
  const tokenizer = openTokenizer(input);
  const tokens = split.sentences.map((sentences, i) => {
    const encoded = encode(tokenizer, sentences, input.truncates ? limit : most);
    expectKnown(encoded, input, `${name}: row ${i + 1}`);
    // Models that do not tell types apart do not limit them, either.
    return input.types === 0 ? { ...encoded, types: encoded.ids.map(() => 0) } : encoded;
  });
  const lengths = Uint32Array.from(tokens, ({ ids }) => bucketLength(ids.length, limit));
  const { labels } = split;
  const ids = join(tokens.map((encoded) => encoded.ids));
  const types = join(tokens.map((encoded) => encoded.types));
  return {
    count: tokens.length,
    lengths,
    batch: async (indices) => {
      const length = Array.from(indices).reduce((a, index) => Math.max(a, lengths[index]), 0);
      const ones = new BigInt64Array(length).fill(1n);
      const filled = (rows: (index: number) => BigInt64Array, filler: number) => {
        const values = new BigInt64Array(indices.length * length).fill(BigInt(filler));
        Array.from(indices).forEach((index, n) => {
          values.set(rows(index), n * length);
        });
        return values;
      };
      return {
        feeds: {
          input_ids: filled(ids, input.padding.token),
          attention_mask: filled((index) => ones.subarray(0, ids(index).length), 0),
          token_type_ids: filled(types, input.padding.type),
        },
        labels: Float64Array.from(indices, (index) => labels[index]),
        length,
      };
    },
    tokens: (indices) => {
      const found = new Set([input.padding.token]);
      for (const index of Array.from(indices)) for (const id of ids(index)) found.add(Number(id));
      return Uint32Array.from(found);
    },
  };
}

/**
 * Rows of whole numbers in one typed array, and what looks them up. Millions of tokens in arrays of
 * JavaScript's would be gone through whenever garbage is collected, which training does at every step.
 */
function join(rows: readonly (readonly number[])[]): (index: number) => BigInt64Array {
  const starts = new Uint32Array(rows.length + 1);
  rows.forEach(({ length }, i) => {
    starts[i + 1] = starts[i] + length;
  });
  const joined = new BigInt64Array(starts[rows.length]);
  rows.forEach((row, i) => {
    joined.set(row.map(BigInt), starts[i]);
  });
  return (index) => joined.subarray(starts[index], starts[index + 1]);
}

function expectKnown(
  { ids, types }: Tokens,
  { maxLength, vocabulary, types: known }: TextInput,
  where: string,
): void {
  if (ids.length === 0) {
    throw new EspalierError(
      "mismatched-model",
      `${where}: expected at least one token, got none; does the tokenizer mark beginning and end?`,
    );
  }
  if (ids.length > maxLength) {
    throw new EspalierError(
      "mismatched-model",
      `${where}: expected at most ${maxLength} tokens, the positions of the model, got ${ids.length}; with a model_max_length of ${maxLength} in tokenizer_config.json texts are cut`,
      { expected: maxLength, actual: ids.length },
    );
  }
  expectBelow(vocabulary, ids, `${where}: expected tokens below ${vocabulary}, the vocab_size`);
  if (known === 0) return;
  expectBelow(
    known,
    types,
    `${where}: expected types of tokens below ${known}, the type_vocab_size`,
  );
}

// What a tokenizer.json says is not checked by who reads it.
function expectBelow(limit: number, numbers: readonly unknown[], expectation: string): void {
  for (const n of numbers) {
    if (Number.isInteger(n) && (n as number) >= 0 && (n as number) < limit) continue;
    throw new EspalierError(
      "mismatched-model",
      `${expectation} of the model, got ${n} from its tokenizer; do they belong together?`,
      { expected: limit, actual: n },
    );
  }
}

function openTokenizer({ tokenizer }: TextInput): Tokenizer {
  if (tokenizer === undefined) {
    throw new EspalierError(
      "mismatched-model",
      "expected a model with a tokenizer.json beside it, got one without",
    );
  }
  try {
    return new Tokenizer(tokenizer.json, tokenizer.config);
  } catch (error) {
    const [reason] = (error as Error).message.split("\n");
    throw new EspalierError("invalid-file", `tokenizer.json: ${reason}`, {}, error);
  }
}

/** The tokens of one or two sentences with the marks around them, at most `limit`. */
function encode(tokenizer: Tokenizer, sentences: readonly string[], limit: number): Tokens {
  const [text, other] = sentences;
  const { ids, token_type_ids } = tokenizer.encode(text, {
    ...(other === undefined ? {} : { text_pair: other }),
    return_token_type_ids: true,
  });
  // Tokenizers that put no marks around sentences give none.
  const types = token_type_ids ?? ids.map(() => 0);
  let excess = ids.length - limit;
  if (excess <= 0) return { ids, types };
  const parts = sentences.map(
    (sentence) => tokenizer.encode(sentence, { add_special_tokens: false }).ids,
  );
  const left = parts.map(({ length }) => length);
  while (excess > 0) {
    // Of equally long sentences the second gives way.
    const longer = left.length > 1 && left[1] >= left[0] ? 1 : 0;
    if (left[longer] === 0) break;
    left[longer]--;
    excess--;
  }
  const first = find(ids, parts[0], 0);
  const second = parts.length > 1 ? find(ids, parts[1], first + parts[0].length) : ids.length;
  const isKept = (i: number) => {
    if (i >= first && i < first + parts[0].length) return i < first + left[0];
    return !(i >= second && i < second + parts[1].length) || i < second + left[1];
  };
  const keep = (values: readonly number[]) => values.filter((_, i) => isKept(i)).slice(0, limit);
  return { ids: keep(ids), types: keep(types) };
}

/** Where `part` begins in `whole`, from `start` on. */
function find(whole: readonly number[], part: readonly number[], start: number): number {
  for (let at = start; at + part.length <= whole.length; at++) {
    if (part.every((id, i) => whole[at + i] === id)) return at;
  }
  return start;
}
