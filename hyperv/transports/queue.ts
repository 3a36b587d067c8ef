/** Limits of a {@linkcode DatagramQueue}. */
export interface QueueLimits {
  /** Most datagrams. */
  datagrams: number;
  /** Most bytes. */
  bytes: number;
}

/** Datagrams that wait, with a bound: a flood costs no more memory than that. */
export class DatagramQueue {
  /** Datagrams that did not fit. */
  dropped = 0;
  /** Bytes in all that wait. */
  bytes = 0;
  readonly #limits: QueueLimits;
  #items: Uint8Array[] = [];

  /** Makes an empty queue; by default for 256 datagrams and 1 MiB. */
  constructor(limits: QueueLimits = { datagrams: 256, bytes: 0x10_0000 }) {
    this.#limits = limits;
  }

  /** How many wait. */
  get length(): number {
    return this.#items.length;
  }

  /** Adds a datagram at the end; false if it was dropped. */
  push(data: Uint8Array): boolean {
    if (
      this.#items.length >= this.#limits.datagrams ||
      this.bytes + data.length > this.#limits.bytes
    ) {
      this.dropped++;
      return false;
    }
    this.#items.push(data);
    this.bytes += data.length;
    return true;
  }

  /** Takes the first. */
  shift(): Uint8Array | undefined {
    const data = this.#items.shift();
    if (data !== undefined) this.bytes -= data.length;
    return data;
  }

  /** Drops all; returns how many. */
  clear(): number {
    const count = this.#items.length;
    this.#items = [];
    this.bytes = 0;
    return count;
  }
}
