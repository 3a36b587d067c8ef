import type { PortDevice } from "../bus.ts";
import { checkState, type DeviceState } from "./state.ts";

const FIFO = 16;
const INPUT_LIMIT = 4096;
const LSR_DATA = 1;
const LSR_EMPTY = 0x60;
const IER_DATA = 1;
const IER_EMPTY = 2;
const IIR_NONE = 1;
const IIR_EMPTY = 2;
const IIR_DATA = 4;
const MCR_LOOP = 16;
const MCR_OUT2 = 8;

/**
 * A 16550A serial port (National Semiconductor PC16550D). The line has no speed: what is sent
 * is out at once.
 */
export class Uart implements PortDevice {
  readonly #base: number;
  readonly #output: (byte: number) => void;
  readonly #irq: (level: boolean) => void;
  #input: number[] = [];
  #ier = 0;
  #lcr = 0;
  #mcr = 0;
  #scratch = 0;
  #divisor = 1;
  #fifo = false;
  #emptyPending = false;

  /**
   * @param base First of its eight ports.
   * @param output Takes each byte that is sent.
   * @param irq Told the level of the interrupt line.
   */
  constructor(
    base: number,
    output: (byte: number) => void,
    irq: (level: boolean) => void,
  ) {
    this.#base = base;
    this.#output = output;
    this.#irq = irq;
  }

  /** Bytes from the other end of the line; beyond 4 KiB that wait they are lost. */
  receive(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (this.#input.length >= INPUT_LIMIT) break;
      this.#input.push(byte);
    }
    this.#update();
  }

  readPort(port: number): number {
    const divisor = (this.#lcr & 0x80) !== 0;
    switch (port - this.#base) {
      case 0: {
        if (divisor) return this.#divisor & 255;
        const byte = this.#input.shift() ?? 0;
        // Each byte comes at its own time: the next one is an edge of the line.
        this.#irq(false);
        this.#update();
        return byte;
      }
      case 1:
        return divisor ? this.#divisor >> 8 : this.#ier;
      case 2: {
        const id = this.#interrupt();
        if (id === IIR_EMPTY) {
          this.#emptyPending = false;
          this.#update();
        }
        return id | (this.#fifo ? 0xc0 : 0);
      }
      case 3:
        return this.#lcr;
      case 4:
        return this.#mcr;
      case 5:
        return LSR_EMPTY | (this.#input.length > 0 ? LSR_DATA : 0);
      case 6: {
        if ((this.#mcr & MCR_LOOP) === 0) return 0xb0;
        // Loopback: DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD.
        const m = this.#mcr;
        return ((m & 1) << 5) | ((m & 2) << 3) | ((m & 4) << 4) |
          ((m & 8) << 4);
      }
      default:
        return this.#scratch;
    }
  }

  writePort(port: number, _size: number, value: number): void {
    const byte = value & 255;
    const divisor = (this.#lcr & 0x80) !== 0;
    switch (port - this.#base) {
      case 0:
        if (divisor) this.#divisor = (this.#divisor & 0xff00) | byte;
        else {
          if ((this.#mcr & MCR_LOOP) !== 0) {
            if (this.#input.length < FIFO) this.#input.push(byte);
          } else this.#output(byte);
          // The transmitter was full for a moment, which is an edge too.
          this.#irq(false);
          this.#emptyPending = true;
        }
        break;
      case 1:
        if (divisor) this.#divisor = (this.#divisor & 255) | (byte << 8);
        else {
          if ((byte & IER_EMPTY & ~this.#ier) !== 0) this.#emptyPending = true;
          this.#ier = byte & 15;
        }
        break;
      case 2:
        this.#fifo = (byte & 1) !== 0;
        // What the FIFO has no room for is still on the line.
        if ((byte & 2) !== 0) this.#input.splice(0, FIFO);
        break;
      case 3:
        this.#lcr = byte;
        break;
      case 4:
        this.#mcr = byte & 31;
        break;
      case 7:
        this.#scratch = byte;
        break;
    }
    this.#update();
  }

  /** The highest interrupt that waits. */
  #interrupt(): number {
    if ((this.#ier & IER_DATA) !== 0 && this.#input.length > 0) return IIR_DATA;
    return (this.#ier & IER_EMPTY) !== 0 && this.#emptyPending
      ? IIR_EMPTY
      : IIR_NONE;
  }

  #update(): void {
    // On a PC, OUT2 gates the line.
    this.#irq(
      (this.#mcr & MCR_OUT2) !== 0 && this.#interrupt() !== IIR_NONE,
    );
  }

  /** Copies the state out. */
  save(): DeviceState {
    return {
      input: [...this.#input],
      ier: this.#ier,
      lcr: this.#lcr,
      mcr: this.#mcr,
      scratch: this.#scratch,
      divisor: this.#divisor,
      fifo: this.#fifo,
      emptyPending: this.#emptyPending,
    };
  }

  /** Takes back what {@linkcode Uart.save} gave. */
  restore(state: DeviceState): void {
    const { input } = state;
    const length = Array.isArray(input) ? input.length : 0;
    const s = checkState("serial port", state, {
      input: { length: Math.min(length, INPUT_LIMIT), max: 255 },
      ier: 15,
      lcr: 255,
      mcr: 31,
      scratch: 255,
      divisor: 0xffff,
      fifo: "switch",
      emptyPending: "switch",
    });
    this.#input = s.input;
    this.#ier = s.ier;
    this.#lcr = s.lcr;
    this.#mcr = s.mcr;
    this.#scratch = s.scratch;
    this.#divisor = s.divisor;
    this.#fifo = s.fifo;
    this.#emptyPending = s.emptyPending;
    this.#update();
  }

  /** Master reset. */
  reset(): void {
    this.#input = [];
    this.#ier = 0;
    this.#lcr = 0;
    this.#mcr = 0;
    this.#scratch = 0;
    this.#divisor = 1;
    this.#fifo = false;
    this.#emptyPending = false;
    this.#update();
  }
}
