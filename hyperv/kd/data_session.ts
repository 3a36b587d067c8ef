import type { KdnetCipher } from "./cipher.ts";

/** The data channel after one handshake: its key and both sequence numbers. */
export class DataSession {
  /** Sequence number of the last datagram sent. */
  sent = 0n;
  /** Highest sequence number received. */
  seen = 0n;
  /** Seals and opens. */
  readonly cipher: KdnetCipher;
  /** Version byte of all datagrams. */
  readonly version: number;
  readonly #direction: number;

  /** Begins a session in which this end sends with `direction`. */
  constructor(cipher: KdnetCipher, version: number, direction: number) {
    this.cipher = cipher;
    this.version = version;
    this.#direction = direction;
  }

  /** Seals the next datagram. */
  seal(payload: Uint8Array): Promise<Uint8Array> {
    return this.cipher.seal({
      version: this.version,
      sequence: ++this.sent,
      direction: this.#direction,
      payload,
    });
  }

  /** Whether a sequence number is new; then it is the highest. */
  advance(sequence: bigint): boolean {
    if (sequence <= this.seen) return false;
    this.seen = sequence;
    return true;
  }
}
