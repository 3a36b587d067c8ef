import type { GuestDebug } from "../backend.ts";
import type { GuestMemory } from "../guest_memory.ts";

const INT3 = 0xcc;
/** More than any debugger sets. */
const MOST_SOFTWARE = 4096;
const REGISTERS = 4;

/** What a debug register stops at, as in the R/W fields of DR7 (SDM volume 3B, 18.2.4). */
export const Watch = { Execute: 0, Write: 1, Access: 3 } as const;
/** A value of {@linkcode Watch}. */
export type Watch = typeof Watch[keyof typeof Watch];

/** A hardware breakpoint that a debugger has set. */
export interface Hardware {
  kind: Watch;
  /** Linear address. */
  address: bigint;
  /** Bytes; of an instruction 1. */
  length: number;
}

/** A byte of RAM that INT3 stands for. */
interface Patch {
  original: number;
  /** Linear addresses of it that have a breakpoint. */
  uses: number;
}

/** Parts of a range that debug registers can watch: 1, 2, 4 or 8 bytes, aligned. */
function pieces({ address, length }: Hardware): [bigint, number][] {
  const found: [bigint, number][] = [];
  for (let done = 0; done < length;) {
    const at = address + BigInt(done);
    let size = 8;
    while (size > length - done || at % BigInt(size) !== 0n) size /= 2;
    found.push([at, size]);
    done += size;
  }
  return found;
}

/** The breakpoints of a debugger: INT3 in RAM, which it does not get to see, and debug registers. */
export class Breakpoints {
  readonly #memory: GuestMemory;
  /** Guest-physical addresses by linear ones. */
  readonly #software = new Map<bigint, number>();
  readonly #patches = new Map<number, Patch>();
  #hardware: Hardware[] = [];

  /** For the code in `memory`. */
  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Puts INT3 at an address in RAM; false if there is no room. */
  addSoftware(linear: bigint, gpa: number): boolean {
    if (this.#software.has(linear)) return true;
    if (
      this.#software.size >= MOST_SOFTWARE || !this.#memory.contains(gpa, 1)
    ) return false;
    const patch = this.#patches.get(gpa);
    if (patch !== undefined) patch.uses++;
    else {
      const original = this.#memory.bytes[gpa]!;
      this.#patches.set(gpa, { original, uses: 1 });
      this.#memory.writeU8(gpa, INT3);
    }
    this.#software.set(linear, gpa);
    return true;
  }

  /** Takes a software breakpoint away, if there is one. */
  removeSoftware(linear: bigint): void {
    const gpa = this.#software.get(linear);
    if (gpa === undefined) return;
    this.#software.delete(linear);
    const patch = this.#patches.get(gpa)!;
    if (--patch.uses > 0) return;
    this.#patches.delete(gpa);
    this.#unpatch(gpa, patch);
  }

  /** Whether a software breakpoint was set at a linear address. */
  hasSoftware(linear: bigint): boolean {
    return this.#software.has(linear);
  }

  /** Whether a byte of RAM is INT3 because of a breakpoint. */
  isPatched(gpa: number): boolean {
    return this.#patches.has(gpa) && this.#memory.bytes[gpa] === INT3;
  }

  /** Sets a hardware breakpoint; false if the debug registers do not suffice. */
  addHardware(wanted: Hardware): boolean {
    if (this.#find(wanted) >= 0) return true;
    // A longer one does not fit, and its pieces would take long to count.
    if (wanted.length < 1 || wanted.length > 8 * REGISTERS) return false;
    const all = [...this.#hardware, wanted];
    if (all.flatMap(pieces).length > REGISTERS) return false;
    this.#hardware = all;
    return true;
  }

  /** Takes a hardware breakpoint away, if there is one. */
  removeHardware(wanted: Hardware): void {
    const at = this.#find(wanted);
    if (at >= 0) this.#hardware.splice(at, 1);
  }

  /** Takes all away. */
  clear(): void {
    for (const linear of [...this.#software.keys()]) {
      this.removeSoftware(linear);
    }
    this.#hardware = [];
  }

  /** Whether an instruction breakpoint is in a debug register. */
  hasHardware(linear: bigint): boolean {
    return this.#hardware.some(({ kind, address }) =>
      kind === Watch.Execute && address === linear
    );
  }

  /** The breakpoint that is in the first debug register with a bit set in DR6. */
  hit(dr6: bigint): Hardware | undefined {
    const owners = this.#hardware.flatMap((hardware) =>
      pieces(hardware).map(() => hardware)
    );
    return owners.find((_, n) => (dr6 & (1n << BigInt(n))) !== 0n);
  }

  /**
   * What a vCPU has to stop at.
   *
   * @param except Linear address of instruction breakpoints in debug registers that are left out.
   */
  guestDebug(except?: bigint): GuestDebug {
    const addresses: [bigint, bigint, bigint, bigint] = [0n, 0n, 0n, 0n];
    let dr7 = 0n;
    let n = 0;
    for (const hardware of this.#hardware) {
      for (const [address, size] of pieces(hardware)) {
        addresses[n] = address;
        const { kind } = hardware;
        if (kind !== Watch.Execute || address !== except) {
          const length = size === 8 ? 2 : size - 1;
          dr7 |= 2n << BigInt(2 * n);
          dr7 |= BigInt(kind | (length << 2)) << BigInt(16 + 4 * n);
        }
        n++;
      }
    }
    return {
      softwareBreakpoints: this.#software.size > 0,
      // DR7 bit 10 reads as 1.
      ...(dr7 !== 0n &&
        { hardwareBreakpoints: { addresses, dr7: dr7 | 0x400n } }),
    };
  }

  /** Has the guest's own byte in RAM until {@linkcode Breakpoints.lower}. */
  lift(gpa: number): void {
    const patch = this.#patches.get(gpa);
    if (patch !== undefined) this.#unpatch(gpa, patch);
  }

  /** Puts INT3 back. */
  lower(gpa: number): void {
    const patch = this.#patches.get(gpa);
    if (patch === undefined) return;
    patch.original = this.#memory.bytes[gpa]!;
    this.#memory.writeU8(gpa, INT3);
  }

  /** Puts the guest's own bytes into what was read from `gpa` on. */
  conceal(gpa: number, data: Uint8Array): void {
    for (const [at, { original }] of this.#patches) {
      if (at >= gpa && at < gpa + data.length && this.isPatched(at)) {
        data[at - gpa] = original;
      }
    }
  }

  /** Writes to RAM behind the breakpoints. */
  write(gpa: number, data: Uint8Array): void {
    const bytes = data.slice();
    for (const [at, patch] of this.#patches) {
      if (at >= gpa && at < gpa + data.length && this.isPatched(at)) {
        patch.original = bytes[at - gpa]!;
        bytes[at - gpa] = INT3;
      }
    }
    this.#memory.write(gpa, bytes);
  }

  #find(wanted: Hardware): number {
    return this.#hardware.findIndex(({ kind, address, length }) =>
      kind === wanted.kind && address === wanted.address &&
      length === wanted.length
    );
  }

  /** Unless the guest has written there itself. */
  #unpatch(gpa: number, { original }: Patch): void {
    if (this.#memory.bytes[gpa] === INT3) this.#memory.writeU8(gpa, original);
  }
}
