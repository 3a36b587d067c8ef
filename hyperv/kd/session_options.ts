import type { DebugTransport } from "../debug_transport.ts";
import type { KdnetHostEvent } from "./kdnet_host.ts";
import type { KdTiming } from "./link.ts";
import type { StateChange } from "./state_change.ts";
import type { DebugIo, FileIo } from "./target_io.ts";

/** What a session tells its user; all are optional. None may throw. */
export interface KdSessionEvents {
  /** The target took the session; `again` if there was one before, so it was restarted. */
  onConnected?: (again: boolean) => void;
  /** The target printed. */
  onPrint?: (text: string) => void;
  /** The target wants a line; without this it gets an empty one. */
  onPrompt?: (prompt: DebugIo) => string | Promise<string>;
  /** An image was loaded or unloaded; the target goes on. */
  onImage?: (image: NonNullable<StateChange["image"]>) => void;
  /** The target wants a file; it is told that there is none. */
  onFile?: (request: FileIo) => void;
  /** The target stopped. */
  onStop?: (stop: StateChange) => void;
  /** A poke came. */
  onPoke?: (event: Exclude<KdnetHostEvent, { kind: "data" }>) => void;
}

/** How a `KdSession` is made. */
export interface KdSessionOptions {
  /** The wire to the target. */
  transport: DebugTransport;
  /** Key text, such as `1.2.3.4`. */
  key: string;
  /** Who is told what happens. */
  events?: KdSessionEvents;
  /** Milliseconds until something is sent again (500), and how often (12). */
  timing?: KdTiming;
}

/** How `KdSession.resume` lets the target go on. */
export interface ResumeOptions {
  /** Stop after one instruction. */
  step?: boolean;
  /** The exception was not handled: the target does what it does without a debugger. */
  unhandled?: boolean;
  /** DR7; by default as it was. */
  dr7?: bigint;
}
