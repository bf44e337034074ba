export { serve, startBackground, type Work } from "./background.ts";
export { type ErrorCode, type ErrorData, EspalierError, throwIfAborted } from "./error.ts";
export {
  describeFileError,
  hashFile,
  openFile,
  PARTIAL_SUFFIX,
  readBytes,
  readJson,
  statFile,
  writeFileAtomic,
  writeJsonAtomic,
} from "./files.ts";
export { INTERRUPTED, onInterrupt } from "./interrupt.ts";
export { type JsonLimits, parseJson } from "./json.ts";
export { quote, show } from "./quote.ts";
