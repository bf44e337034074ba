export { installedVersion, loadBackend, type TfjsBackend, tfjsBackends } from "./backends.ts";
export { createTfjsExecutor, type TfjsExecutorOptions } from "./executor.ts";
