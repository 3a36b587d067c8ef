import type { DebugPeer, DebugTransport } from "../debug_transport.ts";
import { isListening, type ListeningTransport } from "./listening.ts";

/** Told of each datagram that passes. `toDebugger` says which way; the bytes are valid during the call. */
export type DatagramListener = (data: Uint8Array, toDebugger: boolean) => void;

/** A transport that lets somebody watch another one, which may wait for its peer. */
export class TeeTransport implements ListeningTransport {
  readonly #inner: DebugTransport;
  readonly #listener: DatagramListener;

  /** Watches `inner`. */
  constructor(inner: DebugTransport, listener: DatagramListener) {
    this.#inner = inner;
    this.#listener = listener;
  }

  get onActivity(): (() => void) | undefined {
    return this.#inner.onActivity;
  }

  set onActivity(listener: (() => void) | undefined) {
    this.#inner.onActivity = listener;
  }

  get pending(): number {
    return this.#inner.pending;
  }

  get pendingBytes(): number {
    return this.#inner.pendingBytes;
  }

  get peer(): DebugPeer | undefined {
    return this.#inner.peer;
  }

  send(data: Uint8Array): boolean {
    const sent = this.#inner.send(data);
    if (sent) this.#listener(data, true);
    return sent;
  }

  reply(data: Uint8Array): boolean {
    const inner = this.#inner;
    if (!isListening(inner)) return this.send(data);
    const sent = inner.reply(data);
    if (sent) this.#listener(data, true);
    return sent;
  }

  confirm(): void {
    if (isListening(this.#inner)) this.#inner.confirm();
  }

  receive(): Uint8Array | undefined {
    const data = this.#inner.receive();
    if (data !== undefined) this.#listener(data, false);
    return data;
  }

  takeReset(): boolean {
    return this.#inner.takeReset();
  }

  purgeIncoming(): number {
    return this.#inner.purgeIncoming();
  }

  close(): void {
    this.#inner.close();
  }
}
