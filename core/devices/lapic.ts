import {
  ApicRegister,
  MSR_APIC_BASE,
  MSR_TSC_DEADLINE,
  readable,
  WRITABLE,
  X2APIC_FIRST,
} from "./apic_registers.ts";
import {
  type ApicBus,
  BROADCAST,
  Delivery,
  wideDestination,
} from "./apic_bus.ts";
import { type ApicClock, ApicTimer } from "./apic_timer.ts";
import { checkState, type DeviceState } from "./state.ts";
import { clearVector, hasVector, highestVector, setVector } from "./vectors.ts";

/** Where every local APIC is after power-on. */
export const APIC_ADDRESS = 0xfee0_0000;

const R = ApicRegister;
const ISR = R.InService >> 4;
const TMR = R.TriggerMode >> 4;
const IRR = R.Request >> 4;
const PAGE = 0x1000;

// Bits of IA32_APIC_BASE (SDM volume 3A, 11.4.4).
const BASE_BSP = 0x100;
const BASE_X2APIC = 0x400;
const BASE_ENABLE = 0x800;
const BASE_RESERVED = 0x2ff;

/** Integrated APIC with six LVT entries (SDM volume 3A, 11.4.8). */
const VERSION = 0x0005_0014;
const MASKED = 0x1_0000;
const SOFTWARE_ENABLE = 0x100;
const LVT_LEVEL = 0x8000;

// Bits of ESR (SDM volume 3A, 11.5.3).
const SEND_ILLEGAL_VECTOR = 0x20;
const RECEIVE_ILLEGAL_VECTOR = 0x40;
const ILLEGAL_REGISTER = 0x80;

// Bits of ICR (SDM volume 3A, 11.6.1).
const ICR_LOGICAL = 0x800;
const ICR_ASSERT = 0x4000;
const ICR_LEVEL = 0x8000;

/** What a local APIC tells its processor and the rest of the machine. */
export interface ApicWiring {
  /** The level of the processor's INTR line. */
  interrupt(asserted: boolean): void;
  /** CR8 is now this, 0 to 15. */
  taskPriority(priority: number): void;
  /** A non-maskable interrupt. */
  nmi(): void;
  /** INIT. */
  init(): void;
  /** Startup IPI with its vector. */
  startup(vector: number): void;
  /** The guest has ended an interrupt. */
  endOfInterrupt(vector: number, level: boolean): void;
  /** The timer's next time has changed: nanoseconds until then, or Infinity. */
  timerChanged(until: number): void;
}

/** The local APIC of one processor: xAPIC and x2APIC (SDM volume 3A, chapter 11). */
export class LocalApic {
  /** The number of the vCPU, and the APIC ID: 0 to 254. */
  readonly id: number;
  readonly #bus: ApicBus;
  readonly #wiring: ApicWiring;
  readonly #timer: ApicTimer;
  /** The registers that hold what they were set to, by offset / 16. */
  readonly #r = new Uint32Array(64);
  /** Vectors that do not go into ISR when they are acknowledged. */
  readonly #auto = new Uint32Array(8);
  /** Errors since ESR was written. */
  #errors = 0;
  #baseLow = 0;
  #baseHigh = 0;
  /** Guest-physical address of the page, or -1 if it has none. */
  #page = -1;
  /** The line from the PIC pair. */
  #lint0 = false;

  /** Makes one in its state after power-on; who makes it puts it on the bus. */
  constructor(id: number, bus: ApicBus, clock: ApicClock, wiring: ApicWiring) {
    this.id = id;
    this.#bus = bus;
    this.#wiring = wiring;
    this.#timer = new ApicTimer(
      clock,
      () => this.#deliverLocal(R.LvtTimer),
      (until) => wiring.timerChanged(until),
    );
    this.reset();
  }

  // State of the whole. ------------------------------------------------------------

  /** State after power-on: enabled at its usual place, in xAPIC mode, switched off by software. */
  reset(): void {
    this.#lint0 = false;
    this.#setBase(
      APIC_ADDRESS | BASE_ENABLE | (this.id === 0 ? BASE_BSP : 0),
      0,
    );
    this.init();
  }

  /** INIT: all but IA32_APIC_BASE is as after power-on (SDM volume 3A, 11.4.7.3). */
  init(): void {
    this.#r.fill(0);
    this.#auto.fill(0);
    this.#errors = 0;
    for (let at = R.LvtTimer; at <= R.LvtError; at += 16) {
      this.#r[at >> 4] = MASKED;
    }
    this.#r[R.Version >> 4] = VERSION;
    this.#r[R.DestinationFormat >> 4] = 0xffff_ffff;
    this.#r[R.Spurious >> 4] = 0xff;
    this.#identify();
    this.#timer.reset();
    this.#wiring.taskPriority(0);
    this.#evaluate();
  }

  /**
   * As firmware leaves it for an operating system: switched on, the PIC pair's interrupts go
   * through (MultiProcessor Specification 1.4, 3.6.2.2).
   */
  setVirtualWire(): void {
    this.#r[R.Spurious >> 4] = 0x1ff;
    this.#r[R.LvtLint0 >> 4] = Delivery.ExtInt << 8;
    this.#r[R.LvtLint1 >> 4] = Delivery.Nmi << 8;
    this.#evaluate();
  }

  /** Whether it takes interrupts: enabled in IA32_APIC_BASE and by software. */
  get enabled(): boolean {
    return (this.#baseLow & BASE_ENABLE) !== 0 &&
      (this.#r[R.Spurious >> 4]! & SOFTWARE_ENABLE) !== 0;
  }

  get #x2apic(): boolean {
    return (this.#baseLow & BASE_X2APIC) !== 0;
  }

  /** ID and, in x2APIC mode, the logical destination, which follows from it. */
  #identify(): void {
    this.#r[R.Id >> 4] = this.#x2apic ? this.id : this.id << 24;
    if (this.#x2apic) {
      this.#r[R.LogicalDestination >> 4] = ((this.id >> 4) << 16) |
        (1 << (this.id & 15));
    }
  }

  #setBase(low: number, high: number): void {
    this.#baseLow = low >>> 0;
    this.#baseHigh = high;
    this.#page = (low & (BASE_ENABLE | BASE_X2APIC)) === BASE_ENABLE
      ? high * 0x1_0000_0000 + ((low & -PAGE) >>> 0)
      : -1;
  }

  // Interrupts. --------------------------------------------------------------------

  /** The processor's priority: what has a lower or the same class waits. */
  get processorPriority(): number {
    const task = this.#r[R.TaskPriority >> 4]!;
    const service = Math.max(0, highestVector(this.#r, ISR)) & 0xf0;
    return (task & 0xf0) >= service ? task : service;
  }

  /** Whether the PIC pair interrupts now, past all priorities. */
  get externalInterrupt(): boolean {
    if (!this.#lint0) return false;
    const mode = this.#r[R.LvtLint0 >> 4]! & (MASKED | 0x700);
    return (this.#baseLow & BASE_ENABLE) === 0 ||
      mode === Delivery.ExtInt << 8;
  }

  #requested(): number {
    if ((this.#baseLow & BASE_ENABLE) === 0) return -1;
    const vector = highestVector(this.#r, IRR);
    return vector >> 4 > this.processorPriority >> 4 ? vector : -1;
  }

  #evaluate(): void {
    this.#wiring.interrupt(this.externalInterrupt || this.#requested() >= 0);
  }

  /** The processor takes the interrupt with the highest priority: its vector, or -1 for none. */
  acknowledge(): number {
    const vector = this.#requested();
    if (vector >= 0) {
      clearVector(this.#r, IRR, vector);
      if (hasVector(this.#auto, 0, vector)) clearVector(this.#auto, 0, vector);
      else setVector(this.#r, ISR, vector);
    }
    this.#evaluate();
    return vector;
  }

  /** The guest ends the interrupt in service. */
  endOfInterrupt(): void {
    const vector = highestVector(this.#r, ISR);
    if (vector < 0) return;
    clearVector(this.#r, ISR, vector);
    this.#evaluate();
    this.#wiring.endOfInterrupt(vector, hasVector(this.#r, TMR, vector));
  }

  /** CR8 was written. */
  setTaskPriority(priority: number): void {
    this.#r[R.TaskPriority >> 4] = (priority & 15) << 4;
    this.#evaluate();
  }

  /**
   * Makes a vector pending.
   *
   * @param autoEoi It does not go into service when it is acknowledged.
   * @returns Whether it was taken.
   */
  request(vector: number, level: boolean, autoEoi = false): boolean {
    if (!this.enabled) return false;
    if (vector < 16) {
      this.#fail(RECEIVE_ILLEGAL_VECTOR);
      return false;
    }
    setVector(this.#r, IRR, vector);
    (level ? setVector : clearVector)(this.#r, TMR, vector);
    (autoEoi ? setVector : clearVector)(this.#auto, 0, vector);
    this.#evaluate();
    return true;
  }

  /** Takes a message from the bus; whether it could. */
  receive(mode: number, vector: number, level: boolean): boolean {
    if ((this.#baseLow & BASE_ENABLE) === 0) return false;
    switch (mode) {
      case Delivery.Fixed:
      case Delivery.LowestPriority:
        return this.request(vector, level);
      case Delivery.Nmi:
        this.#wiring.nmi();
        return true;
      case Delivery.Init:
        this.#wiring.init();
        return true;
      case Delivery.Startup:
        this.#wiring.startup(vector);
        return true;
      default:
        return false;
    }
  }

  /** Whether a destination means this one (SDM volume 3A, 11.6.2). */
  matches(destination: number, logical: boolean): boolean {
    if (destination === BROADCAST) return true;
    if (!logical) return destination === this.id;
    const own = this.#r[R.LogicalDestination >> 4]!;
    if (this.#x2apic) {
      return destination >>> 16 === own >>> 16 &&
        (destination & own & 0xffff) !== 0;
    }
    const mda = destination & 0xff;
    const bits = own >>> 24;
    if (this.#r[R.DestinationFormat >> 4]! >>> 28 === 15) {
      return (mda & bits) !== 0;
    }
    return (mda >> 4 === 15 || mda >> 4 === bits >> 4) &&
      (mda & bits & 15) !== 0;
  }

  /** Sets the line from the PIC pair. */
  setLint0(high: boolean): void {
    const rises = high && !this.#lint0;
    this.#lint0 = high;
    if (rises) this.#deliverLocal(R.LvtLint0);
    this.#evaluate();
  }

  /** A local source fires. ExtINT of LINT0 is a level, which {@linkcode externalInterrupt} gives. */
  #deliverLocal(register: number): void {
    const entry = this.#r[register >> 4]!;
    if ((entry & MASKED) !== 0) return;
    const hasMode = register !== R.LvtTimer && register !== R.LvtError;
    const mode = hasMode ? (entry >> 8) & 7 : Delivery.Fixed;
    if (mode === Delivery.Fixed || mode === Delivery.Nmi) {
      this.receive(mode, entry & 0xff, hasMode && (entry & LVT_LEVEL) !== 0);
    }
  }

  /** Notes an error; one that is not noted yet interrupts. */
  #fail(error: number): void {
    if ((this.#errors & error) !== 0) return;
    this.#errors |= error;
    this.#deliverLocal(R.LvtError);
  }

  /** ICR was written: sends the message (SDM volume 3A, 11.6.1). */
  #send(): void {
    const command = this.#r[R.Command >> 4]!;
    const high = this.#r[R.CommandHigh >> 4]!;
    const vector = command & 0xff;
    const mode = (command >> 8) & 7;
    const level = (command & ICR_LEVEL) !== 0;
    const fixed = mode === Delivery.Fixed || mode === Delivery.LowestPriority;
    if (fixed && vector < 16) {
      this.#fail(SEND_ILLEGAL_VECTOR);
      return;
    }
    // INIT level de-assert does nothing on processors of today.
    if (mode === Delivery.Init && level && (command & ICR_ASSERT) === 0) return;
    switch ((command >> 18) & 3) {
      case 0: {
        const logical = (command & ICR_LOGICAL) !== 0;
        const destination = this.#x2apic ? high : wideDestination(high >>> 24);
        this.#bus.send(destination, logical, mode, vector, false);
        break;
      }
      case 1:
        // Only fixed interrupts can be sent so.
        if (fixed) this.request(vector, false);
        break;
      case 2:
        this.#bus.send(BROADCAST, false, mode, vector, false);
        break;
      default:
        this.#bus.send(BROADCAST, false, mode, vector, false, this.id);
    }
  }

  // Time. --------------------------------------------------------------------------

  /** Interrupts if the timer's time has come. */
  update(): void {
    this.#timer.update();
  }

  /** Nanoseconds until the timer fires; Infinity if it does not. */
  untilNext(): number {
    return this.#timer.untilNext();
  }

  // Registers. ---------------------------------------------------------------------

  /** Reads the register at an offset of a multiple of 16; reserved and write-only ones give 0. */
  readRegister(offset: number): number {
    switch (offset) {
      case R.ProcessorPriority:
        return this.processorPriority;
      case R.CurrentCount:
        return this.#timer.count;
      default:
        return readable(offset) ? this.#r[offset >> 4]! : 0;
    }
  }

  /** Writes the register at an offset of a multiple of 16; reserved bits are dropped. */
  writeRegister(offset: number, value: number): void {
    const at = offset >> 4;
    const bits = (value & WRITABLE[at & 63]!) >>> 0;
    switch (offset) {
      case R.TaskPriority:
        this.#r[at] = bits;
        this.#wiring.taskPriority(bits >> 4);
        this.#evaluate();
        break;
      case R.EndOfInterrupt:
        this.endOfInterrupt();
        break;
      case R.LogicalDestination:
        if (!this.#x2apic) this.#r[at] = bits;
        break;
      case R.DestinationFormat:
        this.#r[at] = bits | 0x0fff_ffff;
        break;
      case R.Spurious:
        this.#r[at] = bits;
        if ((bits & SOFTWARE_ENABLE) === 0) {
          for (let lvt = R.LvtTimer >> 4; lvt <= R.LvtError >> 4; lvt++) {
            this.#r[lvt] = this.#r[lvt]! | MASKED;
          }
          this.#evaluate();
        }
        break;
      case R.ErrorStatus:
        this.#r[at] = this.#errors;
        this.#errors = 0;
        break;
      case R.Command:
        this.#r[at] = bits;
        this.#send();
        break;
      case R.CommandHigh:
        this.#r[at] = bits;
        break;
      case R.LvtTimer:
      case R.LvtThermal:
      case R.LvtPerformance:
      case R.LvtLint0:
      case R.LvtLint1:
      case R.LvtError:
        // What is due already is so by the old entry.
        if (offset === R.LvtTimer) this.#timer.update();
        this.#r[at] = this.enabled ? bits : bits | MASKED;
        if (offset === R.LvtTimer) this.#timer.setMode((bits >> 17) & 3);
        else if (offset === R.LvtLint0) this.#evaluate();
        break;
      case R.InitialCount:
        this.#r[at] = bits;
        this.#timer.setInitial(bits);
        break;
      case R.Divide:
        this.#r[at] = bits;
        this.#timer.setDivide(bits);
        break;
    }
  }

  // Its page, in xAPIC mode. ---------------------------------------------------------

  /** Whether an address is in the page of registers. */
  decodes(gpa: number): boolean {
    return this.#page >= 0 && gpa >= this.#page && gpa < this.#page + PAGE;
  }

  /** Reads from the page: registers are 4 bytes every 16, between them are zeros. */
  readMmio(gpa: number, data: Uint8Array): void {
    const offset = gpa - this.#page;
    const value = this.#reach(offset & ~15)
      ? this.readRegister(offset & ~15)
      : 0;
    for (let n = 0; n < data.length; n++) {
      const byte = (offset & 15) + n;
      data[n] = byte < 4 ? value >>> (8 * byte) : 0;
    }
  }

  /** Writes to the page; what is not one aligned register is lost (SDM volume 3A, 11.4.1). */
  writeMmio(gpa: number, data: Uint8Array): void {
    const offset = gpa - this.#page;
    if (
      (offset & 15) !== 0 || data.length !== 4 || !this.#reach(offset)
    ) return;
    const value = data[0]! | (data[1]! << 8) | (data[2]! << 16) |
      (data[3]! << 24);
    // In the page the upper 24 bits of the destination are reserved.
    this.writeRegister(
      offset,
      offset === R.CommandHigh ? value & 0xff00_0000 : value,
    );
  }

  /** Whether there is a register; if not, that is an error for ESR. */
  #reach(offset: number): boolean {
    if (
      offset < 0x400 && offset !== R.SelfIpi &&
      (readable(offset) || offset === R.EndOfInterrupt)
    ) return true;
    this.#fail(ILLEGAL_REGISTER);
    return false;
  }

  // MSRs. --------------------------------------------------------------------------

  /** RDMSR of an MSR of the local APIC; false is #GP. */
  readMsr(index: number, value: Uint32Array): boolean {
    value[0] = 0;
    value[1] = 0;
    switch (index) {
      case MSR_APIC_BASE:
        value[0] = this.#baseLow;
        value[1] = this.#baseHigh;
        return true;
      case MSR_TSC_DEADLINE: {
        const { deadline } = this.#timer;
        value[0] = Number(deadline & 0xffff_ffffn);
        value[1] = Number(deadline >> 32n);
        return true;
      }
    }
    const offset = (index - X2APIC_FIRST) << 4;
    if (
      !this.#x2apic || !readable(offset) || offset === R.DestinationFormat ||
      offset === R.CommandHigh
    ) return false;
    value[0] = this.readRegister(offset);
    if (offset === R.Command) value[1] = this.#r[R.CommandHigh >> 4]!;
    return true;
  }

  /** WRMSR of an MSR of the local APIC; false is #GP. */
  writeMsr(index: number, low: number, high: number): boolean {
    switch (index) {
      case MSR_APIC_BASE:
        return this.#writeBase(low, high);
      case MSR_TSC_DEADLINE:
        this.#timer.setDeadline(BigInt(high >>> 0) << 32n | BigInt(low >>> 0));
        return true;
    }
    if (!this.#x2apic) return false;
    const offset = (index - X2APIC_FIRST) << 4;
    if (offset === R.Command) {
      if ((low & ~WRITABLE[offset >> 4]!) !== 0) return false;
      this.#r[R.CommandHigh >> 4] = high;
      this.writeRegister(offset, low);
      return true;
    }
    if (high !== 0) return false;
    switch (offset) {
      case R.EndOfInterrupt:
      case R.ErrorStatus:
        if (low !== 0) return false;
        break;
      case R.SelfIpi:
        if ((low & ~0xff) !== 0) return false;
        if (low >= 16) this.request(low, false);
        else this.#fail(SEND_ILLEGAL_VECTOR);
        return true;
      case R.LogicalDestination:
      case R.DestinationFormat:
      case R.CommandHigh:
        return false;
      default: {
        const bits = offset < 0x400 ? WRITABLE[offset >> 4]! : 0;
        if (bits === 0 || (low & ~bits) !== 0) return false;
      }
    }
    this.writeRegister(offset, low);
    return true;
  }

  /** The states of SDM volume 3A, figure 11-27: x2APIC mode is only left by switching off. */
  #writeBase(low: number, high: number): boolean {
    const bits = BASE_ENABLE | BASE_X2APIC;
    const from = this.#baseLow & bits, to = low & bits;
    if (
      (low & BASE_RESERVED) !== 0 || high >>> 20 !== 0 ||
      to === BASE_X2APIC || (from === bits && to === BASE_ENABLE) ||
      (from === 0 && to === bits)
    ) return false;
    this.#setBase(low, high);
    if (to === 0 && from !== 0) this.init();
    else if (to !== from) this.#identify();
    this.#evaluate();
    return true;
  }

  // Saving. ------------------------------------------------------------------------

  /** Copies the state out. */
  save(): DeviceState {
    return {
      base: [this.#baseLow, this.#baseHigh],
      registers: [...this.#r],
      auto: [...this.#auto],
      errors: this.#errors,
      lint0: this.#lint0,
      timer: this.#timer.save(),
    };
  }

  /** Takes back what {@linkcode LocalApic.save} gave. */
  restore(state: unknown): void {
    const s = checkState("local APIC", state, {
      base: { length: 2, max: 0xffff_ffff },
      registers: { length: 64, max: 0xffff_ffff },
      auto: { length: 8, max: 0xffff_ffff },
      errors: 0xff,
      lint0: "switch",
    });
    this.#timer.restore((state as DeviceState)["timer"]);
    this.#setBase(s.base[0]!, s.base[1]! & 0xf_ffff);
    this.#r.set(s.registers);
    // No vector below 16 was ever taken.
    for (const set of [ISR, TMR, IRR]) this.#r[set] = this.#r[set]! & ~0xffff;
    this.#auto.set(s.auto);
    this.#errors = s.errors;
    this.#lint0 = s.lint0;
    this.#evaluate();
  }
}
