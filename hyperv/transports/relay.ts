import type { DebugTransport } from "../debug_transport.ts";
import { isListening } from "./listening.ts";
import type { DatagramListener } from "./tee.ts";

/** Passes datagrams between a guest and a debugger, and lets somebody watch. */
export class Relay {
  readonly #guest: DebugTransport;
  readonly #debugger: DebugTransport;

  /** Ties the ends together; what waits at them passes at once. The transports are the caller's. */
  constructor(
    guest: DebugTransport,
    debuggerEnd: DebugTransport,
    listener: DatagramListener,
  ) {
    this.#guest = guest;
    this.#debugger = debuggerEnd;
    const pass = (
      from: DebugTransport,
      to: DebugTransport,
      toDebugger: boolean,
    ): void => {
      for (let data; (data = from.receive()) !== undefined;) {
        // Without the key all are taken for genuine: whoever sent last gets the answers.
        if (isListening(from)) from.confirm();
        to.send(data);
        listener(data, toDebugger);
      }
    };
    guest.onActivity = () => pass(guest, debuggerEnd, true);
    debuggerEnd.onActivity = () => pass(debuggerEnd, guest, false);
    guest.onActivity();
    debuggerEnd.onActivity();
  }

  /** Passes nothing any more. */
  close(): void {
    this.#guest.onActivity = undefined;
    this.#debugger.onActivity = undefined;
  }
}
