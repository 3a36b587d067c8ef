import type { DebugTransport } from "../debug_transport.ts";

/** A wire that nobody is at the other end of: everything is sent, nothing ever comes. */
export class NullTransport implements DebugTransport {
  onActivity: (() => void) | undefined;
  readonly pending: number = 0;
  readonly pendingBytes: number = 0;
  readonly peer: undefined = undefined;

  send(_data: Uint8Array): boolean {
    return true;
  }

  receive(): Uint8Array | undefined {
    return undefined;
  }

  takeReset(): boolean {
    return false;
  }

  purgeIncoming(): number {
    return 0;
  }

  close(): void {}
}
