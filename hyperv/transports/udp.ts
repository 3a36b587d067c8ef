import type { DebugPeer, DebugTransport } from "../debug_transport.ts";
import { DatagramQueue, type QueueLimits } from "./queue.ts";

/** A connected UDP socket, as little of it as is needed. */
export interface DatagramSocket {
  /** Starts sending; failures come through `onError`. */
  send(data: Uint8Array): void;
  /** Closes the socket. */
  close(): void;
}

/** Who a {@linkcode DatagramSocket} reports to. */
export interface DatagramEvents {
  /** A datagram has come from the peer. */
  onData(data: Uint8Array): void;
  /** Something failed; `refused` means that nobody listens at the peer's port. */
  onError(refused: boolean): void;
}

/** What went through a {@linkcode UdpTransport}. */
export interface UdpCounters {
  /** Datagrams given to the socket. */
  sent: number;
  /** Datagrams put into the queue. */
  received: number;
  /** Datagrams that found the receive queue full. */
  dropped: number;
  /** "Port unreachable" answers: nobody listens. */
  refused: number;
  /** Other failures of the socket. */
  errors: number;
}

/** Largest payload of UDP over IPv4. */
const MAX_PAYLOAD = 65_507;

/**
 * Debug packets over UDP to one peer. Nobody listening there is no error: packets are lost,
 * as on any wire, and the transport reports a reset.
 */
export class UdpTransport implements DebugTransport, DatagramEvents {
  onActivity: (() => void) | undefined;
  readonly peer: DebugPeer | undefined;
  /** Counts since the start. */
  readonly counters: UdpCounters = {
    sent: 0,
    received: 0,
    dropped: 0,
    refused: 0,
    errors: 0,
  };
  readonly #queue: DatagramQueue;
  #socket: DatagramSocket | undefined;
  #reset = false;

  /** Makes it without a socket; see {@linkcode UdpTransport.attach}. */
  constructor(peer?: DebugPeer, limits?: QueueLimits) {
    this.peer = peer;
    this.#queue = new DatagramQueue(limits);
  }

  /** Gives it the socket, which must report here. */
  attach(socket: DatagramSocket): void {
    this.#socket = socket;
  }

  get pending(): number {
    return this.#queue.length;
  }

  get pendingBytes(): number {
    return this.#queue.bytes;
  }

  send(data: Uint8Array): boolean {
    if (this.#socket === undefined || data.length > MAX_PAYLOAD) return false;
    this.#socket.send(data.slice());
    this.counters.sent++;
    return true;
  }

  receive(): Uint8Array | undefined {
    return this.#queue.shift();
  }

  takeReset(): boolean {
    const reset = this.#reset;
    this.#reset = false;
    return reset;
  }

  purgeIncoming(): number {
    return this.#queue.clear();
  }

  onData(data: Uint8Array): void {
    // An empty datagram says nothing, and a guest could not tell it from none.
    if (data.length === 0) return;
    if (!this.#queue.push(data)) {
      this.counters.dropped++;
      return;
    }
    this.counters.received++;
    this.onActivity?.();
  }

  onError(refused: boolean): void {
    if (!refused) {
      this.counters.errors++;
      return;
    }
    this.counters.refused++;
    this.#reset = true;
    this.onActivity?.();
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
    this.#queue.clear();
  }
}
