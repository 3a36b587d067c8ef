import { MsrResult } from "../core/backend.ts";
import type { GuestMemory } from "../core/guest_memory.ts";
import { type CrashReport, crashReport } from "./crash.ts";
import { HvMsr } from "./defs/msr.ts";
import { FIRST_VECTOR, PAGE_ENABLED } from "./defs/synic.ts";
import type { LocalApics } from "./local_apics.ts";
import type { ReferenceTime } from "./reference_time.ts";
import { pageOf, pair, put } from "./words.ts";

// The registers, two words each.
const OS_ID = 0;
const HYPERCALL = 2;
const REF_TSC = 4;
const CRASH = 6;
const REENLIGHTENMENT = 16;
const TSC_EMULATION = 18;
const TSC_EMULATION_STATUS = 20;
const TSC_INVARIANT = 22;
/** The debugger's: their gates and commands are the partition's own affair. */
export const SyndbgWord = {
  Control: 24,
  Status: 26,
  Send: 28,
  Recv: 30,
  Pending: 32,
  Options: 34,
} as const;
/** Words of all registers. */
export const PARTITION_WORDS = 36;

const CRASH_NOTIFY_HIGH = 0x8000_0000;
const CRASH_MESSAGE_HIGH = 0x4000_0000;
/** Bit 16 of REENLIGHTENMENT_CONTROL: the guest wants the interrupt. */
const REENLIGHTENMENT_ENABLED = 1 << 16;

/** What the partition-wide MSRs act on. */
export interface PartitionMsrSurroundings {
  memory: GuestMemory;
  time: ReferenceTime;
  tscFrequency: number;
  apicFrequency: number;
  /** What the hypercall page holds. */
  hypercallCode: Uint8Array;
  onReset: () => void;
  onCrash: (report: CrashReport) => void;
  onTscInvariant: () => void;
}

/** The MSRs that the whole partition shares, with the checks of Linux arch/x86/kvm/hyperv.c. */
export class PartitionMsrs {
  /** The registers, low and high words. */
  readonly words: Int32Array<ArrayBuffer> = new Int32Array(PARTITION_WORDS);
  readonly #around: PartitionMsrSurroundings;

  constructor(around: PartitionMsrSurroundings) {
    this.#around = around;
  }

  /** The guest has said who it is: there are hypercalls. */
  get identified(): boolean {
    return (this.words[OS_ID]! | this.words[OS_ID + 1]!) !== 0;
  }

  /** The guest has asked for the invariant TSC. */
  get tscInvariant(): boolean {
    return (this.words[TSC_INVARIANT]! & 1) !== 0;
  }

  /** Reads a register other than the debugger's. */
  read(index: number, value: Uint32Array): MsrResult {
    switch (index) {
      case HvMsr.GuestOsId:
        return this.#stored(OS_ID, value);
      case HvMsr.Hypercall:
        return this.#stored(HYPERCALL, value);
      case HvMsr.Reset:
        return put(value, 0n);
      case HvMsr.TimeRefCount:
        return put(value, this.#around.time.now());
      case HvMsr.ReferenceTsc:
        return this.#stored(REF_TSC, value);
      case HvMsr.TscFrequency:
        return put(value, BigInt(this.#around.tscFrequency));
      case HvMsr.ApicFrequency:
        return put(value, BigInt(this.#around.apicFrequency));
      case HvMsr.CrashCtl:
        value[0] = 0;
        value[1] = CRASH_NOTIFY_HIGH | CRASH_MESSAGE_HIGH;
        return MsrResult.Handled;
      case HvMsr.ReenlightenmentControl:
        return this.#stored(REENLIGHTENMENT, value);
      case HvMsr.TscEmulationControl:
        return this.#stored(TSC_EMULATION, value);
      case HvMsr.TscEmulationStatus:
        return this.#stored(TSC_EMULATION_STATUS, value);
      case HvMsr.TscInvariantControl:
        return this.#stored(TSC_INVARIANT, value);
    }
    return index >= HvMsr.CrashP0 && index <= HvMsr.CrashP4
      ? this.#stored(CRASH + 2 * (index - HvMsr.CrashP0), value)
      : MsrResult.Unknown;
  }

  /** Writes a register other than the debugger's. */
  write(index: number, low: number, high: number, host: boolean): MsrResult {
    switch (index) {
      case HvMsr.GuestOsId:
        this.#store(OS_ID, low, high);
        // Hypercalls end with the guest's identity (TLFS 3.13).
        if (!this.identified) this.words[HYPERCALL]! &= ~PAGE_ENABLED;
        return MsrResult.Handled;
      case HvMsr.Hypercall:
        return this.#setHypercallPage(low, high, host);
      case HvMsr.TimeRefCount:
      case HvMsr.TscFrequency:
      case HvMsr.ApicFrequency:
        return host ? MsrResult.Handled : MsrResult.Refused;
      case HvMsr.Reset:
        if ((low & 1) !== 0 && !host) this.#around.onReset();
        return MsrResult.Handled;
      case HvMsr.ReferenceTsc:
        this.#store(REF_TSC, low, high);
        this.fillReferencePage();
        return MsrResult.Handled;
      case HvMsr.CrashCtl:
        if (!host && (high & CRASH_NOTIFY_HIGH) !== 0) this.#crash(high);
        return MsrResult.Handled;
      case HvMsr.ReenlightenmentControl:
        return this.#store(REENLIGHTENMENT, low, high);
      case HvMsr.TscEmulationControl:
        return this.#store(TSC_EMULATION, low, high);
      case HvMsr.TscEmulationStatus:
        if (!host && (low | high) !== 0) return MsrResult.Refused;
        return this.#store(TSC_EMULATION_STATUS, low, high);
      case HvMsr.TscInvariantControl:
        if ((low & ~1) !== 0 || high !== 0) return MsrResult.Refused;
        // Once in use it stays.
        if (!host && low === 0 && this.tscInvariant) return MsrResult.Refused;
        this.#store(TSC_INVARIANT, low, high);
        if (low === 1) this.#around.onTscInvariant();
        return MsrResult.Handled;
    }
    return index >= HvMsr.CrashP0 && index <= HvMsr.CrashP4
      ? this.#store(CRASH + 2 * (index - HvMsr.CrashP0), low, high)
      : MsrResult.Unknown;
  }

  #stored(at: number, value: Uint32Array): MsrResult {
    value[0] = this.words[at]!;
    value[1] = this.words[at + 1]!;
    return MsrResult.Handled;
  }

  #store(at: number, low: number, high: number): MsrResult {
    this.words[at] = low;
    this.words[at + 1] = high;
    return MsrResult.Handled;
  }

  /** HYPERCALL: with bit 0 the page gets its code. */
  #setHypercallPage(low: number, high: number, host: boolean): MsrResult {
    if (!this.identified) return MsrResult.Handled;
    if ((low & PAGE_ENABLED) !== 0 && !host) {
      const { memory, hypercallCode: code } = this.#around;
      const gpa = pageOf(low, high);
      if (!memory.contains(gpa, code.length)) return MsrResult.Refused;
      memory.write(gpa, code);
    }
    return this.#store(HYPERCALL, low, high);
  }

  /** Brings the reference TSC page up to date, if the guest has one. */
  fillReferencePage(): void {
    const low = this.words[REF_TSC]!;
    if ((low & PAGE_ENABLED) === 0) return;
    const { memory, time } = this.#around;
    time.fillPage(memory, pageOf(low, this.words[REF_TSC + 1]!));
  }

  /**
   * Tells the guest that its TSC runs at another rate, if it asked to be told (TLFS 12.8): the interrupt goes
   * to the processor that it named. The TSC is not emulated at its old rate meanwhile, and
   * TSC_EMULATION_STATUS says so.
   */
  notifyTscChange(apics: LocalApics, vcpus: number): void {
    const low = this.words[REENLIGHTENMENT]!;
    const target = this.words[REENLIGHTENMENT + 1]! >>> 0;
    const vector = low & 0xff;
    if (
      (low & REENLIGHTENMENT_ENABLED) !== 0 && vector >= FIRST_VECTOR &&
      target < vcpus
    ) apics.interrupt(target, vector, false);
  }

  #crash(high: number): void {
    const p = (n: number): bigint =>
      pair(this.words[CRASH + 2 * n]!, this.words[CRASH + 2 * n + 1]!);
    this.#around.onCrash(
      crashReport(
        this.#around.memory,
        [p(0), p(1), p(2), p(3), p(4)],
        (high & CRASH_MESSAGE_HIGH) !== 0,
      ),
    );
  }
}
