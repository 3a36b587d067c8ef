/** Random numbers that are the same on every machine: cases are made anew from them. */
export class Random {
  #state: number;

  /** @param seed Any text. */
  constructor(seed: string) {
    let hash = 0x811c9dc5;
    for (const char of seed) {
      hash = Math.imul(hash ^ char.charCodeAt(0), 0x0100_0193);
    }
    this.#state = hash;
  }

  /** 32 random bits, unsigned (mulberry32). */
  word(): number {
    this.#state = (this.#state + 0x6d2b_79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** A number from 0 to `bound` - 1. */
  below(bound: number): number {
    return Math.floor(this.word() / 0x1_0000_0000 * bound);
  }

  /** True once in `n`. */
  once(n: number): boolean {
    return this.below(n) === 0;
  }

  /** One of the items. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** 64 random bits. */
  wide(): bigint {
    return (BigInt(this.word()) << 32n) | BigInt(this.word());
  }

  /** 64 bits of the kind that instructions go wrong with, often enough. */
  value(): bigint {
    switch (this.below(6)) {
      case 0:
      case 1:
        return this.pick(EDGES);
      case 2:
        return BigInt(this.below(70));
      case 3:
        return 1n << BigInt(this.below(64));
      case 4:
        return BigInt.asUintN(64, BigInt(this.word() | 0));
      default:
        return this.wide();
    }
  }
}

const EDGES: readonly bigint[] = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0x8000_0000_8000_8080n,
  0x7fff_ffff_7fff_7f7fn,
  0xffff_ffff_8000_0000n,
  0xffff_ffff_ffff_fffen,
  0xffff_ffff_ffff_ffffn,
  0x9999_9999_9999_9999n,
];
