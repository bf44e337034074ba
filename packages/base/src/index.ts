export { serve, startBackground, type Work } from "./background.ts";
export { type ErrorCode, type ErrorData, EspalierError, throwIfAborted } from "./error.ts";
export {
  describeFileError,
  hashFile,
  isPartial,
  listDirectory,
  movePath,
  openFile,
  PARTIAL_SUFFIX,
  readBytes,
  readJson,
  removePath,
  statFile,
  writeDirectoryAtomic,
  writeFileAtomic,
  writeJsonAtomic,
} from "./files.ts";
export { INTERRUPTED, onInterrupt } from "./interrupt.ts";
export { type JsonLimits, parseJson } from "./json.ts";
export { type Owner, ownerOf, ownName } from "./owner.ts";
export { quote, show, showNames } from "./quote.ts";
