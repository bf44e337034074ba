/** @file The tokenizer that a checkpoint comes with. */
import { EspalierError, parseJson } from "@espalier/base";
import type { TextInput } from "@espalier/core";
import type { Dimensions } from "./encoder.ts";

/** The files of tokenizers, which travel with a model. */
export const tokenizerFiles = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "vocab.txt",
  "vocab.json",
  "merges.txt",
] as const;

interface PaddingConfig {
  readonly pad_token_id?: number | null | undefined;
}

/**
 * How text becomes the inputs of a model with these files.
 *
 * @param positions Tokens that the model has positions for.
 * @throws EspalierError `invalid-file` for a file that is not JSON of an object.
 */
export function textInput(
  files: ReadonlyMap<string, Uint8Array> | undefined,
  { positions, vocabulary, types }: Pick<Dimensions, "positions" | "vocabulary" | "types">,
  config: PaddingConfig,
): TextInput {
  const settings = parse(files, "tokenizer_config.json") ?? {};
  const json = parse(files, "tokenizer.json") ?? fromVocabulary(files?.get("vocab.txt"), settings);
  const { model_max_length: stated } = settings as { model_max_length?: unknown };
  const truncates = isCount(stated) && stated <= positions;
  return {
    kind: "text",
    tokenizer: json && { json, config: settings },
    maxLength: truncates ? stated : positions,
    truncates,
    ...{ vocabulary, types },
    padding: { token: config.pad_token_id ?? 0, type: 0 },
  };
}

function isCount(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) > 0;
}

function parse(
  files: ReadonlyMap<string, Uint8Array> | undefined,
  name: string,
): object | undefined {
  const bytes = files?.get(name);
  if (bytes === undefined) return undefined;
  let content: unknown;
  try {
    content = parseJson(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new EspalierError("invalid-file", `${name}: ${(error as Error).message}`, {}, error);
  }
  if (typeof content === "object" && content !== null) return content;
  throw new EspalierError("invalid-file", `${name}: expected an object`, { path: name });
}

/** The tokenizer of BERT (arXiv 1810.04805) with the tokens of a `vocab.txt`, one a line. */
function fromVocabulary(bytes: Uint8Array | undefined, settings: object): object | undefined {
  if (bytes === undefined) return undefined;
  const tokens = new TextDecoder().decode(bytes).split(/\r?\n/);
  if (tokens.at(-1) === "") tokens.pop();
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const { do_lower_case: lowercase = true } = settings as { do_lower_case?: boolean };
  const special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].filter((token) => token in vocab);
  const missing = ["[UNK]", "[CLS]", "[SEP]"].find((token) => !special.includes(token));
  if (missing !== undefined) {
    throw new EspalierError("invalid-file", `vocab.txt: expected the token ${missing}`, {});
  }
  const part = (id: "A" | "B", type_id: number) => ({ Sequence: { id, type_id } });
  const mark = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } });
  const single = [mark("[CLS]", 0), part("A", 0), mark("[SEP]", 0)];
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((content) => ({
      id: vocab[content],
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "TemplateProcessing",
      single,
      pair: [...single, part("B", 1), mark("[SEP]", 1)],
      special_tokens: Object.fromEntries(
        ["[CLS]", "[SEP]"].map((token) => [
          token,
          { id: token, ids: [vocab[token]], tokens: [token] },
        ]),
      ),
    },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab,
    },
  };
}
