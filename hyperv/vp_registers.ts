/**
 * Synthetic MSRs that each virtual processor has for itself: the APIC shortcuts, the
 * SynIC and the synthetic timers, with the gates and checks of Linux arch/x86/kvm/hyperv.c. The
 * registers are kept; interrupts and messages are not delivered yet.
 *
 * @module
 */
import { MsrResult } from "../core/backend.ts";
import type { GuestMemory } from "../core/guest_memory.ts";
import { HvAccess, HvFeature } from "./defs/cpuid.ts";
import { HvMsr } from "./defs/msr.ts";
import type { Gates } from "./gates.ts";

// Word pairs in the registers of one virtual processor.
/** ICR, TPR and the assist page follow one another as their MSRs do. */
const ICR = 0;
const SCONTROL = 6;
const SIEFP = 8;
const SIMP = 10;
const SINT = 12;
const STIMER = 44;
const WORDS = 60;

const SINT_MASKED = 1 << 16;
const FIRST_VECTOR = 16;
const STIMER_ENABLE = 1;
const STIMER_AUTO_ENABLE = 8;
const STIMER_DIRECT = 1 << 12;

/** The registers of all virtual processors of a partition. */
export class VpRegisters {
  /** Whether there is a SynIC at all (KVM_CAP_HYPERV_SYNIC2). */
  synic = false;
  readonly #memory: GuestMemory;
  readonly #words: Int32Array;

  constructor(memory: GuestMemory, vcpus: number) {
    this.#memory = memory;
    this.#words = new Int32Array(WORDS * vcpus);
    this.reset();
  }

  /** All registers of all processors as after power-on. */
  reset(): void {
    for (let at = 0; at < this.#words.length; at += WORDS) this.#reset(at);
  }

  /** The registers of one processor as after power-on. */
  resetVcpu(vcpu: number): void {
    this.#reset(vcpu * WORDS);
  }

  #reset(at: number): void {
    this.#words.fill(0, at, at + WORDS);
    for (let n = 0; n < 16; n++) this.#words[at + SINT + 2 * n] = SINT_MASKED;
  }

  /** Copies all registers out. */
  save(): number[] {
    return [...this.#words];
  }

  /** Takes registers back; too few leave the others at reset. */
  restore(words: readonly number[]): void {
    this.reset();
    this.#words.set(words.slice(0, this.#words.length));
  }

  /** Reads a register. */
  read(
    vcpu: number,
    index: number,
    value: Uint32Array,
    gates: Gates,
    host: boolean,
  ): MsrResult {
    const at = this.#locate(index, gates, host);
    if (at === REFUSED) return MsrResult.Refused;
    if (at === UNKNOWN) return MsrResult.Unknown;
    if (at === NO_STORAGE) {
      // There is nothing to read in an end-of-interrupt register.
      if (index === HvMsr.Eoi && !host) return MsrResult.Refused;
      value[0] = index === HvMsr.Sversion ? 1 : 0;
      value[1] = 0;
      return MsrResult.Handled;
    }
    const word = vcpu * WORDS + at;
    value[0] = this.#words[word]!;
    value[1] = this.#words[word + 1]!;
    return MsrResult.Handled;
  }

  /** Writes a register. */
  write(
    vcpu: number,
    index: number,
    low: number,
    high: number,
    gates: Gates,
    host: boolean,
  ): MsrResult {
    const at = this.#locate(index, gates, host);
    if (at === REFUSED) return MsrResult.Refused;
    if (at === UNKNOWN) return MsrResult.Unknown;
    if (at === NO_STORAGE) {
      return index === HvMsr.Sversion && !host
        ? MsrResult.Refused
        : MsrResult.Handled;
    }
    if (!host && !this.#check(index, low, high, gates)) {
      return MsrResult.Refused;
    }
    const base = vcpu * WORDS;
    this.#words[base + at] = low;
    this.#words[base + at + 1] = high;
    if (
      !host && index >= HvMsr.Stimer0Config && index <= HvMsr.Stimer3Count
    ) {
      this.#timerWritten(base, index);
    }
    return MsrResult.Handled;
  }

  /** Where a register is kept, or why it is not to be had. */
  #locate(index: number, gates: Gates, host: boolean): number {
    let access: number;
    let at: number;
    let needsSynic = false;
    if (index >= HvMsr.Eoi && index <= HvMsr.VpAssistPage) {
      access = HvAccess.Apic;
      at = index === HvMsr.Eoi ? NO_STORAGE : 2 * (index - HvMsr.Icr) + ICR;
    } else if (index >= HvMsr.Scontrol && index <= HvMsr.Eom) {
      access = HvAccess.SynIc;
      needsSynic = true;
      at = index === HvMsr.Scontrol
        ? SCONTROL
        : index === HvMsr.Siefp
        ? SIEFP
        : index === HvMsr.Simp
        ? SIMP
        : NO_STORAGE;
    } else if (index >= HvMsr.Sint0 && index <= HvMsr.Sint15) {
      access = HvAccess.SynIc;
      needsSynic = true;
      at = SINT + 2 * (index - HvMsr.Sint0);
    } else if (index >= HvMsr.Stimer0Config && index <= HvMsr.Stimer3Count) {
      access = HvAccess.SynTimers;
      needsSynic = true;
      at = STIMER + 2 * (index - HvMsr.Stimer0Config);
    } else return UNKNOWN;
    if (
      !host && ((gates.access & access) === 0 || (needsSynic && !this.synic))
    ) return REFUSED;
    return at;
  }

  /** Checks of a value that the guest writes, with what the write does besides. */
  #check(index: number, low: number, high: number, gates: Gates): boolean {
    switch (index) {
      case HvMsr.VpAssistPage:
      case HvMsr.Siefp:
      case HvMsr.Simp:
        if ((low & 1) === 0) return true;
        return this.#clearPage(
          (high >>> 0) * 0x1_0000_0000 + ((low & -4096) >>> 0),
          index === HvMsr.VpAssistPage ? 4 : 4096,
        );
    }
    if (index >= HvMsr.Sint0 && index <= HvMsr.Sint15) {
      return (low & 0xff) >= FIRST_VECTOR || (low & SINT_MASKED) !== 0;
    }
    if (isTimerConfig(index) && (low & STIMER_DIRECT) !== 0) {
      return (gates.features & HvFeature.StimerDirect) !== 0;
    }
    return true;
  }

  #clearPage(gpa: number, bytes: number): boolean {
    if (!this.#memory.contains(gpa, bytes)) return false;
    this.#memory.fill(gpa, bytes);
    return true;
  }

  /** A timer without a place to signal is off; a count of 0 stops, another may start it. */
  #timerWritten(base: number, index: number): void {
    const words = this.#words;
    const at = base + STIMER + 4 * ((index - HvMsr.Stimer0Config) >> 1);
    const config = words[at]!;
    if (isTimerConfig(index)) {
      const sint = (config >>> 16) & 15;
      if ((config & STIMER_DIRECT) === 0 && sint === 0) {
        words[at] = config & ~STIMER_ENABLE;
      }
    } else if ((words[at + 2]! | words[at + 3]!) === 0) {
      words[at] = config & ~STIMER_ENABLE;
    } else if ((config & STIMER_AUTO_ENABLE) !== 0) {
      words[at] = config | STIMER_ENABLE;
    }
  }
}

function isTimerConfig(index: number): boolean {
  return index >= HvMsr.Stimer0Config && index <= HvMsr.Stimer3Count &&
    (index & 1) === 0;
}

const REFUSED = -1;
const UNKNOWN = -2;
/** A register that keeps nothing: it reads as a constant. */
const NO_STORAGE = -3;
