/**
 * The registers of a vCPU in GDB's order, and the description of them that GDB reads
 * (GDB manual, G.5.6, i386 features).
 *
 * @module
 */
import type { Registers, SystemRegisters, Vcpu } from "../backend.ts";

/** IA32_KERNEL_GS_BASE (SDM volume 4, table 2-2). */
const MSR_KERNEL_GS_BASE = 0xc000_0102;
const CR0_PE = 1n;
const EFER_LMA = 0x400n;
const FLAG_VM = 0x2_0000n;

/** A vCPU's state while GDB looks at it. */
class State {
  readonly general: Registers;
  readonly system: SystemRegisters;

  constructor(readonly vcpu: Vcpu) {
    this.general = vcpu.getRegisters();
    this.system = vcpu.getSystemRegisters();
  }
}

/** A register of GDB's. */
interface Register {
  name: string;
  bits: 32 | 64 | 80;
  type: string;
  /** Undefined: the backend does not tell. */
  read?(state: State): bigint | undefined;
  /** False: not to be had. */
  write?(state: State, value: bigint): boolean;
}

/** A group of registers that GDB knows by name. */
interface Feature {
  name: string;
  types?: string;
  registers: Register[];
}

/** What GDB is told of a CPU. */
export interface Layout {
  /** The target description, an XML document. */
  xml: string;
  /** In the order of their numbers. */
  registers: readonly Register[];
}

/** Long mode is active, be it in a 32-bit code segment. */
export function longMode(system: SystemRegisters): boolean {
  return (system.efer & EFER_LMA) !== 0n;
}

/** Linear address of the next instruction. */
export function linearPc(vcpu: Vcpu): bigint {
  const { cs, efer } = vcpu.getSystemRegisters();
  const { rip } = vcpu.getRegisters();
  return (efer & EFER_LMA) !== 0n && cs.l
    ? rip
    : BigInt.asUintN(32, cs.base + rip);
}

function general(
  name: string,
  from: keyof Registers,
  bits: 32 | 64,
  type: string,
): Register {
  return {
    name,
    bits,
    type,
    read({ general, system }) {
      const value = general[from];
      // Left over from long mode, and out of the code's reach.
      const narrow = !(longMode(system) && system.cs.l) &&
        !/^r\d/.test(from);
      return narrow ? BigInt.asUintN(32, value) : value;
    },
    write({ vcpu }, value) {
      vcpu.setRegisters({ [from]: value });
      return true;
    },
  };
}

function segment(name: "cs" | "ss" | "ds" | "es" | "fs" | "gs"): Register {
  return {
    name,
    bits: 32,
    type: "int32",
    read: ({ system }) => BigInt(system[name].selector),
    write({ vcpu, system, general }, value) {
      const selector = Number(value & 0xffffn);
      const real = (system.cr0 & CR0_PE) === 0n ||
        (general.rflags & FLAG_VM) !== 0n;
      // Elsewhere the hidden part would have to come out of a descriptor.
      if (!real) return false;
      vcpu.setSystemRegisters({
        [name]: { ...system[name], selector, base: BigInt(selector) << 4n },
      });
      return true;
    },
  };
}

function segmentBase(name: "fs" | "gs"): Register {
  return {
    name: `${name}_base`,
    bits: 64,
    type: "int",
    read: ({ system }) => system[name].base,
    write({ vcpu, system }, base) {
      vcpu.setSystemRegisters({ [name]: { ...system[name], base } });
      return true;
    },
  };
}

function control(
  name: "cr0" | "cr2" | "cr3" | "cr4" | "cr8" | "efer",
  bits: 32 | 64,
  type = `int${bits}`,
): Register {
  return {
    name,
    bits,
    type,
    read: ({ system }) => system[name],
    write({ vcpu }, value) {
      vcpu.setSystemRegisters({ [name]: value });
      return true;
    },
  };
}

const KERNEL_GS_BASE: Register = {
  name: "k_gs_base",
  bits: 64,
  type: "int64",
  read: ({ vcpu }) => vcpu.getMsr(MSR_KERNEL_GS_BASE),
  write: ({ vcpu }, value) => vcpu.setMsr(MSR_KERNEL_GS_BASE, value),
};

/** GDB wants them; no backend tells. */
const X87: Register[] = [
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((n): Register => ({
    name: `st${n}`,
    bits: 80,
    type: "i387_ext",
  })),
  ...["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"]
    .map((name): Register => ({ name, bits: 32, type: "int" })),
];

const SEGMENTS = (["cs", "ss", "ds", "es", "fs", "gs"] as const).map(segment);

/** A type whose bits have names. */
function flags(id: string, size: number, names: Record<string, number>) {
  const fields = Object.entries(names).map(([name, bit]) =>
    `<field name="${name}" start="${bit}" end="${bit}" type="bool"/>`
  );
  return `<flags id="${id}" size="${size}">${fields.join("")}</flags>`;
}

const EFLAGS_TYPE = flags("i386_eflags", 4, {
  CF: 0,
  PF: 2,
  AF: 4,
  ZF: 6,
  SF: 7,
  TF: 8,
  IF: 9,
  DF: 10,
  OF: 11,
  NT: 14,
  RF: 16,
  VM: 17,
  AC: 18,
  VIF: 19,
  VIP: 20,
  ID: 21,
});

/** Types of the control registers, `size` bytes wide. */
function controlTypes(size: number): string {
  return flags("cr0_flags", size, {
    PE: 0,
    MP: 1,
    EM: 2,
    TS: 3,
    ET: 4,
    NE: 5,
    WP: 16,
    AM: 18,
    NW: 29,
    CD: 30,
    PG: 31,
  }) + flags("cr4_flags", size, {
    VME: 0,
    PVI: 1,
    TSD: 2,
    DE: 3,
    PSE: 4,
    PAE: 5,
    MCE: 6,
    PGE: 7,
    PCE: 8,
    OSFXSR: 9,
    OSXMMEXCPT: 10,
    UMIP: 11,
    LA57: 12,
    FSGSBASE: 16,
    PCIDE: 17,
    OSXSAVE: 18,
    SMEP: 20,
    SMAP: 21,
    PKE: 22,
  }) + flags("efer_flags", size, { SCE: 0, LME: 8, LMA: 10, NXE: 11 });
}

function layout(architecture: string, features: readonly Feature[]): Layout {
  const text = features.map(({ name, types = "", registers }) => {
    const regs = registers.map(({ name, bits, type }) =>
      `<reg name="${name}" bitsize="${bits}" type="${type}"/>`
    );
    return `<feature name="${name}">${types}${regs.join("")}</feature>`;
  });
  return {
    xml: '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd">' +
      `<target><architecture>${architecture}</architecture>${
        text.join("")
      }</target>`,
    registers: features.flatMap(({ registers }) => registers),
  };
}

const I386_FEATURES: readonly Feature[] = [
  {
    name: "org.gnu.gdb.i386.core",
    types: EFLAGS_TYPE,
    registers: [
      ...(["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"] as const).map((
        name,
      ) =>
        general(
          `e${name}`,
          `r${name}`,
          32,
          /^.p$/.test(name) ? "data_ptr" : "int32",
        )
      ),
      general("eip", "rip", 32, "code_ptr"),
      general("eflags", "rflags", 32, "i386_eflags"),
      ...SEGMENTS,
      ...X87,
    ],
  },
  {
    name: "org.syndbg.control",
    types: controlTypes(4),
    registers: [
      control("cr0", 32, "cr0_flags"),
      control("cr2", 32),
      control("cr3", 32),
      control("cr4", 32, "cr4_flags"),
      control("efer", 32, "efer_flags"),
    ],
  },
];

/** Registers of 32 bits. */
export const I386: Layout = layout("i386", I386_FEATURES);

/**
 * The same for a CPU in 16-bit code. GDB takes the greater one of this architecture and what its
 * user or file says, so that `i386` can still be had, as `i8086` could not be the other way round.
 */
export const I8086: Layout = layout("i8086", I386_FEATURES);

/** Registers of 64 bits. */
export const AMD64: Layout = layout("i386:x86-64", [
  {
    name: "org.gnu.gdb.i386.core",
    types: EFLAGS_TYPE,
    registers: [
      ...([
        "rax",
        "rbx",
        "rcx",
        "rdx",
        "rsi",
        "rdi",
        "rbp",
        "rsp",
        "r8",
        "r9",
        "r10",
        "r11",
        "r12",
        "r13",
        "r14",
        "r15",
      ] as const).map((name) =>
        general(name, name, 64, /^r.p$/.test(name) ? "data_ptr" : "int64")
      ),
      general("rip", "rip", 64, "code_ptr"),
      general("eflags", "rflags", 32, "i386_eflags"),
      ...SEGMENTS,
      ...X87,
    ],
  },
  {
    name: "org.gnu.gdb.i386.segments",
    registers: [segmentBase("fs"), segmentBase("gs")],
  },
  {
    name: "org.syndbg.control",
    types: controlTypes(8),
    registers: [
      KERNEL_GS_BASE,
      control("cr0", 64, "cr0_flags"),
      control("cr2", 64),
      control("cr3", 64),
      control("cr4", 64, "cr4_flags"),
      control("cr8", 64),
      control("efer", 64, "efer_flags"),
    ],
  },
]);

/**
 * What GDB is to be told of a vCPU for the time of a connection, for it does not ask again.
 *
 * @param amd64 64-bit registers even if long mode is not active.
 */
export function layoutFor(vcpu: Vcpu, amd64: boolean): Layout {
  const system = vcpu.getSystemRegisters();
  if (amd64 || longMode(system)) return AMD64;
  return system.cs.db ? I386 : I8086;
}

/** Number of hexadecimal digits. */
function digits({ bits }: Register): number {
  return bits / 4;
}

/** A value as hexadecimal digits in the target's byte order; unknown is `x` for each. */
function encode(register: Register, value: bigint | undefined): string {
  const count = digits(register);
  if (value === undefined) return "x".repeat(count);
  return BigInt.asUintN(register.bits, value).toString(16)
    .padStart(count, "0").match(/../g)!.reverse().join("");
}

function decode(text: string): bigint {
  return BigInt(`0x${text.match(/../g)!.reverse().join("")}`);
}

function isHex(text: string, length: number): boolean {
  return text.length === length && /^[0-9a-f]*$/i.test(text);
}

/** All registers, as packet `g` wants them. */
export function readAll({ registers }: Layout, vcpu: Vcpu): string {
  const state = new State(vcpu);
  return registers.map((register) => encode(register, register.read?.(state)))
    .join("");
}

/** The register of a number, or undefined if there is none. */
export function readOne(
  { registers }: Layout,
  vcpu: Vcpu,
  number: number,
): string | undefined {
  const register = registers[number];
  return register && encode(register, register.read?.(new State(vcpu)));
}

/** Sets the register of a number; false if that cannot be. */
export function writeOne(
  { registers }: Layout,
  vcpu: Vcpu,
  number: number,
  text: string,
): boolean {
  const register = registers[number];
  if (register?.write === undefined || !isHex(text, digits(register))) {
    return false;
  }
  return register.write(new State(vcpu), decode(text));
}

/** Sets all registers, as packet `G` has them; what does not change is left alone. */
export function writeAll(layout: Layout, vcpu: Vcpu, text: string): boolean {
  const before = readAll(layout, vcpu);
  if (!isHex(text, before.length)) return false;
  let done = true;
  let at = 0;
  layout.registers.forEach((register, number) => {
    const end = at + digits(register);
    const value = text.slice(at, end).toLowerCase();
    // Of what is not known GDB sends zeros.
    if (value !== before.slice(at, end) && register.read !== undefined) {
      done = writeOne(layout, vcpu, number, value) && done;
    }
    at = end;
  });
  return done;
}
