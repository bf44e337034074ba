/** @file The worker that has sessions; see session-thread.ts. */
import { serveSessions } from "./session-thread.ts";

serveSessions();
