/** @file Names of files and directories that say which process they belong to. */
import { hostname } from "node:os";

/** What such a name has in it for this process: HOST-PID. */
export function ownName(): string {
  return `${hostname()}-${process.pid}`;
}

export interface Owner {
  readonly host: string;
  readonly pid: number;
  /** `elsewhere`: processes of another machine, or another container, on a shared disk cannot be asked. */
  readonly state: "running" | "ended" | "elsewhere";
}

/** The process that `name`, HOST-PID, stands for; undefined for another text. */
export function ownerOf(name: string): Owner | undefined {
  const [, host, pid] = /^(.+)-([1-9]\d*)$/s.exec(name) ?? [];
  if (host === undefined) return undefined;
  const state = host !== hostname() ? "elsewhere" : isRunning(Number(pid)) ? "running" : "ended";
  return { host, pid: Number(pid), state };
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}
