import type { PortDevice } from "../bus.ts";
import { checkState, type DeviceState } from "./state.ts";

const REGISTER_A = 0x0a;
const REGISTER_B = 0x0b;
const REGISTER_C = 0x0c;
const REGISTER_D = 0x0d;
/** Bit of A: the time is about to change. */
const UPDATING = 0x80;
// Bits of B.
const HOURS_24 = 2;
const BINARY = 4;
const SET = 0x80;
// Bits of C, and of B where they enable.
const UPDATE_ENDED = 0x10;
const ALARM = 0x20;
const PERIODIC = 0x40;
const INTERRUPT = 0x80;
/** Milliseconds before a second in which the clock says that it is about to change: 2.2 in the chip. */
const UPDATE_TIME = 2;

function bcd(value: number): number {
  return (Math.floor(value / 10) << 4) | (value % 10);
}

/** Sources of time and the interrupt line of a {@linkcode Cmos}. */
export interface CmosWiring {
  /** The time of day. Default the host's. */
  date?: () => Date;
  /** Nanoseconds, monotonic, for the periodic interrupt. Default the host's. */
  now?: () => number;
  /** Told the level of interrupt line 8. */
  irq?: (level: boolean) => void;
}

/** The clock chip MC146818 with its memory: time of day, three interrupts, memory size, shutdown byte. */
export class Cmos implements PortDevice {
  readonly #bytes = new Uint8Array(128);
  readonly #date: () => Date;
  readonly #now: () => number;
  readonly #irq: (level: boolean) => void;
  #index = 0;
  /** Events since C was read. */
  #flags = 0;
  /** The second and the period that the flags tell of. */
  #second = 0;
  #period = 0;

  /** @param memorySize RAM in bytes, for the size fields that firmware leaves there. */
  constructor(memorySize: number, wiring: CmosWiring = {}) {
    this.#date = wiring.date ?? (() => new Date());
    this.#now = wiring.now ?? (() => performance.now() * 1e6);
    this.#irq = wiring.irq ?? (() => {});
    const below16 = Math.min(0x3c00, Math.max(0, (memorySize >>> 10) - 1024));
    const above16 = Math.min(
      0xffff,
      Math.max(0, Math.floor((memorySize - 0x100_0000) / 0x1_0000)),
    );
    this.#word(0x15, 640);
    this.#word(0x17, below16);
    this.#word(0x30, below16);
    this.#word(0x34, above16);
    this.reset();
  }

  #word(at: number, value: number): void {
    this.#bytes[at] = value & 255;
    this.#bytes[at + 1] = value >> 8;
  }

  /** Nanoseconds of the periodic interrupt, or Infinity (data sheet, table 5). */
  #periodLength(): number {
    const rate = this.#bytes[REGISTER_A]! & 15;
    if (rate === 0) return Infinity;
    return 2 ** ((rate < 3 ? rate + 7 : rate) - 1) * 1e9 / 32_768;
  }

  /** Notes what has happened since the last time, and interrupts for it. */
  update(): void {
    const second = Math.floor(this.#date().getTime() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      if ((this.#bytes[REGISTER_B]! & SET) === 0) {
        this.#flags |= UPDATE_ENDED | (this.#alarmNow() ? ALARM : 0);
      }
    }
    const period = Math.floor(this.#now() / this.#periodLength());
    if (period !== this.#period) {
      this.#period = period;
      this.#flags |= PERIODIC;
    }
    this.#interrupt();
  }

  #interrupt(): void {
    this.#irq((this.#flags & this.#enabled()) !== 0);
  }

  #enabled(): number {
    return this.#bytes[REGISTER_B]! & (UPDATE_ENDED | ALARM | PERIODIC);
  }

  /** Nanoseconds until there may be an interrupt; Infinity if there is none. */
  untilNext(): number {
    const enabled = this.#enabled();
    if ((this.#flags & enabled) !== 0) return Infinity;
    let left = Infinity;
    if ((enabled & (UPDATE_ENDED | ALARM)) !== 0) {
      left = (1000 - this.#milliseconds()) * 1e6;
    }
    if ((enabled & PERIODIC) !== 0) {
      const length = this.#periodLength();
      if (length < Infinity) {
        left = Math.min(left, length - this.#now() % length);
      }
    }
    return left;
  }

  #milliseconds(): number {
    const time = this.#date().getTime();
    return time - Math.floor(time / 1000) * 1000;
  }

  /** Alarm bytes from 0xC0 on match everything. */
  #alarmNow(): boolean {
    return [0, 2, 4].every((at) => {
      const alarm = this.#bytes[at + 1]!;
      return alarm >= 0xc0 || alarm === this.#time(at);
    });
  }

  /** Register B bit 1 clear: 1 to 12, and bit 7 for the afternoon. */
  #hours(hours: number, code: (value: number) => number): number {
    if ((this.#bytes[REGISTER_B]! & HOURS_24) !== 0) return code(hours);
    return code(hours % 12 || 12) | (hours >= 12 ? 0x80 : 0);
  }

  /** A register of the time, or -1. */
  #time(index: number): number {
    const date = this.#date();
    const binary = (this.#bytes[REGISTER_B]! & BINARY) !== 0;
    const code = (value: number): number => binary ? value : bcd(value);
    switch (index) {
      case 0:
        return code(date.getUTCSeconds());
      case 2:
        return code(date.getUTCMinutes());
      case 4:
        return this.#hours(date.getUTCHours(), code);
      case 6:
        return code(date.getUTCDay() + 1);
      case 7:
        return code(date.getUTCDate());
      case 8:
        return code(date.getUTCMonth() + 1);
      case 9:
        return code(date.getUTCFullYear() % 100);
      case 0x32:
        return bcd(Math.floor(date.getUTCFullYear() / 100));
      default:
        return -1;
    }
  }

  readPort(port: number): number {
    if ((port & 1) === 0) return 0xff;
    const index = this.#index;
    switch (index) {
      case REGISTER_A: {
        const updating = (this.#bytes[REGISTER_B]! & SET) === 0 &&
          this.#milliseconds() >= 1000 - UPDATE_TIME;
        return this.#bytes[index]! | (updating ? UPDATING : 0);
      }
      case REGISTER_C: {
        this.update();
        const flags = this.#flags;
        const asks = (flags & this.#enabled()) !== 0;
        this.#flags = 0;
        this.#irq(false);
        return flags | (asks ? INTERRUPT : 0);
      }
      case REGISTER_D:
        return 0x80;
      default: {
        const time = this.#time(index);
        return time >= 0 ? time : this.#bytes[index]!;
      }
    }
  }

  writePort(port: number, _size: number, value: number): void {
    const index = this.#index;
    if ((port & 1) === 0) {
      this.#index = value & 127;
      return;
    }
    // The time is the host's and stays so; between its registers are the alarm's.
    if (index < REGISTER_A && (index & 1) === 0 || index > 5 && index < 10) {
      return;
    }
    this.update();
    this.#bytes[index] = value & 255;
    if (index === REGISTER_A) {
      this.#bytes[index] = value & 127;
      this.#period = Math.floor(this.#now() / this.#periodLength());
    } else if (index === REGISTER_B) {
      if ((value & SET) !== 0) this.#bytes[index] = value & 0xef;
      this.#interrupt();
    }
  }

  /** Reset: the clock and its memory keep what they hold, interrupts are off. */
  reset(): void {
    this.#bytes[REGISTER_A] = 0x26;
    this.#bytes[REGISTER_B] = HOURS_24;
    this.#restart();
  }

  #restart(): void {
    this.#flags = 0;
    this.#second = Math.floor(this.#date().getTime() / 1000);
    this.#period = Math.floor(this.#now() / this.#periodLength());
    this.#irq(false);
  }

  /** Copies the state out. */
  save(): DeviceState {
    return {
      bytes: [...this.#bytes],
      index: this.#index,
      flags: this.#flags,
    };
  }

  /** Takes back what {@linkcode Cmos.save} gave. The time is that of the host where it comes back. */
  restore(state: unknown): void {
    const s = checkState("clock", state, {
      bytes: { length: 128, max: 255 },
      index: 127,
      flags: 0x70,
    });
    this.#bytes.set(s.bytes);
    this.#index = s.index;
    this.#restart();
    this.#flags = s.flags;
    this.#interrupt();
  }
}
