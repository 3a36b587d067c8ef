import type { PortDevice } from "../bus.ts";
import { checkState, type DeviceState } from "./state.ts";

/** Fields of a {@linkcode Chip}, and what they may be. */
const CHIP_STATE = {
  base: 0xf8,
  mask: 255,
  requests: 255,
  service: 255,
  level: 255,
  lowest: 7,
  lines: 255,
  init: 3,
  icw4: "switch",
  single: "switch",
  autoEoi: "switch",
  rotateOnAuto: "switch",
  special: "switch",
  nested: "switch",
  readService: "switch",
  poll: "switch",
} as const;

/** One 8259A (Intel 8259A data sheet). */
class Chip {
  /** Vector of input 0. */
  base = 0;
  mask = 0xff;
  requests = 0;
  service = 0;
  /** Inputs that are level-triggered. */
  level = 0;
  /** Input with the lowest priority. */
  lowest = 7;
  lines = 0;
  init = 0;
  icw4 = false;
  single = false;
  autoEoi = false;
  rotateOnAuto = false;
  special = false;
  nested = false;
  readService = false;
  poll = false;

  /** Power-on state; the lines stay as they are. */
  reset(): void {
    Object.assign(this, new Chip(), { lines: this.lines });
  }

  restore(state: unknown): void {
    Object.assign(this, checkState("interrupt controller", state, CHIP_STATE));
  }

  setLine(n: number, high: boolean): void {
    const bit = 1 << n;
    if (high) {
      if ((this.lines & bit) === 0 || (this.level & bit) !== 0) {
        this.requests |= bit;
      }
      this.lines |= bit;
    } else {
      this.lines &= ~bit;
      // An edge that was not taken goes with its line, as on the real chip.
      this.requests &= ~bit;
    }
  }

  /**
   * The input that would interrupt now, or -1.
   *
   * @param cascade Bit of the input that another chip is on.
   */
  pending(cascade = 0): number {
    const waiting = this.requests & ~this.mask;
    if (waiting === 0) return -1;
    const blocking = this.#serving() & ~(this.nested ? cascade : 0);
    for (let k = 1; k <= 8; k++) {
      const n = (this.lowest + k) & 7;
      const bit = 1 << n;
      if ((blocking & bit) !== 0) return -1;
      if ((waiting & bit) !== 0) return n;
    }
    return -1;
  }

  /** Levels in service that count: in special mask mode those that are not masked. */
  #serving(): number {
    return this.service & ~(this.special ? this.mask : 0);
  }

  /** Takes input n into service. */
  accept(n: number): void {
    const bit = 1 << n;
    if ((this.level & bit) === 0) this.requests &= ~bit;
    if (this.autoEoi) {
      if (this.rotateOnAuto) this.lowest = n;
    } else this.service |= bit;
  }

  read(data: boolean): number {
    if (this.poll) {
      this.poll = false;
      const n = this.pending();
      if (n < 0) return 0;
      this.accept(n);
      return 0x80 | n;
    }
    return data ? this.mask : this.readService ? this.service : this.requests;
  }

  write(data: boolean, value: number): void {
    if (data) this.#writeData(value);
    else if ((value & 0x10) !== 0) {
      this.init = 1;
      this.icw4 = (value & 1) !== 0;
      this.single = (value & 2) !== 0;
      this.mask = 0;
      this.service = 0;
      this.requests = 0;
      this.lowest = 7;
      this.special = false;
      this.nested = false;
      this.readService = false;
      this.autoEoi = false;
      this.rotateOnAuto = false;
    } else if ((value & 8) !== 0) {
      if ((value & 2) !== 0) this.readService = (value & 1) !== 0;
      if ((value & 0x40) !== 0) this.special = (value & 0x20) !== 0;
      this.poll = (value & 4) !== 0;
    } else this.#command(value);
  }

  #writeData(value: number): void {
    switch (this.init) {
      case 1:
        this.base = value & 0xf8;
        this.init = !this.single ? 2 : this.icw4 ? 3 : 0;
        break;
      case 2:
        this.init = this.icw4 ? 3 : 0;
        break;
      case 3:
        this.autoEoi = (value & 2) !== 0;
        this.nested = (value & 16) !== 0;
        this.init = 0;
        break;
      default:
        this.mask = value;
    }
  }

  /** OCW2: end of interrupt and rotation. */
  #command(value: number): void {
    const operation = value >> 5;
    const level = value & 7;
    switch (operation) {
      case 0:
      case 4:
        this.rotateOnAuto = operation === 4;
        break;
      case 1:
      case 5: {
        const serving = this.#serving();
        for (let k = 1; k <= 8; k++) {
          const n = (this.lowest + k) & 7;
          if ((serving & (1 << n)) === 0) continue;
          this.service &= ~(1 << n);
          if (operation === 5) this.lowest = n;
          break;
        }
        break;
      }
      case 3:
      case 7:
        this.service &= ~(1 << level);
        if (operation === 7) this.lowest = level;
        break;
      case 6:
        this.lowest = level;
        break;
    }
  }
}

/** Bit of the first chip's input that the second is on. */
const CASCADE = 4;

/** The two interrupt controllers of a PC, the second on input 2 of the first. */
export class PicPair implements PortDevice {
  readonly #first = new Chip();
  readonly #second = new Chip();
  readonly #intr: (asserted: boolean) => void;

  /** @param intr Told the state of the line to the processor. */
  constructor(intr: (asserted: boolean) => void) {
    this.#intr = intr;
  }

  /** Sets interrupt line 0 to 15. */
  setLine(n: number, high: boolean): void {
    if (n < 8) this.#first.setLine(n, high);
    else this.#second.setLine(n - 8, high);
    this.#update();
  }

  /** The processor's acknowledge cycle: the vector. A request that has gone gives input 7. */
  acknowledge(): number {
    let vector: number;
    const n = this.#first.pending(CASCADE);
    if (n < 0) vector = this.#first.base + 7;
    else {
      this.#first.accept(n);
      if (n !== 2) vector = this.#first.base + n;
      else {
        const m = this.#second.pending();
        if (m >= 0) this.#second.accept(m);
        // The second chip's line drops, so that its next request is an edge.
        this.#first.setLine(2, false);
        vector = this.#second.base + (m >= 0 ? m : 7);
      }
    }
    this.#update();
    return vector;
  }

  readPort(port: number): number {
    if (port >= 0x4d0) {
      return port === 0x4d0 ? this.#first.level : this.#second.level;
    }
    const chip = port < 0xa0 ? this.#first : this.#second;
    const value = chip.read((port & 1) !== 0);
    this.#update();
    return value;
  }

  writePort(port: number, _size: number, value: number): void {
    const byte = value & 255;
    if (port >= 0x4d0) {
      // Timer, keyboard, cascade, clock and coprocessor are always edge-triggered.
      if (port === 0x4d0) this.#first.level = byte & 0xf8;
      else this.#second.level = byte & 0xde;
    } else {
      const chip = port < 0xa0 ? this.#first : this.#second;
      chip.write((port & 1) !== 0, byte);
    }
    this.#update();
  }

  /** Power-on state. */
  reset(): void {
    this.#first.reset();
    this.#second.reset();
    this.#update();
  }

  /** Copies the state out. */
  save(): DeviceState {
    return { first: { ...this.#first }, second: { ...this.#second } };
  }

  /** Takes back what {@linkcode PicPair.save} gave. */
  restore(state: DeviceState): void {
    this.#first.restore(state["first"]);
    this.#second.restore(state["second"]);
    this.#update();
  }

  #update(): void {
    this.#first.setLine(2, this.#second.pending() >= 0);
    this.#intr(this.#first.pending(CASCADE) >= 0);
  }
}
