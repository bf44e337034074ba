/** @file Numbers as people read them. */

const MINUS = "−";

export function signed(text: string): string {
  return text.replace(/^-/, MINUS);
}

/** "855,770". */
export function formatCount(count: number): string {
  return count.toLocaleString("en");
}

function withPrefix(value: number, prefixes: readonly string[]): string {
  let order = 0;
  // What rounds to 1000 belongs to the next prefix.
  while (value >= 999.5 && order < prefixes.length - 1) [value, order] = [value / 1000, order + 1];
  const digits = order === 0 ? String(value) : value.toPrecision(3);
  return `${digits} ${prefixes[order]}`.trimEnd();
}

/** "126 M": three significant digits. */
export function formatLarge(count: number): string {
  return withPrefix(count, ["", "k", "M", "G", "T"]);
}

/** "1.09 MB": three significant digits, decimal prefixes. */
export function formatBytes(bytes: number): string {
  return withPrefix(bytes, ["B", "kB", "MB", "GB", "TB"]);
}

/** "93.77 %". */
export function formatPercent(share: number, decimals = 2): string {
  return signed(`${(100 * share).toFixed(decimals)} %`);
}

/** "80 %", with as many decimals as it takes. */
export function formatShare(share: number): string {
  return signed(`${Number((100 * share).toFixed(4))} %`);
}

/**
 * "+0.24": how far apart two numbers are as printed with `decimals`, so that whoever subtracts what
 * a table shows gets what it says.
 */
export function formatChange(before: number, after: number, decimals: number): string {
  const change = Number(after.toFixed(decimals)) - Number(before.toFixed(decimals));
  const text = change.toFixed(decimals);
  if (Number(text) === 0) return `±${(0).toFixed(decimals)}`;
  return signed(change > 0 ? `+${text}` : text);
}

/** "2.02×". */
export function formatRatio(ratio: number): string {
  return `${ratio.toFixed(2)}×`;
}

/** "0.457", "29.8", "12,345": three significant digits, none lost before the point. */
export function formatNumber(value: number): string {
  const size = Math.abs(value);
  if (size >= 1000) return signed(formatCount(Math.round(value)));
  if (size !== 0 && size < 0.001) return signed(value.toExponential(2));
  return signed(String(Number(value.toPrecision(3))));
}

const superscripts = [..."⁰¹²³⁴⁵⁶⁷⁸⁹"];

/** "10⁻³" for a power of ten, "1" and "10" for what is short as it is. */
export function formatPower(value: number): string {
  if (value === 1 || value === 10) return String(value);
  const [, exponent] = value.toExponential(0).split("e");
  const power = exponent
    .replace("+", "")
    .replace("-", "⁻")
    .replace(/\d/g, (digit) => superscripts[Number(digit)]);
  return `10${power}`;
}
