import type { Vcpu } from "../backend.ts";
import type { GuestMemory } from "../guest_memory.ts";
import type { Breakpoints } from "./breakpoints.ts";
import { translate } from "./execution.ts";

const PAGE = 4096n;

/** Guest memory as a debugger sees it: by linear or physical address, without its breakpoints. */
export class DebugMemory {
  /** Addresses are guest-physical ones. */
  physical = false;
  readonly #memory: GuestMemory;
  readonly #breakpoints: Breakpoints;

  /** Over `memory`, where `breakpoints` are. */
  constructor(memory: GuestMemory, breakpoints: Breakpoints) {
    this.#memory = memory;
    this.#breakpoints = breakpoints;
  }

  /** Reads up to `length` bytes; less where the rest is not in RAM. */
  read(vcpu: Vcpu, address: bigint, length: number): Uint8Array<ArrayBuffer> {
    const data = new Uint8Array(length);
    let done = 0;
    for (const [gpa, size] of this.#parts(vcpu, address, length)) {
      if (gpa === undefined) break;
      const part = this.#memory.read(gpa, size);
      this.#breakpoints.conceal(gpa, part);
      data.set(part, done);
      done += size;
    }
    return data.subarray(0, done);
  }

  /** Writes `data`; false, and nothing is written, if not all of it is in RAM. */
  write(vcpu: Vcpu, address: bigint, data: Uint8Array): boolean {
    const parts = [...this.#parts(vcpu, address, data.length)];
    if (parts.some(([gpa]) => gpa === undefined)) return false;
    let done = 0;
    for (const [gpa, size] of parts) {
      this.#breakpoints.write(gpa!, data.subarray(done, done + size));
      done += size;
    }
    return true;
  }

  /** Where the pages of a range are in RAM, and how many bytes of each belong to it. */
  *#parts(
    vcpu: Vcpu,
    address: bigint,
    length: number,
  ): Generator<[number | undefined, number]> {
    for (let done = 0; done < length;) {
      const at = address + BigInt(done);
      const size = Math.min(length - done, Number(PAGE - at % PAGE));
      const gpa = this.physical ? Number(at) : translate(vcpu, at);
      const inRam = gpa !== undefined && this.#memory.contains(gpa, size);
      yield [inRam ? gpa : undefined, size];
      done += size;
    }
  }
}
