import type { PortDevice } from "../bus.ts";

function bcd(value: number): number {
  return (Math.floor(value / 10) << 4) | (value % 10);
}

/** The clock chip MC146818 with its memory, without interrupts: time, memory size, shutdown byte. */
export class Cmos implements PortDevice {
  readonly #bytes = new Uint8Array(128);
  readonly #date: () => Date;
  #index = 0;

  /**
   * @param memorySize RAM in bytes, for the size fields that firmware leaves there.
   * @param date The time of day.
   */
  constructor(memorySize: number, date: () => Date = () => new Date()) {
    this.#date = date;
    const below16 = Math.min(0x3c00, Math.max(0, (memorySize >>> 10) - 1024));
    const above16 = Math.min(
      0xffff,
      Math.max(0, Math.floor((memorySize - 0x100_0000) / 0x1_0000)),
    );
    this.#word(0x15, 640);
    this.#word(0x17, below16);
    this.#word(0x30, below16);
    this.#word(0x34, above16);
    this.#bytes[0x0b] = 2;
  }

  #word(at: number, value: number): void {
    this.#bytes[at] = value & 255;
    this.#bytes[at + 1] = value >> 8;
  }

  /** Register B bit 1 clear: 1 to 12, and bit 7 for the afternoon. */
  #hours(hours: number, code: (value: number) => number): number {
    if ((this.#bytes[0x0b]! & 2) !== 0) return code(hours);
    return code(hours % 12 || 12) | (hours >= 12 ? 0x80 : 0);
  }

  readPort(port: number): number {
    if ((port & 1) === 0) return 0xff;
    const index = this.#index;
    const date = this.#date();
    const binary = (this.#bytes[0x0b]! & 4) !== 0;
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
      case 0x0a:
        return 0x26;
      case 0x0c:
        return 0;
      case 0x0d:
        return 0x80;
      default:
        return this.#bytes[index]!;
    }
  }

  writePort(port: number, _size: number, value: number): void {
    if ((port & 1) === 0) this.#index = value & 127;
    // The time is the host's and stays so.
    else if (this.#index >= 0x0a) this.#bytes[this.#index] = value & 255;
  }
}
