/**
 * CONTEXT and KSPECIAL_REGISTERS: a processor's registers as Windows stores them. Offsets from winnt.h
 * (CONTEXT of amd64 and i386) and, for the special registers, from what WinDbg reads in a capture of
 * Windows 10.
 *
 * @module
 */
import { type Fields, type Layout, readFields, writeFields } from "./layout.ts";

/** Machine types of PE files, which GetVersion reports. */
export const KdMachine = {
  /** i386. */
  X86: 0x014c,
  /** amd64. */
  Amd64: 0x8664,
} as const;
/** A value of {@linkcode KdMachine}. */
export type KdMachine = typeof KdMachine[keyof typeof KdMachine];

/** Bytes of CONTEXT on amd64. */
export const AMD64_CONTEXT_LENGTH = 1232;
/** Bytes of CONTEXT on i386. */
export const X86_CONTEXT_LENGTH = 716;

/** CONTEXT of amd64, without floating point (FXSAVE at 0x100) and vector registers. */
export const AMD64_CONTEXT_LAYOUT = {
  contextFlags: [0x30, "u32"],
  mxcsr: [0x34, "u32"],
  cs: [0x38, "u16"],
  ds: [0x3a, "u16"],
  es: [0x3c, "u16"],
  fs: [0x3e, "u16"],
  gs: [0x40, "u16"],
  ss: [0x42, "u16"],
  eflags: [0x44, "u32"],
  dr0: [0x48, "u64"],
  dr1: [0x50, "u64"],
  dr2: [0x58, "u64"],
  dr3: [0x60, "u64"],
  dr6: [0x68, "u64"],
  dr7: [0x70, "u64"],
  rax: [0x78, "u64"],
  rcx: [0x80, "u64"],
  rdx: [0x88, "u64"],
  rbx: [0x90, "u64"],
  rsp: [0x98, "u64"],
  rbp: [0xa0, "u64"],
  rsi: [0xa8, "u64"],
  rdi: [0xb0, "u64"],
  r8: [0xb8, "u64"],
  r9: [0xc0, "u64"],
  r10: [0xc8, "u64"],
  r11: [0xd0, "u64"],
  r12: [0xd8, "u64"],
  r13: [0xe0, "u64"],
  r14: [0xe8, "u64"],
  r15: [0xf0, "u64"],
  rip: [0xf8, "u64"],
} as const;

/** CONTEXT of i386, without floating point (at 0x1c) and extended registers (FXSAVE at 0xcc). */
export const X86_CONTEXT_LAYOUT = {
  contextFlags: [0, "u32"],
  dr0: [0x04, "u32"],
  dr1: [0x08, "u32"],
  dr2: [0x0c, "u32"],
  dr3: [0x10, "u32"],
  dr6: [0x14, "u32"],
  dr7: [0x18, "u32"],
  gs: [0x8c, "u32"],
  fs: [0x90, "u32"],
  es: [0x94, "u32"],
  ds: [0x98, "u32"],
  edi: [0x9c, "u32"],
  esi: [0xa0, "u32"],
  ebx: [0xa4, "u32"],
  edx: [0xa8, "u32"],
  ecx: [0xac, "u32"],
  eax: [0xb0, "u32"],
  ebp: [0xb4, "u32"],
  eip: [0xb8, "u32"],
  cs: [0xbc, "u32"],
  eflags: [0xc0, "u32"],
  esp: [0xc4, "u32"],
  ss: [0xc8, "u32"],
} as const;

/** KSPECIAL_REGISTERS of amd64: control space 2. */
export const AMD64_SPECIAL_LAYOUT = {
  cr0: [0x00, "u64"],
  cr2: [0x08, "u64"],
  cr3: [0x10, "u64"],
  cr4: [0x18, "u64"],
  kernelDr0: [0x20, "u64"],
  kernelDr1: [0x28, "u64"],
  kernelDr2: [0x30, "u64"],
  kernelDr3: [0x38, "u64"],
  kernelDr6: [0x40, "u64"],
  kernelDr7: [0x48, "u64"],
  gdtLimit: [0x56, "u16"],
  gdtBase: [0x58, "u64"],
  idtLimit: [0x66, "u16"],
  idtBase: [0x68, "u64"],
  tr: [0x70, "u16"],
  ldtr: [0x72, "u16"],
  mxcsr: [0x74, "u32"],
  debugControl: [0x78, "u64"],
  cr8: [0xa0, "u64"],
  gsBase: [0xa8, "u64"],
  kernelGsBase: [0xb0, "u64"],
  star: [0xb8, "u64"],
  lstar: [0xc0, "u64"],
  cstar: [0xc8, "u64"],
  sfmask: [0xd0, "u64"],
  xcr0: [0xd8, "u64"],
} as const;
/** Bytes of KSPECIAL_REGISTERS that WinDbg reads on amd64. */
export const AMD64_SPECIAL_LENGTH = 0xe0;

/** KSPECIAL_REGISTERS of i386: control space {@linkcode X86_CONTEXT_LENGTH}, which is its offset. */
export const X86_SPECIAL_LAYOUT = {
  cr0: [0x00, "u32"],
  cr2: [0x04, "u32"],
  cr3: [0x08, "u32"],
  cr4: [0x0c, "u32"],
  kernelDr0: [0x10, "u32"],
  kernelDr1: [0x14, "u32"],
  kernelDr2: [0x18, "u32"],
  kernelDr3: [0x1c, "u32"],
  kernelDr6: [0x20, "u32"],
  kernelDr7: [0x24, "u32"],
  gdtLimit: [0x2a, "u16"],
  gdtBase: [0x2c, "u32"],
  idtLimit: [0x32, "u16"],
  idtBase: [0x34, "u32"],
  tr: [0x38, "u16"],
  ldtr: [0x3a, "u16"],
} as const;
/** Bytes of KSPECIAL_REGISTERS on i386. */
export const X86_SPECIAL_LENGTH = 0x54;

/** A structure of registers that are read and written by name; its bytes stay as they came otherwise. */
export class KdRegisters {
  /** The structure. */
  readonly bytes: Uint8Array;
  readonly #layout: Layout;

  /**
   * Makes it over a copy of `bytes`.
   *
   * @throws {RangeError} If the bytes end before the last register of the layout.
   */
  constructor(layout: Layout, bytes: Uint8Array) {
    if (readFields(layout, bytes) === undefined) {
      throw new RangeError(`Cannot read registers: ${bytes.length} bytes`);
    }
    this.#layout = layout;
    this.bytes = bytes.slice();
  }

  /** Names of the registers, in the structure's order. */
  get names(): string[] {
    return Object.keys(this.#layout);
  }

  /** Whether there is such a register. */
  has(name: string): boolean {
    return Object.hasOwn(this.#layout, name);
  }

  /** Bits of a register, 0 if there is none such. */
  width(name: string): number {
    return this.has(name) ? Number(this.#layout[name]![1].slice(1)) : 0;
  }

  /** A register's value. @throws {RangeError} If there is none such. */
  get(name: string): bigint {
    return BigInt(readFields(this.#only(name), this.bytes)![name]!);
  }

  /** Sets a register; the value is cut to its width. @throws {RangeError} If there is none such. */
  set(name: string, value: bigint): void {
    const layout = this.#only(name);
    const wide = layout[name]![1] === "u64";
    const cut = BigInt.asUintN(64, value);
    const values = { [name]: wide ? cut : Number(cut & 0xffff_ffffn) };
    writeFields(layout, this.bytes, values as Partial<Fields<Layout>>);
  }

  #only(name: string): Layout {
    if (!this.has(name)) {
      throw new RangeError(`Cannot use register ${name}: there is none such`);
    }
    return { [name]: this.#layout[name]! };
  }
}

function registersOf(
  machine: number,
  bytes: Uint8Array,
  layouts: Readonly<Record<KdMachine, Layout>>,
): KdRegisters {
  if (machine !== KdMachine.X86 && machine !== KdMachine.Amd64) {
    throw new RangeError(
      `Cannot read registers: machine 0x${machine.toString(16)}`,
    );
  }
  return new KdRegisters(layouts[machine], bytes);
}

/**
 * CONTEXT of a machine, of the bytes that GetContext brought.
 *
 * @throws {RangeError} If they are too few, or the machine is not x86.
 */
export function contextRegisters(
  machine: number,
  bytes: Uint8Array,
): KdRegisters {
  return registersOf(machine, bytes, {
    [KdMachine.X86]: X86_CONTEXT_LAYOUT,
    [KdMachine.Amd64]: AMD64_CONTEXT_LAYOUT,
  });
}

/**
 * KSPECIAL_REGISTERS of a machine.
 *
 * @throws {RangeError} If the bytes are too few, or the machine is not x86.
 */
export function specialRegisters(
  machine: number,
  bytes: Uint8Array,
): KdRegisters {
  return registersOf(machine, bytes, {
    [KdMachine.X86]: X86_SPECIAL_LAYOUT,
    [KdMachine.Amd64]: AMD64_SPECIAL_LAYOUT,
  });
}
