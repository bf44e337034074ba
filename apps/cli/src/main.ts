#!/usr/bin/env node
/** @file The `espalier` command. */
import { describeFileError, EspalierError, onInterrupt } from "@espalier/base";
import { Command, CommanderError } from "commander";
import { espalierVersion } from "./commands/env.ts";
import { registerCommands } from "./commands/index.ts";
import { exitCodeOf, exitCodes } from "./context.ts";

async function main(): Promise<number> {
  const controller = new AbortController();
  const forget = onInterrupt(() => {
    controller.abort();
    process.stderr.write("\ninterrupted: finishing the step; again to stop at once\n");
  });
  const program = new Command("espalier")
    .description(
      "Makes trained neural networks smaller and faster, guided by second-order sensitivity.",
    )
    .version(espalierVersion())
    .showHelpAfterError("(espalier --help lists the commands)")
    .exitOverride();
  registerCommands(program, controller.signal);
  try {
    await program.parseAsync(process.argv);
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.usage;
    if (EspalierError.isInstance(error)) {
      process.stderr.write(`espalier: ${error.message}\n`);
      return exitCodeOf(error);
    }
    // Anything else is a defect of ours, for which the stack is wanted.
    process.stderr.write(`espalier: unexpected error\n${(error as Error).stack ?? error}\n`);
    return exitCodes.failed;
  } finally {
    forget();
  }
}

for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    // A reader that has seen enough, such as `head`, is no reason to stop the work.
    if (error.code === "EPIPE") return;
    process.exitCode = exitCodes.failed;
    if (stream === process.stderr) return;
    const { message } = describeFileError(error, "standard output", "write");
    process.stderr.write(`espalier: ${message}\n`);
  });
}
const code = await main();
// What could not be written may have failed before.
if (code !== 0) process.exitCode = code;
