/** The main job on the network that ships in examples/: `npm run demo`. */
import { build, espalier, install } from "./setup.mjs";

install();
build("@espalier/cli");
process.exitCode = espalier([
  "prune",
  "examples/resnet20-cifar10",
  ...["--data", "cifar10"],
  // The paper's metric; `removal`, the default, is better before tuning.
  ...["--metric", "hessian-trace"],
  ...["--keep-macs", "0.5", "--implant", "0.1", "--tune", "2"],
  ...["-o", "runs/demo", "--overwrite"],
  ...process.argv.slice(2),
]);
