/** @file Types for a part of @npmcli/config that its type package leaves out. */

declare module "@npmcli/config/lib/definitions/index.js" {
  import type Config from "@npmcli/config";

  const npm: Required<
    Pick<Config.Options, "definitions" | "shorthands" | "flatten"> & { nerfDarts: string[] }
  >;
  export default npm;
}
