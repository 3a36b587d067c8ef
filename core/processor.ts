import type { Vcpu } from "./backend.ts";
import type { ApicWiring } from "./devices/lapic.ts";
import { checkState, type DeviceState } from "./devices/state.ts";

const IF = 512n;

/** What a processor does between runs. */
export const ProcessorActivity = {
  /** It has something to run. */
  Running: 0,
  /** It executed HLT: an interrupt or NMI wakes it. */
  Halted: 1,
  /** It waits for a startup IPI. */
  Startup: 2,
} as const;

/**
 * A vCPU of a machine, and what it waits for. Signals that change all of its state wait until it does
 * not run: {@linkcode Processor.takeSignals}.
 */
export class Processor
  implements Omit<ApicWiring, "endOfInterrupt" | "timerChanged"> {
  /** Executes the guest. */
  readonly vcpu: Vcpu;
  /** A run that has not come back, on another thread. */
  flight: Promise<void> | undefined;
  /** A debugger makes it wait. */
  held = false;
  readonly #onEvent: () => void;
  #activity: number;
  /** It halted with interrupts off. */
  #deaf = false;
  /** State of INTR. */
  #line = false;
  /** Something to wake up for came since the last run began. */
  #woken = false;
  #initPending = false;
  /** Vector of a startup IPI that waits, or -1. */
  #startup = -1;

  /** @param onEvent Told when it has got something to do, which may end a wait. */
  constructor(vcpu: Vcpu, onEvent: () => void) {
    this.vcpu = vcpu;
    this.#onEvent = onEvent;
    this.#activity = this.#first;
  }

  /** The bootstrap processor runs at once, the others wait (SDM volume 3A, 9.4.2). */
  get #first(): number {
    return this.vcpu.id === 0
      ? ProcessorActivity.Running
      : ProcessorActivity.Startup;
  }

  /** Whether it is to run now. */
  get ready(): boolean {
    return this.#activity === ProcessorActivity.Running &&
      this.flight === undefined && !this.held;
  }

  /** INIT or a startup IPI waits for {@linkcode Processor.takeSignals}. */
  get signalled(): boolean {
    return this.#initPending || this.#startup >= 0;
  }

  /** Whether an interrupt could make it run. */
  get wakeable(): boolean {
    return this.flight !== undefined ||
      this.#activity !== ProcessorActivity.Startup && !this.#deaf;
  }

  /** A run of the machine begins: its owner may have reset a halted vCPU or given it something else to do. */
  look(): void {
    this.vcpu.setInterruptRequest(this.#line);
    if (this.#activity === ProcessorActivity.Halted) {
      this.#activity = ProcessorActivity.Running;
    }
  }

  /** A debugger holds it, or lets it go: then it may have given it something else to do. */
  hold(held: boolean): void {
    if (this.held && !held) this.look();
    this.held = held;
  }

  /** A run begins. */
  begin(): void {
    this.#woken = false;
  }

  /** A run came back because of HLT. */
  halt(): void {
    if (this.#woken) return;
    this.#activity = ProcessorActivity.Halted;
    this.#deaf = (this.vcpu.getRegisters().rflags & IF) === 0n;
  }

  interrupt(asserted: boolean): void {
    if (asserted === this.#line) return;
    this.#line = asserted;
    this.vcpu.setInterruptRequest(asserted);
    if (asserted) this.#wake();
  }

  taskPriority(priority: number): void {
    this.vcpu.setTaskPriority(priority);
  }

  nmi(): void {
    if (this.#activity === ProcessorActivity.Startup) return;
    this.vcpu.injectNmi();
    this.#wake();
  }

  init(): void {
    this.#initPending = true;
    this.#startup = -1;
    this.#onEvent();
  }

  startup(vector: number): void {
    const waits = this.#activity === ProcessorActivity.Startup ||
      this.#initPending;
    if (!waits || this.#startup >= 0) return;
    this.#startup = vector;
    this.#onEvent();
  }

  #wake(): void {
    this.#woken = true;
    if (this.#activity === ProcessorActivity.Halted) {
      this.#activity = ProcessorActivity.Running;
    }
    this.#onEvent();
  }

  /**
   * Does what INIT and startup IPIs ask for. Not while it runs.
   *
   * @param onInit INIT was done to the vCPU, and is to be done to its local APIC.
   */
  takeSignals(onInit: () => void): void {
    if (this.#initPending) {
      this.#initPending = false;
      this.#line = false;
      this.vcpu.init();
      this.#activity = this.#first;
      onInit();
    }
    if (this.#startup >= 0) {
      if (this.#activity === ProcessorActivity.Startup) {
        this.vcpu.startup(this.#startup);
        this.#activity = ProcessorActivity.Running;
      }
      this.#startup = -1;
    }
  }

  /** State after power-on. */
  reset(): void {
    this.vcpu.reset();
    this.#line = false;
    this.#activity = this.#first;
    this.#initPending = false;
    this.#startup = -1;
  }

  /** Copies the state out, that of the vCPU not included. */
  save(): DeviceState {
    return {
      activity: this.#activity,
      deaf: this.#deaf,
      init: this.#initPending,
      startup: this.#startup + 1,
    };
  }

  /** Takes back what {@linkcode Processor.save} gave. */
  restore(state: unknown): void {
    const s = checkState("processor", state, {
      activity: ProcessorActivity.Startup,
      deaf: "switch",
      init: "switch",
      startup: 256,
    });
    this.#activity = s.activity;
    this.#deaf = s.deaf;
    this.#initPending = s.init;
    this.#startup = s.startup - 1;
    this.#line = false;
    this.vcpu.setInterruptRequest(false);
  }
}
