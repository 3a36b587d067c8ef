import { MsrResult } from "../core/backend.ts";
import type { GuestMemory } from "../core/guest_memory.ts";
import { ApicRegister } from "./defs/apic.ts";
import { HvFeature } from "./defs/cpuid.ts";
import { HvMsr } from "./defs/msr.ts";
import { PAGE_ENABLED, SINTS, StimerConfig } from "./defs/synic.ts";
import type { Gates } from "./gates.ts";
import type { LocalApics } from "./local_apics.ts";
import { Synic, SYNIC_WORDS } from "./synic.ts";
import {
  areTimers,
  SyntheticTimers,
  type TimerState,
} from "./synthetic_timers.ts";
import { isWords, pageOf, pair, put } from "./words.ts";

/** What the virtual processors of a partition share. */
export interface ProcessorSurroundings {
  memory: GuestMemory;
  /** What the processor's CPUID opens; changes with the leaves. */
  gates: Gates;
  /** Absent: the machine has none. */
  apics: LocalApics | undefined;
  /** There is a SynIC with timers. */
  synic: boolean;
  /** Reference time in units of 100 ns. */
  now: () => bigint;
  /** How long a processor has run, in units of 100 ns. */
  runTime: (vcpu: number) => bigint;
  /** The guest is done with a SINT's message or interrupt. */
  onSintEnd: ((vcpu: number, sint: number) => void) | undefined;
}

/** The registers of a virtual processor as plain data. */
export interface ProcessorState {
  /** VP_ASSIST_PAGE: low and high word. */
  assistPage: [number, number];
  /** VP_RUNTIME, units of 100 ns. */
  runTime: bigint;
  /** The SynIC's registers, low and high words. */
  synic: number[];
  /** The synthetic timers. */
  timers: TimerState[];
}

/**
 * What each virtual processor has for itself: the shortcuts to its local APIC, the assist page, the
 * SynIC and the timers, with the checks of Linux arch/x86/kvm/hyperv.c.
 */
export class VirtualProcessor {
  /** Its synthetic interrupt controller. */
  readonly synic: Synic;
  /** Its timers. */
  readonly timers: SyntheticTimers;
  readonly #index: number;
  readonly #around: ProcessorSurroundings;
  #assistLow = 0;
  #assistHigh = 0;
  /** Added to the time that it has run. */
  #runTimeOffset = 0n;

  constructor(index: number, around: ProcessorSurroundings) {
    const interrupt = (vector: number, autoEoi: boolean): void =>
      around.apics?.interrupt(index, vector, autoEoi);
    this.#index = index;
    this.#around = around;
    this.synic = new Synic(around.memory, interrupt);
    this.timers = new SyntheticTimers({
      now: around.now,
      synic: this.synic,
      interrupt: (vector) => interrupt(vector, false),
    });
    this.#setRunTime(0n);
  }

  /** Everything as after power-on. */
  reset(): void {
    this.#assistLow = 0;
    this.#assistHigh = 0;
    this.#setRunTime(0n);
    this.synic.reset();
    this.timers.reset();
  }

  /** Copies the state out. */
  save(): ProcessorState {
    return {
      assistPage: [this.#assistLow, this.#assistHigh],
      runTime: this.#runTime(),
      synic: this.synic.save(),
      timers: this.timers.save(),
    };
  }

  /** Takes state back that {@linkcode isProcessor} has looked at. */
  restore(state: ProcessorState): void {
    [this.#assistLow, this.#assistHigh] = state.assistPage;
    this.#setRunTime(state.runTime);
    this.synic.restore(state.synic);
    this.timers.restore(state.timers);
  }

  #runTime(): bigint {
    return this.#around.runTime(this.#index) + this.#runTimeOffset;
  }

  #setRunTime(time: bigint): void {
    this.#runTimeOffset = time - this.#around.runTime(this.#index);
  }

  /** Reads a register. */
  read(index: number, value: Uint32Array, host: boolean): MsrResult {
    switch (index) {
      case HvMsr.VpIndex:
        return put(value, BigInt(this.#index));
      case HvMsr.VpRuntime:
        return put(value, this.#runTime());
      case HvMsr.Icr: {
        const { apics } = this.#around;
        if (apics === undefined) return MsrResult.Refused;
        value[0] = apics.read(this.#index, ApicRegister.InterruptCommandLow);
        value[1] = apics.read(this.#index, ApicRegister.InterruptCommandHigh);
        return MsrResult.Handled;
      }
      case HvMsr.Tpr: {
        const { apics } = this.#around;
        if (apics === undefined) return MsrResult.Refused;
        value[0] = apics.read(this.#index, ApicRegister.TaskPriority);
        value[1] = 0;
        return MsrResult.Handled;
      }
      case HvMsr.Eoi:
        // There is nothing to read.
        return MsrResult.Refused;
      case HvMsr.VpAssistPage:
        value[0] = this.#assistLow;
        value[1] = this.#assistHigh;
        return MsrResult.Handled;
      case HvMsr.Eom:
        if (!host && !this.#around.synic) return MsrResult.Refused;
        value[0] = 0;
        value[1] = 0;
        return MsrResult.Handled;
    }
    const synic = isSynic(index);
    if (!synic && !isTimer(index)) return MsrResult.Unknown;
    if (!host && !this.#around.synic) return MsrResult.Refused;
    if (synic) return this.synic.read(index, value);
    const timer = (index - HvMsr.Stimer0Config) >> 1;
    if ((index & 1) !== 0) return put(value, this.timers.count(timer));
    const [low, high] = this.timers.config(timer);
    value[0] = low;
    value[1] = high;
    return MsrResult.Handled;
  }

  /** Writes a register. */
  write(index: number, low: number, high: number, host: boolean): MsrResult {
    switch (index) {
      case HvMsr.VpIndex:
        return host ? MsrResult.Handled : MsrResult.Refused;
      case HvMsr.VpRuntime:
        if (!host) return MsrResult.Refused;
        this.#setRunTime(pair(low, high));
        return MsrResult.Handled;
      case HvMsr.Eoi:
      case HvMsr.Icr:
      case HvMsr.Tpr:
        return this.#writeApic(index, low, high);
      case HvMsr.VpAssistPage:
        return this.#setAssistPage(low, high, host);
      case HvMsr.Eom:
        if (!host && !this.#around.synic) return MsrResult.Refused;
        for (let sint = 0; sint < SINTS; sint++) this.#sintEnded(sint);
        return MsrResult.Handled;
    }
    const synic = isSynic(index);
    if (!synic && !isTimer(index)) return MsrResult.Unknown;
    if (!host && !this.#around.synic) return MsrResult.Refused;
    if (synic) return this.synic.write(index, low, high, host);
    const timer = (index - HvMsr.Stimer0Config) >> 1;
    if ((index & 1) !== 0) {
      this.timers.setCount(timer, pair(low, high), host);
      return MsrResult.Handled;
    }
    if (
      !host && (low & StimerConfig.Direct) !== 0 &&
      (this.#around.gates.features & HvFeature.StimerDirect) === 0
    ) return MsrResult.Refused;
    this.timers.setConfig(timer, low | 0, high | 0);
    return MsrResult.Handled;
  }

  #writeApic(index: number, low: number, high: number): MsrResult {
    const { apics } = this.#around;
    if (apics === undefined) return MsrResult.Refused;
    switch (index) {
      case HvMsr.Eoi:
        apics.endOfInterrupt(this.#index);
        break;
      case HvMsr.Icr:
        apics.write(this.#index, ApicRegister.InterruptCommandHigh, high);
        apics.write(this.#index, ApicRegister.InterruptCommandLow, low);
        break;
      default:
        apics.write(this.#index, ApicRegister.TaskPriority, low & 0xff);
    }
    return MsrResult.Handled;
  }

  /** Of the page only the first word is the hypervisor's: it begins as 0. */
  #setAssistPage(low: number, high: number, host: boolean): MsrResult {
    if ((low & PAGE_ENABLED) !== 0 && !host) {
      const { memory } = this.#around;
      const page = pageOf(low, high);
      if (!memory.contains(page, 4)) return MsrResult.Refused;
      memory.writeU32(page, 0);
    }
    this.#assistLow = low | 0;
    this.#assistHigh = high | 0;
    return MsrResult.Handled;
  }

  /** The guest has ended an interrupt: what waits for its SINTs goes on. */
  interruptEnded(vector: number): void {
    if (!this.timers.waiting && this.#around.onSintEnd === undefined) return;
    for (let sint = 0; sint < SINTS; sint++) {
      if (this.synic.signals(sint, vector)) this.#sintEnded(sint);
    }
  }

  #sintEnded(sint: number): void {
    this.timers.slotFreed(sint);
    this.#around.onSintEnd?.(this.#index, sint);
  }
}

function isSynic(index: number): boolean {
  return (index >= HvMsr.Scontrol && index <= HvMsr.Simp) ||
    (index >= HvMsr.Sint0 && index <= HvMsr.Sint15);
}

function isTimer(index: number): boolean {
  return index >= HvMsr.Stimer0Config && index <= HvMsr.Stimer3Count;
}

/** Whether a value is the state of a virtual processor. */
export function isProcessor(value: unknown): value is ProcessorState {
  const state = value as Partial<ProcessorState> | null | undefined;
  return isWords(state?.assistPage, 2) && typeof state?.runTime === "bigint" &&
    isWords(state.synic, SYNIC_WORDS) && areTimers(state.timers);
}
