import type { MmioDevice } from "../bus.ts";
import { type ApicBus, wideDestination } from "./apic_bus.ts";
import { checkState, type DeviceState } from "./state.ts";

/** Inputs of the IOAPIC. */
export const IOAPIC_PINS = 24;

// Offsets in its page, and numbers behind the index register (82093AA data sheet, 3.1 and 3.2; the EOI register is
// of version 0x20).
const SELECT = 0;
const WINDOW = 0x10;
const EOI = 0x40;
const INDEX_ID = 0;
const INDEX_VERSION = 1;
const INDEX_ARBITRATION = 2;
const INDEX_TABLE = 0x10;

const VERSION = (IOAPIC_PINS - 1) << 16 | 0x20;
const ID_MASK = 0x0f00_0000;

// Bits of the low word of a redirection entry.
const LOGICAL = 0x800;
const ACTIVE_LOW = 0x2000;
const REMOTE_IRR = 0x4000;
const LEVEL = 0x8000;
const MASKED = 0x1_0000;
/** Delivery status, bit 12, is always idle; remote IRR is read-only. */
const WRITABLE = 0x1_afff;

/** The I/O APIC: turns 24 lines into messages to local APICs. */
export class IoApic implements MmioDevice {
  readonly #bus: ApicBus;
  /** Redirection table, low words and high words. */
  readonly #low = new Uint32Array(IOAPIC_PINS);
  readonly #high = new Uint32Array(IOAPIC_PINS);
  /** Lines that are high, one bit each. */
  #lines = 0;
  #select = 0;
  #id = 0;

  /** @param bus Takes its messages. */
  constructor(bus: ApicBus) {
    this.#bus = bus;
    this.reset();
  }

  /** Sets a line. */
  setLine(pin: number, high: boolean): void {
    const bit = 1 << pin;
    if (((this.#lines & bit) !== 0) === high) return;
    this.#lines ^= bit;
    const entry = this.#low[pin]!;
    if ((entry & LEVEL) !== 0) this.#service(pin);
    else if (this.#active(pin) && (entry & MASKED) === 0) this.#deliver(pin);
  }

  #active(pin: number): boolean {
    return ((this.#lines >> pin) & 1) !==
      ((this.#low[pin]! & ACTIVE_LOW) !== 0 ? 1 : 0);
  }

  /** Delivers a level-triggered line that is active and not under way yet. */
  #service(pin: number): void {
    const entry = this.#low[pin]!;
    if ((entry & (LEVEL | MASKED | REMOTE_IRR)) !== LEVEL) return;
    if (this.#active(pin) && this.#deliver(pin)) {
      this.#low[pin] = this.#low[pin]! | REMOTE_IRR;
    }
  }

  #deliver(pin: number): boolean {
    const entry = this.#low[pin]!;
    return this.#bus.send(
      wideDestination(this.#high[pin]! >>> 24),
      (entry & LOGICAL) !== 0,
      (entry >> 8) & 7,
      entry & 0xff,
      (entry & LEVEL) !== 0,
    );
  }

  /** A local APIC has ended a level-triggered interrupt: lines that are still active interrupt again. */
  endOfInterrupt(vector: number): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const entry = this.#low[pin]!;
      if ((entry & 0xff) !== vector || (entry & REMOTE_IRR) === 0) continue;
      this.#low[pin] = entry & ~REMOTE_IRR;
      this.#service(pin);
    }
  }

  readMmio(offset: number, data: Uint8Array): void {
    const value = (offset & ~15) === WINDOW
      ? this.#read()
      : (offset & ~15) === SELECT
      ? this.#select
      : 0;
    for (let n = 0; n < data.length; n++) {
      const byte = (offset & 15) + n;
      data[n] = byte < 4 ? value >>> (8 * byte) : 0;
    }
  }

  writeMmio(offset: number, data: Uint8Array): void {
    let value = 0;
    for (let n = Math.min(4, data.length) - 1; n >= 0; n--) {
      value = (value << 8) | data[n]!;
    }
    if (offset === SELECT) this.#select = value & 0xff;
    else if (offset === WINDOW && data.length >= 4) this.#write(value);
    else if (offset === EOI) this.endOfInterrupt(value & 0xff);
  }

  #read(): number {
    switch (this.#select) {
      case INDEX_ID:
      case INDEX_ARBITRATION:
        return this.#id;
      case INDEX_VERSION:
        return VERSION;
      default: {
        const at = this.#select - INDEX_TABLE;
        return ((at & 1) !== 0 ? this.#high : this.#low)[at >> 1] ?? 0;
      }
    }
  }

  #write(value: number): void {
    const at = this.#select - INDEX_TABLE;
    const pin = at >> 1;
    if (this.#select === INDEX_ID) this.#id = value & ID_MASK;
    else if (pin >= 0 && pin < IOAPIC_PINS) {
      if ((at & 1) !== 0) this.#high[pin] = value & 0xff00_0000;
      else {
        // Nothing is under way for an edge (which is how Linux clears remote IRR).
        const underWay = (value & LEVEL) !== 0
          ? this.#low[pin]! & REMOTE_IRR
          : 0;
        this.#low[pin] = (value & WRITABLE) | underWay;
      }
      this.#service(pin);
    }
  }

  /** State after power-on: all lines masked. */
  reset(): void {
    this.#low.fill(MASKED);
    this.#high.fill(0);
    this.#lines = 0;
    this.#select = 0;
    this.#id = 0;
  }

  /** Copies the state out. */
  save(): DeviceState {
    return {
      low: [...this.#low],
      high: [...this.#high],
      lines: this.#lines,
      select: this.#select,
      id: this.#id,
    };
  }

  /** Takes back what {@linkcode IoApic.save} gave. */
  restore(state: unknown): void {
    const words = { length: IOAPIC_PINS, max: 0xffff_ffff };
    const s = checkState("IOAPIC", state, {
      low: words,
      high: words,
      lines: 2 ** IOAPIC_PINS - 1,
      select: 0xff,
      id: ID_MASK,
    });
    this.#low.set(s.low.map((word) => word & (WRITABLE | REMOTE_IRR)));
    this.#high.set(s.high.map((word) => word & 0xff00_0000));
    this.#lines = s.lines;
    this.#select = s.select;
    this.#id = s.id & ID_MASK;
  }
}
