/** @file The thread that has the sessions of processors, and how it is asked. */
import { serve, startBackground } from "@espalier/base";
import { createSessions, type Sessions } from "./sessions.ts";

type Method = keyof Sessions;

interface Request {
  readonly method: Method;
  readonly parameters: readonly unknown[];
}

let own: Sessions | undefined;

async function answer(_data: undefined, { method, parameters }: Request): Promise<unknown> {
  own ??= createSessions();
  const asked = own[method] as (...given: readonly unknown[]) => Promise<unknown>;
  return asked(...parameters);
}

/** Answers whoever started this thread. */
export function serveSessions(): void {
  serve(answer);
}

/** Sessions of a thread of their own, which is started for the first one. */
export function startSessions(): Sessions {
  const ask = startBackground(new URL("./session-worker.js", import.meta.url), undefined, answer);
  const asking =
    (method: Method) =>
    (...parameters: readonly unknown[]) =>
      ask({ method, parameters });
  return {
    // The model is not needed here any longer.
    open: (source) =>
      ask({ method: "open", parameters: [source] }, [source.model.buffer]) as Promise<number>,
    ...({
      run: asking("run"),
      close: asking("close"),
      read: asking("read"),
      drop: asking("drop"),
    } as Omit<Sessions, "open">),
  };
}
