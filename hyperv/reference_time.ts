import type { GuestMemory } from "../core/guest_memory.ts";

/** The guest's time stamp counter, which all of the partition's clocks follow. */
export interface ReferenceClock {
  /** TSC ticks a second. */
  readonly tscFrequency: number;
  /** The TSC now, as the guest would read it. */
  readTsc(): bigint;
}

/** Units of 100 ns in a second. */
const UNITS = 10_000_000n;

// The reference TSC page (TLFS 12.7.2).
const SEQUENCE = 0;
const SCALE = 8;
const OFFSET = 16;
const BYTES = 24;

/**
 * The partition's reference time (TLFS 12.4): units of 100 ns since it was made. It is computed as
 * the guest computes it from the reference TSC page, `(TSC * scale >> 64) + offset`, so that the
 * page and the register always agree.
 */
export class ReferenceTime {
  readonly #clock: ReferenceClock;
  /** Units of 100 ns in a tick, times 2^64; rounded up, so that a whole unit is never one short. */
  readonly #scale: bigint;
  #offset = 0n;

  /** Starts at 0. */
  constructor(clock: ReferenceClock) {
    const frequency = BigInt(clock.tscFrequency);
    this.#clock = clock;
    this.#scale = ((UNITS << 64n) + frequency - 1n) / frequency;
    this.set(0n);
  }

  /** The time now. */
  now(): bigint {
    return this.#elapsed() + this.#offset;
  }

  /** Sets the time. */
  set(time: bigint): void {
    this.#offset = time - this.#elapsed();
  }

  #elapsed(): bigint {
    return this.#clock.readTsc() * this.#scale >> 64n;
  }

  /**
   * Fills the page from which the guest computes the time by itself. Its sequence number, which says that the
   * rest is valid, is another than before; 0 and all ones, which say that it is not, are left out. A TSC
   * that is too slow for a 64-bit scale leaves the page invalid, and the guest reads the MSR.
   */
  fillPage(memory: GuestMemory, gpa: number): void {
    if (!memory.contains(gpa, BYTES)) return;
    const scale = this.#scale;
    const sequence = (memory.view.getUint32(gpa + SEQUENCE, true) + 1) >>> 0;
    memory.writeU32(gpa + SEQUENCE, 0);
    if (scale !== BigInt.asUintN(64, scale)) return;
    memory.writeU64(gpa + SCALE, scale);
    memory.writeU64(gpa + OFFSET, BigInt.asUintN(64, this.#offset));
    const valid = sequence !== 0 && sequence !== 0xffff_ffff;
    memory.writeU32(gpa + SEQUENCE, valid ? sequence : 1);
  }
}
