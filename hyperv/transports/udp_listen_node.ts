import type { Buffer } from "node:buffer";
import type { DebugPeer } from "../debug_transport.ts";
import { type ListeningTransport, peerOf, type Sender } from "./listening.ts";
import { DatagramQueue, type QueueLimits } from "./queue.ts";

/** Largest payload of UDP over IPv4. */
const MAX_PAYLOAD = 65_507;

/** As little of a bound UDP socket as is needed. */
export interface BoundSocket {
  /** Starts sending; failures are not told. */
  send(data: Uint8Array, port: number, address: string): void;
  /** Closes the socket. */
  close(): void;
}

/** Debug packets over UDP with a peer that comes by itself. */
export class ListeningUdpTransport implements ListeningTransport {
  onActivity: (() => void) | undefined;
  /** The UDP port that it listens at. */
  readonly port: number;
  readonly #socket: BoundSocket;
  readonly #queue: DatagramQueue;
  #senders: Sender[] = [];
  #last: Sender | undefined;
  #confirmed: Sender | undefined;

  /** Use {@linkcode listenUdp}. */
  constructor(port: number, socket: BoundSocket, limits?: QueueLimits) {
    this.port = port;
    this.#socket = socket;
    this.#queue = new DatagramQueue(limits);
  }

  get pending(): number {
    return this.#queue.length;
  }

  get pendingBytes(): number {
    return this.#queue.bytes;
  }

  get peer(): DebugPeer | undefined {
    return peerOf(this.#confirmed);
  }

  /** A datagram has come. */
  onData(data: Uint8Array, sender: Sender): void {
    if (data.length === 0 || !this.#queue.push(data)) return;
    this.#senders.push(sender);
    this.onActivity?.();
  }

  receive(): Uint8Array | undefined {
    const data = this.#queue.shift();
    if (data !== undefined) this.#last = this.#senders.shift();
    return data;
  }

  send(data: Uint8Array): boolean {
    return this.#send(data, this.#confirmed);
  }

  reply(data: Uint8Array): boolean {
    return this.#send(data, this.#last);
  }

  confirm(): void {
    this.#confirmed = this.#last;
  }

  /** A peer that is gone is only silent: nobody tells a socket that is not connected. */
  takeReset(): boolean {
    return false;
  }

  purgeIncoming(): number {
    this.#senders = [];
    return this.#queue.clear();
  }

  close(): void {
    this.#socket.close();
    this.purgeIncoming();
    this.#last = undefined;
    this.#confirmed = undefined;
  }

  #send(data: Uint8Array, to: Sender | undefined): boolean {
    if (to === undefined || data.length > MAX_PAYLOAD) return false;
    this.#socket.send(data.slice(), to.port, to.address);
    return true;
  }
}

/**
 * Listens for a peer at a UDP port of this machine; port 0 takes a free one. Uses `node:dgram`, which Deno, Node
 * and Bun have; it is loaded here and not at import.
 *
 * @throws {Error} If the port is taken or may not be used.
 */
export async function listenUdp(
  host: string,
  port: number,
  limits?: QueueLimits,
): Promise<ListeningUdpTransport> {
  const { createSocket } = await import("node:dgram");
  const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    socket.bind(port, host, () => {
      socket.off("error", reject);
      resolve();
    });
  });
  // A datagram that cannot be sent is lost, as on any wire.
  const lost = (): void => {};
  socket.on("error", lost);
  const transport = new ListeningUdpTransport(socket.address().port, {
    send: (data, port, address) => socket.send(data, port, address, lost),
    close: () => socket.close(),
  }, limits);
  socket.on("message", (data: Buffer, { address, port }) => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.length);
    transport.onData(bytes, { address, port });
  });
  return transport;
}
