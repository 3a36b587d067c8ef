import type { CpuidEntry } from "../backend.ts";

/** The CPUID leaves of one vCPU, and the features the interpreter asks about often. */
export class CpuidTable {
  readonly #any = new Map<number, CpuidEntry>();
  readonly #sub = new Map<string, CpuidEntry>();
  readonly #maxBasic: number;
  readonly #maxExtended: number;
  /** The entries as they were given. */
  readonly entries: readonly CpuidEntry[];

  constructor(entries: readonly CpuidEntry[]) {
    this.entries = entries.map((entry) => ({ ...entry }));
    for (const entry of this.entries) {
      if (entry.subleaf === undefined) this.#any.set(entry.leaf, entry);
      else this.#sub.set(`${entry.leaf}:${entry.subleaf}`, entry);
    }
    this.#maxBasic = this.find(0, 0)?.eax ?? 0;
    this.#maxExtended = this.find(0x8000_0000, 0)?.eax ?? 0;
  }

  /** The entry for exactly this leaf, or undefined. Arguments are unsigned. */
  find(leaf: number, subleaf: number): CpuidEntry | undefined {
    return this.#any.get(leaf) ?? this.#sub.get(`${leaf}:${subleaf}`);
  }

  /**
   * What CPUID returns. A leaf above the highest of its range reads as zeros, as AMD processors do
   * (APM volume 3, CPUID); Intel would repeat the highest basic leaf.
   */
  query(leaf: number, subleaf: number): CpuidEntry | undefined {
    if (leaf < 0x4000_0000 && leaf > this.#maxBasic) return undefined;
    if (leaf >= 0x8000_0000 && leaf > this.#maxExtended) return undefined;
    return this.find(leaf, subleaf);
  }
}
