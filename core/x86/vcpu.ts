import type {
  CpuidEntry,
  DescriptorTable,
  GuestDebug,
  Registers,
  Segment,
  SystemRegisters,
  Vcpu,
  VcpuExit,
  VcpuState,
} from "../backend.ts";
import { CpuidTable } from "./cpuid_table.ts";
import type { Engine } from "./engine.ts";
import { readFlags, setArithmeticFlags } from "./flags.ts";
import {
  ACTIVITY,
  Activity,
  Attr,
  CPL,
  CR0,
  CR2,
  CR3,
  CR4,
  CR8,
  EFER,
  EFLAGS,
  Event,
  EVENTS,
  Flag,
  GDTR,
  GPR,
  IDTR,
  MSR_APIC_BASE,
  PENDING_DB,
  RESUME_ACTIVITY,
  RIP,
  SEG,
  Seg,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SEL,
  SEG_WORDS,
  STATE_BYTES,
  ZERO,
} from "./layout.ts";
import { updateMode } from "./mode.ts";
import { readOwnMsr, tscOf, writeOwnMsr } from "./msrs.ts";
import {
  Access,
  Cr,
  flushTlb,
  loadPdptes,
  walk,
  walkedAddress,
} from "./paging.ts";
import { init, reset } from "./reset.ts";

const FORMAT = "syndbg-interpreter-1";
const IA32_TSC = 0x10;
/** Instructions between looks at the clock: well under a millisecond. */
const CHUNK = 20_000;
/** The least of them, at the end of a slice. */
const SHORT_CHUNK = 1000;
/** Instructions in a nanosecond, estimated low: a slice ends when a timer is due. */
const SPEED = 0.02;
const NAMES = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;
const SEGMENTS = {
  es: Seg.ES,
  cs: Seg.CS,
  ss: Seg.SS,
  ds: Seg.DS,
  fs: Seg.FS,
  gs: Seg.GS,
  ldt: Seg.LDTR,
  tr: Seg.TR,
} as const;

function get64(i: Int32Array, at: number): bigint {
  return BigInt(i[at]! >>> 0) | (BigInt(i[at + 1]! >>> 0) << 32n);
}

function set64(i: Int32Array, at: number, value: bigint): void {
  i[at] = Number(BigInt.asIntN(32, value));
  i[at + 1] = Number(BigInt.asIntN(32, value >> 32n));
}

function low32(value: bigint): number {
  return Number(BigInt.asIntN(32, value));
}

function getSegment(i: Int32Array, seg: number): Segment {
  const at = SEG + seg * SEG_WORDS;
  const attr = i[at + SEG_ATTR]!;
  return {
    selector: i[at + SEG_SEL]! & 0xffff,
    base: get64(i, at + SEG_BASE),
    limit: i[at + SEG_LIMIT]! >>> 0,
    type: attr & Attr.TypeMask,
    s: (attr & Attr.S) !== 0,
    dpl: (attr >>> Attr.DplShift) & 3,
    present: (attr & Attr.Present) !== 0,
    avl: (attr & Attr.Avl) !== 0,
    l: (attr & Attr.L) !== 0,
    db: (attr & Attr.Db) !== 0,
    g: (attr & Attr.G) !== 0,
    unusable: (attr & Attr.Unusable) !== 0,
  };
}

function setSegment(i: Int32Array, seg: number, value: Segment): void {
  const at = SEG + seg * SEG_WORDS;
  i[at + SEG_SEL] = value.selector & 0xffff;
  set64(i, at + SEG_BASE, value.base);
  i[at + SEG_LIMIT] = value.limit | 0;
  i[at + SEG_ATTR] = (value.type & Attr.TypeMask) | (value.s ? Attr.S : 0) |
    ((value.dpl & 3) << Attr.DplShift) | (value.present ? Attr.Present : 0) |
    (value.avl ? Attr.Avl : 0) | (value.l ? Attr.L : 0) |
    (value.db ? Attr.Db : 0) | (value.g ? Attr.G : 0) |
    (value.unusable ? Attr.Unusable : 0);
}

function getTable(i: Int32Array, at: number): DescriptorTable {
  return { base: get64(i, at), limit: i[at + 2]! & 0xffff };
}

function setTable(i: Int32Array, at: number, value: DescriptorTable): void {
  set64(i, at, value.base);
  i[at + 2] = value.limit & 0xffff;
}

/** A vCPU of the interpreter. Its state is in the engine's memory while it is the active one. */
export class InterpreterVcpu implements Vcpu {
  readonly id: number;
  /** State while another vCPU is active. */
  readonly state: Int32Array<ArrayBuffer> = new Int32Array(STATE_BYTES >> 2);
  /** CPUID leaves of this vCPU. */
  cpuid: CpuidTable = new CpuidTable([]);
  /** What the host debugs. */
  debug: GuestDebug | undefined;
  readonly #engine: Engine;
  /** The INT3 at RIP is the guest's. */
  #passing = false;
  readonly #exit: {
    reason: VcpuExit["reason"];
    rip: bigint;
    dr6: bigint;
    breakpoint: boolean;
    message: string;
  } = {
    reason: "interrupted",
    rip: 0n,
    dr6: 0n,
    breakpoint: false,
    message: "",
  };

  /** Made by {@linkcode InterpreterVm.createVcpu} only. */
  constructor(engine: Engine, id: number) {
    this.#engine = engine;
    this.id = id;
  }

  run(slice = 10): VcpuExit {
    const engine = this.#engine;
    const cpu = engine.activate(this);
    const i = cpu.i32;
    let left = slice * 1e6;
    const deadline = cpu.clock() + left;
    const exit = this.#exit;
    if (i[ACTIVITY] === Activity.GuestDebug) {
      i[ACTIVITY] = i[RESUME_ACTIVITY]!;
      if (i[ACTIVITY] === Activity.Running) {
        i[EVENTS] = i[EVENTS]! & ~Event.Stopped;
      }
      i[PENDING_DB] = 0;
    }
    if (this.#passing) {
      this.#passing = false;
      cpu.hostBreakpoints = false;
      cpu.hostBlocksInterrupts = true;
      engine.execute(1);
      engine.applyDebug(this);
    }
    for (;;) {
      engine.execute(
        slice === 0
          ? CHUNK
          : Math.min(CHUNK, Math.max(SHORT_CHUNK, left * SPEED)),
      );
      if ((i[EVENTS]! & Event.Stopped) !== 0) {
        i[EVENTS] = i[EVENTS]! & ~Event.Kick;
        if (i[ACTIVITY] === Activity.Shutdown) exit.reason = "shutdown";
        else if (i[ACTIVITY] === Activity.GuestDebug) {
          exit.reason = "debug";
          exit.rip = get64(i, RIP);
          exit.dr6 = BigInt(i[PENDING_DB]! >>> 0);
          exit.breakpoint = i[PENDING_DB] === 0;
        } else exit.reason = "hlt";
        return exit as VcpuExit;
      }
      left = deadline - cpu.clock();
      if ((i[EVENTS]! & Event.Kick) !== 0 || left <= 0) {
        i[EVENTS] = i[EVENTS]! & ~Event.Kick;
        exit.reason = "interrupted";
        return exit as VcpuExit;
      }
    }
  }

  kick(): void {
    this.#raise(Event.Kick);
  }

  setInterruptRequest(asserted: boolean): void {
    if (asserted) this.#raise(Event.Interrupt);
    else this.#engine.words(this)[EVENTS]! &= ~Event.Interrupt;
  }

  injectNmi(): void {
    this.#raise(Event.Nmi);
  }

  setTaskPriority(priority: number): void {
    this.#engine.words(this)[CR8] = priority & 15;
  }

  flushTlb(): void {
    // Whoever becomes active begins with an empty one.
    const cpu = this.#engine.ifActive(this);
    if (cpu !== undefined) flushTlb(cpu);
  }

  reset(): void {
    const cpu = this.#engine.activate(this);
    reset(cpu);
    updateMode(cpu);
    flushTlb(cpu);
  }

  init(): void {
    const cpu = this.#engine.activate(this);
    init(cpu);
    updateMode(cpu);
    flushTlb(cpu);
  }

  startup(vector: number): void {
    const cpu = this.#engine.activate(this);
    const i = cpu.i32;
    const cs = SEG + Seg.CS * SEG_WORDS;
    i[cs + SEG_SEL] = (vector & 255) << 8;
    set64(i, cs + SEG_BASE, BigInt(vector & 255) << 12n);
    set64(i, RIP, 0n);
    updateMode(cpu);
  }

  setCpuid(entries: readonly CpuidEntry[]): void {
    this.cpuid = new CpuidTable(entries);
    const cpu = this.#engine.ifActive(this);
    if (cpu !== undefined) cpu.cpuid = this.cpuid;
  }

  getRegisters(): Registers {
    const cpu = this.#engine.activate(this);
    const i = cpu.i32;
    const registers: Partial<Registers> = {
      rip: get64(i, RIP),
      rflags: BigInt(readFlags(cpu) >>> 0),
    };
    NAMES.forEach((name, n) => registers[name] = get64(i, GPR + 2 * n));
    return registers as Registers;
  }

  setRegisters(values: Partial<Registers>): void {
    const cpu = this.#engine.activate(this);
    const i = cpu.i32;
    NAMES.forEach((name, n) => {
      const value = values[name];
      if (value !== undefined) set64(i, GPR + 2 * n, value);
    });
    if (values.rip !== undefined) set64(i, RIP, values.rip);
    if (values.rflags !== undefined) {
      const flags = low32(values.rflags);
      i[EFLAGS] = (flags & FLAGS_MASK) | 2;
      setArithmeticFlags(cpu, flags);
      updateMode(cpu);
    }
  }

  getSystemRegisters(): SystemRegisters {
    const i = this.#engine.activate(this).i32;
    const word = (at: number): bigint => BigInt(i[at]! >>> 0);
    return {
      es: getSegment(i, Seg.ES),
      cs: getSegment(i, Seg.CS),
      ss: getSegment(i, Seg.SS),
      ds: getSegment(i, Seg.DS),
      fs: getSegment(i, Seg.FS),
      gs: getSegment(i, Seg.GS),
      tr: getSegment(i, Seg.TR),
      ldt: getSegment(i, Seg.LDTR),
      gdt: getTable(i, GDTR),
      idt: getTable(i, IDTR),
      cr0: word(CR0),
      cr2: get64(i, CR2),
      cr3: get64(i, CR3),
      cr4: word(CR4),
      cr8: word(CR8),
      efer: word(EFER),
      apicBase: get64(i, MSR_APIC_BASE),
    };
  }

  setSystemRegisters(values: Partial<SystemRegisters>): void {
    const cpu = this.#engine.activate(this);
    const i = cpu.i32;
    for (const [name, seg] of Object.entries(SEGMENTS)) {
      const value = values[name as keyof typeof SEGMENTS];
      if (value !== undefined) setSegment(i, seg, value);
    }
    // The DPL of SS is the CPL (SDM volume 3A, 5.5).
    if (values.ss !== undefined) i[CPL] = values.ss.dpl & 3;
    else if (values.cs !== undefined) i[CPL] = values.cs.dpl & 3;
    if (values.gdt !== undefined) setTable(i, GDTR, values.gdt);
    if (values.idt !== undefined) setTable(i, IDTR, values.idt);
    if (values.cr0 !== undefined) i[CR0] = low32(values.cr0);
    if (values.cr2 !== undefined) set64(i, CR2, values.cr2);
    if (values.cr3 !== undefined) set64(i, CR3, values.cr3);
    if (values.cr4 !== undefined) i[CR4] = low32(values.cr4);
    if (values.cr8 !== undefined) i[CR8] = low32(values.cr8) & 15;
    if (values.efer !== undefined) i[EFER] = low32(values.efer);
    if (values.apicBase !== undefined) set64(i, MSR_APIC_BASE, values.apicBase);
    const paePaging = (i[CR0]! & Cr.PG) !== 0 && (i[CR4]! & Cr.PAE) !== 0 &&
      (i[EFER]! & Cr.LMA) === 0;
    if (paePaging) loadPdptes(cpu, i[CR3]!);
    updateMode(cpu);
    flushTlb(cpu);
  }

  getMsr(index: number): bigint | undefined {
    const engine = this.#engine;
    // All of the machine's clocks may follow one TSC, whichever vCPU runs.
    if (index === IA32_TSC) {
      tscOf(engine.words(this), engine.clock(), MSR_VALUE);
    } else if (!readOwnMsr(engine.activate(this), index, MSR_VALUE)) {
      return undefined;
    }
    return BigInt(MSR_VALUE[0]!) | (BigInt(MSR_VALUE[1]!) << 32n);
  }

  setMsr(index: number, value: bigint): boolean {
    const cpu = this.#engine.activate(this);
    const done = writeOwnMsr(cpu, index, low32(value), low32(value >> 32n));
    updateMode(cpu);
    flushTlb(cpu);
    return done;
  }

  setGuestDebug(debug: GuestDebug | undefined): void {
    this.debug = debug;
    const cpu = this.#engine.activate(this);
    this.#engine.applyDebug(this);
    updateMode(cpu);
    flushTlb(cpu);
  }

  passBreakpoint(): void {
    this.#passing = true;
  }

  translate(linear: bigint): bigint | undefined {
    const cpu = this.#engine.activate(this);
    const low = low32(linear), high = low32(linear >> 32n);
    // A debugger looks at user pages too, SMAP or not.
    const found = walk(cpu, low, high, Access.Read, true) >= 0 ||
      walk(cpu, low, high, Access.User, true) >= 0;
    return found ? BigInt(walkedAddress(cpu)) : undefined;
  }

  save(): VcpuState {
    const cpu = this.#engine.activate(this);
    readFlags(cpu);
    return {
      format: FORMAT,
      data: {
        state: cpu.u8.slice(0, STATE_BYTES),
        // The clock is another one when the state comes back.
        tsc: this.getMsr(IA32_TSC) ?? 0n,
        cpuid: this.cpuid.entries.map((entry) => ({ ...entry })),
      },
    };
  }

  restore(state: VcpuState): void {
    const { state: bytes, tsc, cpuid } = state.data;
    if (
      state.format !== FORMAT || !(bytes instanceof Uint8Array) ||
      bytes.length !== STATE_BYTES || typeof tsc !== "bigint" ||
      !Array.isArray(cpuid) || !cpuid.every(isCpuidEntry)
    ) {
      throw new TypeError(`Cannot restore vCPU: not of format ${FORMAT}`);
    }
    const cpu = this.#engine.activate(this);
    cpu.u8.set(bytes);
    const i = cpu.i32;
    // Whatever else the words are, a guest could have made them so.
    i[ZERO] = 0;
    i[ZERO + 1] = 0;
    i[CPL] = i[CPL]! & 3;
    i[CR8] = i[CR8]! & 15;
    i[ACTIVITY] = i[ACTIVITY]! & 3;
    i[RESUME_ACTIVITY] = i[RESUME_ACTIVITY]! & 1;
    this.setCpuid(cpuid);
    this.setMsr(IA32_TSC, tsc);
  }

  #raise(event: number): void {
    const i = this.#engine.words(this);
    i[EVENTS] = i[EVENTS]! | event;
  }
}

function isCpuidEntry(value: unknown): value is CpuidEntry {
  if (typeof value !== "object" || value === null) return false;
  const { leaf, subleaf = 0, eax, ebx, ecx, edx } = value as CpuidEntry;
  return [leaf, subleaf, eax, ebx, ecx, edx].every((word) =>
    Number.isInteger(word)
  );
}

const MSR_VALUE = new Uint32Array(2);
const FLAGS_MASK = Flag.Arithmetic | Flag.TF | Flag.IF | Flag.DF | Flag.IOPL |
  Flag.NT | Flag.RF | Flag.VM | Flag.AC | Flag.VIF | Flag.VIP | Flag.ID;
