import type { DebugPeer, DebugTransport } from "../debug_transport.ts";
import { DatagramQueue, type QueueLimits } from "./queue.ts";

/** One end of a wire in memory. */
export class MemoryTransport implements DebugTransport {
  onActivity: (() => void) | undefined;
  /** The other end sees this address in a RESET output block. */
  peer: DebugPeer | undefined;
  readonly #queue: DatagramQueue;
  #other: MemoryTransport | undefined;
  #reset = false;

  /** Use {@linkcode memoryPair}. */
  constructor(limits?: QueueLimits) {
    this.#queue = new DatagramQueue(limits);
  }

  /** Ties two ends together. */
  connect(other: MemoryTransport): void {
    this.#other = other;
  }

  get pending(): number {
    return this.#queue.length;
  }

  get pendingBytes(): number {
    return this.#queue.bytes;
  }

  send(data: Uint8Array): boolean {
    const other = this.#other;
    if (other === undefined || !other.#queue.push(data.slice())) return false;
    other.onActivity?.();
    return true;
  }

  receive(): Uint8Array | undefined {
    return this.#queue.shift();
  }

  /** Makes the next {@linkcode MemoryTransport.takeReset} true, as a refused port would. */
  signalReset(): void {
    this.#reset = true;
    this.onActivity?.();
  }

  takeReset(): boolean {
    const reset = this.#reset;
    this.#reset = false;
    return reset;
  }

  purgeIncoming(): number {
    return this.#queue.clear();
  }

  close(): void {
    this.#queue.clear();
    this.#other = undefined;
  }
}

/** Two ends of a wire in memory: what one sends the other receives at once. */
export function memoryPair(
  limits?: QueueLimits,
): [MemoryTransport, MemoryTransport] {
  const a = new MemoryTransport(limits);
  const b = new MemoryTransport(limits);
  a.connect(b);
  b.connect(a);
  return [a, b];
}
