/** @file The thread that has the sessions of processors, and how it is asked. */
import { serve, startBackground } from "@espalier/base";
import { createSessions, type Sessions } from "./sessions.ts";

interface Request {
  readonly method: keyof Sessions;
  readonly parameters: readonly unknown[];
}

/** What does whatever sessions are asked for. */
function createAnswer(): (data: undefined, request: Request) => Promise<unknown> {
  const sessions = createSessions();
  return (_data, { method, parameters }) =>
    (sessions[method] as (...given: readonly unknown[]) => Promise<unknown>)(...parameters);
}

/** Answers whoever started this thread. */
export function serveSessions(): void {
  serve(createAnswer());
}

/** Sessions of a thread of their own, where the package is built. */
export function startSessions(): Sessions {
  const script = new URL("./session-worker.js", import.meta.url);
  const tell = startBackground(script, undefined, createAnswer());
  const ask = <T>(method: keyof Sessions, parameters: readonly unknown[], moved?: ArrayBuffer[]) =>
    tell({ method, parameters }, moved) as Promise<T>;
  return {
    // The model is not needed here any longer.
    open: (source) => ask("open", [source], [source.model.buffer]),
    run: (session, feeds) => ask("run", [session, feeds]),
    close: (session) => ask("close", [session]),
    read: (tensor) => ask("read", [tensor]),
    drop: (tensor) => ask("drop", [tensor]),
  };
}
