import type { DebugTransport } from "../../../hyperv/debug_transport.ts";
import type { MemoryTransport } from "../../../hyperv/transports/memory_pair.ts";

/** What a wire can do to a datagram. */
export const ATTACKS = [
  "lose",
  "repeat",
  "reorder",
  "truncate",
  "flip",
  "replay",
  "garbage",
] as const;
export type Attack = typeof ATTACKS[number];

const MAX_HISTORY = 64;

/** xorshift32 (Marsaglia): the same numbers in every run. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 0;
  }
  below(n: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return (x >>> 0) % n;
  }
}

/** An end of a wire that does harm to what is sent, and counts it. */
export class HostileWire implements DebugTransport {
  readonly harm: Record<Attack, number> = {
    lose: 0,
    repeat: 0,
    reorder: 0,
    truncate: 0,
    flip: 0,
    replay: 0,
    garbage: 0,
  };
  readonly #inner: MemoryTransport;
  readonly #random: Random;
  readonly #oneIn: number;
  readonly #history: Uint8Array[] = [];
  #held: Uint8Array | undefined;
  readonly peer: undefined = undefined;

  /** Every `oneIn`th datagram is harmed. */
  constructor(inner: MemoryTransport, random: Random, oneIn: number) {
    this.#inner = inner;
    this.#random = random;
    this.#oneIn = oneIn;
  }

  get total(): number {
    return Object.values(this.harm).reduce((sum, count) => sum + count);
  }

  send(data: Uint8Array): boolean {
    const random = this.#random;
    if (this.#history.length < MAX_HISTORY) this.#history.push(data.slice());
    else this.#history[random.below(MAX_HISTORY)] = data.slice();
    if (random.below(this.#oneIn) !== 0) {
      this.#inner.send(data);
      if (this.#held) this.#inner.send(this.#held);
      this.#held = undefined;
      return true;
    }
    const attack = ATTACKS[random.below(ATTACKS.length)]!;
    this.harm[attack]++;
    switch (attack) {
      case "lose":
        break;
      case "repeat":
        this.#inner.send(data);
        this.#inner.send(data);
        break;
      case "reorder":
        this.#held = data.slice();
        break;
      case "truncate":
        this.#inner.send(data.subarray(0, random.below(data.length)));
        break;
      case "flip": {
        const flipped = data.slice();
        flipped[random.below(data.length)]! ^= 1 << random.below(8);
        this.#inner.send(flipped);
        break;
      }
      case "replay":
        this.#inner.send(data);
        this.#inner.send(this.#history[random.below(this.#history.length)]!);
        break;
      case "garbage": {
        this.#inner.send(data);
        const length = random.below(400);
        const bytes = Uint8Array.from({ length }, () => random.below(256));
        if (random.below(2)) bytes.set(data.subarray(0, Math.min(6, length)));
        this.#inner.send(bytes);
      }
    }
    return true;
  }

  get pending(): number {
    return this.#inner.pending;
  }
  get pendingBytes(): number {
    return this.#inner.pendingBytes;
  }
  get onActivity(): (() => void) | undefined {
    return this.#inner.onActivity;
  }
  set onActivity(listener: (() => void) | undefined) {
    this.#inner.onActivity = listener;
  }
  receive(): Uint8Array | undefined {
    return this.#inner.receive();
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
