import type { GuestMemory } from "../core/guest_memory.ts";
import type { CallInput } from "./call_input.ts";

/** Processors in a bank. */
const BANK = 64;

/**
 * A set of virtual processors as hypercalls name it (TLFS 7.8.7.3): all, or banks of 64 of which
 * those that are named are given.
 */
export class ProcessorSet {
  /** Which banks are given; undefined means all processors. */
  readonly #valid: bigint | undefined;
  readonly #banks: readonly bigint[];

  private constructor(valid: bigint | undefined, banks: readonly bigint[]) {
    this.#valid = valid;
    this.#banks = banks;
  }

  /** All processors. */
  static readonly all: ProcessorSet = new ProcessorSet(undefined, []);

  /** Processors 0 to 63, as bits. */
  static mask(bits: bigint): ProcessorSet {
    return new ProcessorSet(1n, [bits]);
  }

  /**
   * The set whose banks are the call's variable header, from word `at` of its input on.
   *
   * @param valid A bit for each bank that is given.
   * @returns Undefined if the input does not have them.
   */
  static sparse(
    call: CallInput,
    memory: GuestMemory,
    at: number,
    valid: bigint,
  ): ProcessorSet | undefined {
    if (!call.has(memory, at + call.variable)) return undefined;
    const banks: bigint[] = [];
    for (let n = 0; n < call.variable; n++) {
      banks.push(call.word(memory, at + n));
    }
    return new ProcessorSet(valid, banks);
  }

  /** Whether a processor is in it. */
  has(processor: number): boolean {
    if (this.#valid === undefined) return true;
    const bank = BigInt(Math.floor(processor / BANK));
    if ((this.#valid >> bank & 1n) === 0n) return false;
    const before = countBits(this.#valid & ((1n << bank) - 1n));
    return (this.#banks[before]! >> BigInt(processor % BANK) & 1n) !== 0n;
  }
}

/** How many bits of a number are set. */
export function countBits(value: bigint): number {
  let count = 0;
  for (let rest = value; rest !== 0n; rest &= rest - 1n) count++;
  return count;
}
