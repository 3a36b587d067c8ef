import type { Cpu } from "./cpu.ts";
import { faultCode, Vector } from "./fault.ts";
import { Access, translate } from "./paging.ts";

/** SDM volume 2A, 2.3.11: longer instructions raise #GP. */
const MAX_LENGTH = 15;

/** Reads instruction bytes; positions count from the start of the block. */
export class Fetch {
  /** Position of the next byte. */
  position = 0;
  /** Guest-physical address of the second page, or -1 while none was needed. */
  second = -1;
  readonly #cpu: Cpu;
  readonly #one: Uint8Array = new Uint8Array(1);
  #begin = 0;
  #gpa = 0;
  #inPage = 0;
  #nextLow = 0;
  #nextHigh = 0;
  #limit = 0;

  constructor(cpu: Cpu) {
    this.#cpu = cpu;
  }

  /**
   * Starts a block.
   *
   * @param low Linear address, low word. @param high Its high word.
   * @param gpa The same place as a guest-physical address.
   * @param limit Bytes up to the end of the code segment; beyond is #GP(0).
   */
  start(low: number, high: number, gpa: number, limit: number): void {
    this.position = 0;
    this.second = -1;
    this.#gpa = gpa;
    this.#inPage = 4096 - (gpa % 4096);
    this.#nextLow = (low + this.#inPage) | 0;
    this.#nextHigh = this.#nextLow === 0 && high !== 0 ? high + 1 | 0 : high;
    this.#limit = limit;
  }

  /** Starts an instruction. */
  begin(position: number): void {
    this.position = position;
    this.#begin = position;
    this.second = -1;
  }

  /** The instruction needed bytes of a second page. */
  get straddles(): boolean {
    return this.second >= 0;
  }

  /** No byte of the page is left. */
  get atPageEnd(): boolean {
    return this.position >= this.#inPage;
  }

  /** The next byte, which stays. */
  peek(): number {
    const value = this.byte();
    this.position--;
    return value;
  }

  /** The next byte. */
  byte(): number {
    const at = this.position;
    if (at - this.#begin >= MAX_LENGTH || at >= this.#limit) {
      faultCode(this.#cpu, Vector.GP, 0);
    }
    this.position = at + 1;
    if (at < this.#inPage) return this.#read(this.#gpa + at);
    if (this.second < 0) {
      this.second = translate(
        this.#cpu,
        this.#nextLow,
        this.#nextHigh,
        Access.Fetch,
      );
    }
    return this.#read(this.second + at - this.#inPage);
  }

  /** The next 16 bits, zero-extended. */
  word(): number {
    const low = this.byte();
    return low | (this.byte() << 8);
  }

  /** The next 32 bits. */
  dword(): number {
    const low = this.word();
    return low | (this.word() << 16);
  }

  #read(gpa: number): number {
    const cpu = this.#cpu;
    if (gpa < cpu.ramSize) return cpu.u8[cpu.ramBase + gpa]!;
    this.#one[0] = 0xff;
    cpu.host.readMmio(cpu.vcpu, gpa, this.#one);
    return this.#one[0]!;
  }
}
