import type { PortDevice } from "../bus.ts";
import { checkState, type DeviceState } from "./state.ts";

/** Ticks of the power management timer a second (ACPI 6.5, 4.8.2.1). */
export const PM_TIMER_FREQUENCY = 3_579_545;
/** Offsets of its register blocks from its first port. */
export const PmBlock = { Event: 0, Control: 4, Timer: 8, Count: 12 } as const;
/** SLP_TYP of soft off, which \_S5 gives. */
export const SLEEP_OFF = 5;

const HALF = 2 ** 31;
const TIMER_STATUS = 1;
/** Enable bits that there are: timer, global lock, power and sleep button, clock. */
const ENABLE_MASK = 0x0721;
/** ACPI mode, which is never left. */
const SCI_ENABLE = 1;
/** Bits of the upper byte of PM1 control. */
const SLEEP_ENABLE = 0x20;
const SLEEP_TYPE_SHIFT = 2;

/** ACPI's fixed hardware: PM1 event and control registers, and a 32-bit timer (ACPI 6.5, 4.8.3). */
export class AcpiPm implements PortDevice {
  readonly #now: () => number;
  readonly #sci: (level: boolean) => void;
  readonly #off: () => void;
  #enable = 0;
  #control: number = SCI_ENABLE;
  #status = 0;
  /** The timer's count at time 0. */
  #offset = 0;
  /** Half turns of the timer that TMR_STS has told of. */
  #turns = 0;

  /**
   * @param now Nanoseconds, monotonic.
   * @param sci Told the level of the interrupt line.
   * @param off The guest switches the machine off.
   */
  constructor(
    now: () => number,
    sci: (level: boolean) => void,
    off: () => void,
  ) {
    this.#now = now;
    this.#sci = sci;
    this.#off = off;
    this.reset();
  }

  #ticks(): number {
    return this.#offset + Math.floor(this.#now() * PM_TIMER_FREQUENCY / 1e9);
  }

  /** Notes that the timer's highest bit has changed. */
  update(): void {
    const turns = Math.floor(this.#ticks() / HALF);
    if (turns === this.#turns) return;
    this.#turns = turns;
    this.#status |= TIMER_STATUS;
    this.#interrupt();
  }

  /** Nanoseconds until the timer interrupts; Infinity if it does not. */
  untilNext(): number {
    if ((this.#enable & ~this.#status & TIMER_STATUS) === 0) return Infinity;
    const left = (this.#turns + 1) * HALF - this.#ticks();
    return Math.max(0, left * 1e9 / PM_TIMER_FREQUENCY);
  }

  #interrupt(): void {
    this.#sci((this.#status & this.#enable) !== 0);
  }

  readPort(port: number, size: number): number {
    const at = port & 15;
    let word = this.#control;
    if (at < PmBlock.Control) {
      this.update();
      word = this.#status | (this.#enable << 16);
    } else if (at >= PmBlock.Timer) word = this.#ticks() % 2 ** 32;
    return Math.floor(word / 2 ** (8 * (at & 3))) % 2 ** (8 * size);
  }

  writePort(port: number, size: number, value: number): void {
    for (let n = 0; n < size; n++) {
      this.#writeByte((port & 15) + n, (value >>> (8 * n)) & 255);
    }
  }

  #writeByte(at: number, byte: number): void {
    const shift = 8 * (at & 1);
    switch (at) {
      case 0:
      case 1:
        this.update();
        this.#status &= ~(byte << shift);
        break;
      case 2:
      case 3:
        this.#enable = (this.#enable & ~(255 << shift)) |
          ((byte << shift) & ENABLE_MASK);
        break;
      case 5:
        if (
          (byte & SLEEP_ENABLE) !== 0 &&
          ((byte >> SLEEP_TYPE_SHIFT) & 7) === SLEEP_OFF
        ) this.#off();
        // SLP_EN reads as 0.
        this.#control = SCI_ENABLE | ((byte & ~SLEEP_ENABLE & 0x1c) << 8);
        return;
      default:
        return;
    }
    this.#interrupt();
  }

  /** State after power-on; the timer goes on. */
  reset(): void {
    this.#enable = 0;
    this.#control = SCI_ENABLE;
    this.#status = 0;
    this.#turns = Math.floor(this.#ticks() / HALF);
    this.#interrupt();
  }

  /** Copies the state out. */
  save(): DeviceState {
    return {
      enable: this.#enable,
      control: this.#control,
      status: this.#status,
      ticks: this.#ticks() % 2 ** 32,
    };
  }

  /** Takes back what {@linkcode AcpiPm.save} gave. */
  restore(state: unknown): void {
    const s = checkState("ACPI", state, {
      enable: ENABLE_MASK,
      control: 0x1c01,
      status: TIMER_STATUS,
      ticks: 2 ** 32 - 1,
    });
    this.#enable = s.enable & ENABLE_MASK;
    this.#control = s.control;
    this.#status = s.status;
    this.#offset += s.ticks - this.#ticks();
    this.#turns = Math.floor(this.#ticks() / HALF);
  }
}
