/**
 * Instructions that reach the CPU's control state: flags, control registers, MSRs, CPUID, time,
 * interrupts by software, fast system calls, hypercalls (SDM volume 2; APM volume 3).
 *
 * @module
 */
import { HypercallResult, MsrResult } from "../backend.ts";
import { readAddress } from "./access.ts";
import { linearOf } from "./address.ts";
import {
  loadMachineStatus,
  readControl,
  readDebug,
  saveAreaSize,
  writeControl,
  writeDebug,
} from "./control.ts";
import type { Cpu } from "./cpu.ts";
import { gp0, undefinedOpcode, Vector } from "./fault.ts";
import { popFlags } from "./far.ts";
import { overflow, readFlags, setArithmeticFlags } from "./flags.ts";
import { deliver, pendSingleStep, Source, stopForHost } from "./interrupts.ts";
import {
  ACTIVITY,
  Activity,
  Attr,
  CPL,
  CR0,
  CR4,
  EA,
  EFER,
  EFLAGS,
  Event,
  EVENTS,
  Flag,
  HIGH,
  MODE,
  Mode,
  MSR_APIC_BASE,
  MSR_CSTAR,
  MSR_FMASK,
  MSR_LSTAR,
  MSR_STAR,
  MSR_SYSENTER_CS,
  MSR_SYSENTER_EIP,
  MSR_SYSENTER_ESP,
  MSR_TSC_AUX,
  PENDING_DB,
  R_IMM,
  RIP,
  SEG,
  Seg,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SEL,
  SEG_WORDS,
  SHADOW,
  XCR0,
} from "./layout.ts";
import { updateMode } from "./mode.ts";
import { guestWriteOwnMsr, OwnMsr, readOwnMsr, readTsc } from "./msrs.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64, putZero } from "./operand.ts";
import { canonical, Cr, flushTlb } from "./paging.ts";
import { restart } from "./repeat.ts";
import { peek, push, release, RSP } from "./stack.ts";
import { setDebugStatus } from "./watch.ts";

const RAX = 0, RCX = 2, RDX = 4, RBX = 6, R11 = 22;
const PAIR = new Uint32Array(2);
/** What an MSR access or a hypercall takes the host, in instructions. */
const HOST_COST = 64;
/** Bit 11 of IA32_APIC_BASE. */
const APIC_ENABLE = 0x800;
/** Bit of CPUID leaf 1. */
const APIC_EDX = 0x200;

function supervisorOnly(cpu: Cpu): void {
  if (cpu.i32[CPL] !== 0) gp0(cpu);
}

function iopl(cpu: Cpu): number {
  return (cpu.i32[EFLAGS]! >>> 12) & 3;
}

/** CLI and STI: CPL against IOPL; without VME virtual-8086 mode needs IOPL 3. */
function checkInterruptFlag(cpu: Cpu): void {
  const mode = cpu.i32[MODE]!;
  if ((mode & Mode.Protected) === 0) return;
  if ((mode & Mode.V86) !== 0 ? iopl(cpu) < 3 : cpu.i32[CPL]! > iopl(cpu)) {
    gp0(cpu);
  }
}

function cli(cpu: Cpu): void {
  checkInterruptFlag(cpu);
  cpu.i32[EFLAGS] = cpu.i32[EFLAGS]! & ~Flag.IF;
}

function sti(cpu: Cpu): void {
  checkInterruptFlag(cpu);
  const i = cpu.i32;
  if ((i[EFLAGS]! & Flag.IF) !== 0) return;
  i[EFLAGS] = i[EFLAGS]! | Flag.IF;
  i[SHADOW] = 1;
  updateMode(cpu);
}

/** PUSHF, POPF and INT n in virtual-8086 mode need IOPL 3. */
function checkV86(cpu: Cpu): void {
  if ((cpu.i32[MODE]! & Mode.V86) !== 0 && iopl(cpu) < 3) gp0(cpu);
}

function pushFlags(size: number): Handler {
  return (cpu) => {
    checkV86(cpu);
    // RF and VM read as 0 (SDM volume 2B, PUSHF).
    push(cpu, readFlags(cpu) & ~(Flag.RF | Flag.VM), 0, size);
  };
}

function popFlagsOf(size: number): Handler {
  return (cpu) => {
    checkV86(cpu);
    const image = peek(cpu, 0, size);
    release(cpu, size);
    const protectedMode = (cpu.i32[MODE]! & Mode.Protected) !== 0;
    // RF, and at CPL 0 VIF and VIP, are cleared whatever was popped (SDM volume 2B, POPF).
    popFlags(
      cpu,
      image & ~(Flag.RF | Flag.VIF | Flag.VIP),
      size,
      protectedMode ? cpu.i32[CPL]! : 0,
    );
    updateMode(cpu);
  };
}

function hlt(cpu: Cpu): void {
  supervisorOnly(cpu);
  cpu.i32[ACTIVITY] = Activity.Halted;
  cpu.i32[EVENTS] = cpu.i32[EVENTS]! | Event.Stopped;
}

function cpuid(cpu: Cpu): void {
  const i = cpu.i32;
  const leaf = i[RAX]! >>> 0, subleaf = i[RCX]! >>> 0;
  const entry = cpu.cpuid.query(leaf, subleaf);
  let ebx = entry?.ebx ?? 0, ecx = entry?.ecx ?? 0, edx = entry?.edx ?? 0;
  if (leaf === 1) {
    // A local APIC that is switched off in IA32_APIC_BASE is not shown (SDM volume 3A, 11.4.3).
    if ((i[MSR_APIC_BASE]! & APIC_ENABLE) === 0) edx &= ~APIC_EDX;
    ebx = (ebx & 0xff_ffff) | (cpu.vcpu << 24);
    ecx = (ecx & ~(1 << 27)) |
      ((i[CR4]! & Cr.OSXSAVE) !== 0 ? 1 << 27 : 0);
  } else if (leaf === 0xd && subleaf < 2 && entry !== undefined) {
    ebx = saveAreaSize(i[XCR0]!);
  }
  put32(cpu, 4 * RAX, (entry?.eax ?? 0) | 0);
  put32(cpu, 4 * RBX, ebx | 0);
  put32(cpu, 4 * RCX, ecx | 0);
  put32(cpu, 4 * RDX, edx | 0);
}

function checkTsc(cpu: Cpu): void {
  if ((cpu.i32[CR4]! & Cr.TSD) !== 0) supervisorOnly(cpu);
}

function putPair(cpu: Cpu): void {
  put32(cpu, 4 * RAX, PAIR[0]! | 0);
  put32(cpu, 4 * RDX, PAIR[1]! | 0);
}

function rdtsc(cpu: Cpu): void {
  checkTsc(cpu);
  readTsc(cpu, PAIR);
  putPair(cpu);
}

function rdtscp(cpu: Cpu): void {
  checkTsc(cpu);
  readTsc(cpu, PAIR);
  putPair(cpu);
  put32(cpu, 4 * RCX, cpu.i32[MSR_TSC_AUX]!);
}

function rdpid(size: number): Handler {
  return (cpu, a) => putZero(cpu, a, cpu.i32[MSR_TSC_AUX]!, size);
}

function rdmsr(cpu: Cpu): void {
  supervisorOnly(cpu);
  const index = cpu.i32[RCX]! >>> 0;
  if (!readOwnMsr(cpu, index, PAIR)) {
    PAIR[0] = 0;
    PAIR[1] = 0;
    cpu.spent += HOST_COST;
    if (cpu.host.readMsr(cpu.vcpu, index, PAIR) !== MsrResult.Handled) {
      gp0(cpu);
    }
  }
  putPair(cpu);
}

function wrmsr(cpu: Cpu): void {
  supervisorOnly(cpu);
  const i = cpu.i32;
  const index = i[RCX]! >>> 0;
  const own = guestWriteOwnMsr(cpu, index, i[RAX]!, i[RDX]!);
  if (own === OwnMsr.Done) return;
  cpu.spent += HOST_COST;
  if (
    own === OwnMsr.Refused ||
    cpu.host.writeMsr(cpu.vcpu, index, i[RAX]! >>> 0, i[RDX]! >>> 0) !==
      MsrResult.Handled
  ) gp0(cpu);
}

/** Loads a flat segment as SYSCALL, SYSRET, SYSENTER and SYSEXIT do, without a descriptor. */
function flat(cpu: Cpu, seg: number, selector: number, attr: number): void {
  const i = cpu.i32;
  const at = SEG + seg * SEG_WORDS;
  i[at + SEG_SEL] = selector & 0xffff;
  i[at + SEG_BASE] = 0;
  i[at + SEG_BASE + 1] = 0;
  i[at + SEG_LIMIT] = -1;
  i[at + SEG_ATTR] = attr;
}

const CODE32 = 0x9b | Attr.Db | Attr.G;
const CODE64 = 0x9b | Attr.L | Attr.G;
const DATA32 = 0x93 | Attr.Db | Attr.G;
const DPL3 = 3 << Attr.DplShift;

/** SYSCALL as AMD has it: legacy and compatibility mode too (APM volume 3). */
function syscall(cpu: Cpu): void {
  const i = cpu.i32;
  if ((i[EFER]! & Cr.SCE) === 0) undefinedOpcode(cpu);
  const flags = readFlags(cpu);
  const selector = i[MSR_STAR + 1]! & 0xfffc;
  if ((i[EFER]! & Cr.LMA) !== 0) {
    const target = (i[MODE]! & Mode.Long) !== 0 ? MSR_LSTAR : MSR_CSTAR;
    i[RCX] = i[RIP]!;
    i[RCX + 1] = i[RIP + 1]!;
    i[R11] = flags & ~Flag.RF;
    i[R11 + 1] = 0;
    i[RIP] = i[target]!;
    i[RIP + 1] = i[target + 1]!;
    i[EFLAGS] = (flags & ~i[MSR_FMASK]! & ~Flag.RF) | 2;
    setArithmeticFlags(cpu, i[EFLAGS]!);
    flat(cpu, Seg.CS, selector, CODE64);
  } else {
    i[RCX] = i[RIP]!;
    i[RCX + 1] = 0;
    i[RIP] = i[MSR_STAR]!;
    i[RIP + 1] = 0;
    i[EFLAGS] = flags & ~(Flag.VM | Flag.IF | Flag.RF);
    flat(cpu, Seg.CS, selector, CODE32);
  }
  flat(cpu, Seg.SS, selector + 8, DATA32);
  i[CPL] = 0;
  // TF counts at the end of SYSCALL and SYSRET, not at the start.
  cpu.trapDone = (i[EFLAGS]! & Flag.TF) === 0;
  updateMode(cpu);
}

/** SYSRET; `wide` returns to 64-bit mode. SS keeps its hidden part on AMD; a flat one serves both. */
function sysret(wide: boolean): Handler {
  return (cpu) => {
    const i = cpu.i32;
    if ((i[EFER]! & Cr.SCE) === 0) undefinedOpcode(cpu);
    if ((i[CR0]! & Cr.PE) === 0 || i[CPL] !== 0) gp0(cpu);
    const base = i[MSR_STAR + 1]! >>> 16;
    if ((i[EFER]! & Cr.LMA) !== 0) {
      if (wide && !canonical(i[RCX + 1]!)) gp0(cpu);
      i[RIP] = i[RCX]!;
      i[RIP + 1] = wide ? i[RCX + 1]! : 0;
      const mask = Flag.Arithmetic | Flag.TF | Flag.IF | Flag.DF | Flag.IOPL |
        Flag.NT | Flag.AC | Flag.ID | Flag.VIF | Flag.VIP;
      i[EFLAGS] = (i[R11]! & mask) | 2;
      setArithmeticFlags(cpu, i[R11]!);
      flat(
        cpu,
        Seg.CS,
        (base + (wide ? 16 : 0)) | 3,
        (wide ? CODE64 : CODE32) | DPL3,
      );
    } else {
      i[RIP] = i[RCX]!;
      i[RIP + 1] = 0;
      i[EFLAGS] = i[EFLAGS]! | Flag.IF;
      flat(cpu, Seg.CS, base | 3, CODE32 | DPL3);
    }
    flat(cpu, Seg.SS, (base + 8) | 3, DATA32 | DPL3);
    i[CPL] = 3;
    if ((i[EFLAGS]! & Flag.TF) !== 0) pendSingleStep(cpu);
    updateMode(cpu);
  };
}

/** SYSENTER: in long mode as Intel has it (AMD has none there). */
function sysenter(cpu: Cpu): void {
  const i = cpu.i32;
  if ((i[CR0]! & Cr.PE) === 0 || (i[MSR_SYSENTER_CS]! & 0xfffc) === 0) {
    gp0(cpu);
  }
  const long = (i[EFER]! & Cr.LMA) !== 0;
  i[EFLAGS] = i[EFLAGS]! & ~(Flag.VM | Flag.IF | Flag.RF);
  const selector = i[MSR_SYSENTER_CS]! & 0xfffc;
  flat(cpu, Seg.CS, selector, long ? CODE64 : CODE32);
  flat(cpu, Seg.SS, selector + 8, DATA32);
  i[CPL] = 0;
  i[RSP] = i[MSR_SYSENTER_ESP]!;
  i[RSP + 1] = long ? i[MSR_SYSENTER_ESP + 1]! : 0;
  i[RIP] = i[MSR_SYSENTER_EIP]!;
  i[RIP + 1] = long ? i[MSR_SYSENTER_EIP + 1]! : 0;
  updateMode(cpu);
}

function sysexit(wide: boolean): Handler {
  return (cpu) => {
    const i = cpu.i32;
    if (
      (i[MSR_SYSENTER_CS]! & 0xfffc) === 0 || (i[CR0]! & Cr.PE) === 0 ||
      i[CPL] !== 0
    ) gp0(cpu);
    if (wide && (!canonical(i[RCX + 1]!) || !canonical(i[RDX + 1]!))) {
      gp0(cpu);
    }
    const base = i[MSR_SYSENTER_CS]! & 0xfffc;
    flat(
      cpu,
      Seg.CS,
      (base + (wide ? 32 : 16)) | 3,
      (wide ? CODE64 : CODE32) | DPL3,
    );
    flat(cpu, Seg.SS, (base + (wide ? 40 : 24)) | 3, DATA32 | DPL3);
    i[CPL] = 3;
    i[RSP] = i[RCX]!;
    i[RSP + 1] = wide ? i[RCX + 1]! : 0;
    i[RIP] = i[RDX]!;
    i[RIP + 1] = wide ? i[RDX + 1]! : 0;
    updateMode(cpu);
  };
}

/** INT n. */
function softwareInterrupt(cpu: Cpu, a: number): void {
  checkV86(cpu);
  deliver(cpu, cpu.u8[a]!, Source.Software, -1, false);
}

function breakpoint(cpu: Cpu, _a: number, _b: number, pc: number): void {
  if (cpu.hostBreakpoints) {
    restart(cpu, pc);
    stopForHost(cpu, 0);
    return;
  }
  deliver(cpu, Vector.BP, Source.Software, -1, false);
}

function into(cpu: Cpu): void {
  if (overflow(cpu)) deliver(cpu, Vector.OF, Source.Software, -1, false);
}

/** INT1: one #DB together with conditions that MOV SS has held back. */
function int1(cpu: Cpu): void {
  const i = cpu.i32;
  if (i[PENDING_DB] !== 0) {
    setDebugStatus(cpu, i[PENDING_DB]!);
    i[PENDING_DB] = 0;
    i[EVENTS] = i[EVENTS]! & ~Event.Debug;
  }
  deliver(cpu, Vector.DB, Source.External, -1, false);
}

function moveFromControl(cpu: Cpu, a: number, _b: number, pc: number): void {
  supervisorOnly(cpu);
  moveOut(cpu, a, readControl(cpu, cpu.i32[pc + R_IMM + 1]!));
}

function moveOut(cpu: Cpu, a: number, low: number): void {
  if ((cpu.i32[MODE]! & Mode.Long) !== 0) put64(cpu, a, low, cpu.i32[HIGH]!);
  else put32(cpu, a, low);
}

function moveToControl(cpu: Cpu, _a: number, b: number, pc: number): void {
  supervisorOnly(cpu);
  const i = cpu.i32;
  const high = (i[MODE]! & Mode.Long) !== 0 ? i[(b >> 2) + 1]! : 0;
  writeControl(cpu, i[pc + R_IMM + 1]!, i[b >> 2]!, high);
}

function moveFromDebug(cpu: Cpu, a: number, _b: number, pc: number): void {
  supervisorOnly(cpu);
  moveOut(cpu, a, readDebug(cpu, cpu.i32[pc + R_IMM + 1]!));
}

function moveToDebug(cpu: Cpu, _a: number, b: number, pc: number): void {
  supervisorOnly(cpu);
  const i = cpu.i32;
  const high = (i[MODE]! & Mode.Long) !== 0 ? i[(b >> 2) + 1]! : 0;
  writeDebug(cpu, i[pc + R_IMM + 1]!, i[b >> 2]!, high);
}

function lmsw(cpu: Cpu, a: number): void {
  supervisorOnly(cpu);
  loadMachineStatus(cpu, cpu.dv.getUint16(a, true));
}

function smsw(size: number): Handler {
  return (cpu, a) => {
    if ((cpu.i32[CR4]! & Cr.UMIP) !== 0) supervisorOnly(cpu);
    putZero(cpu, a, cpu.i32[CR0]!, size);
  };
}

function clts(cpu: Cpu): void {
  supervisorOnly(cpu);
  cpu.i32[CR0] = cpu.i32[CR0]! & ~Cr.TS;
  updateMode(cpu);
}

/** INVLPG: all of the TLB, because a large page may be cached in many entries. */
function invlpg(cpu: Cpu): void {
  supervisorOnly(cpu);
  flushTlb(cpu);
}

function invpcid(cpu: Cpu, a: number, b: number): void {
  supervisorOnly(cpu);
  const i = cpu.i32;
  const type = i[a >> 2]! >>> 0;
  const typeHigh = (i[MODE]! & Mode.Long) !== 0 ? i[(a >> 2) + 1]! : 0;
  if (typeHigh !== 0 || type > 3) gp0(cpu);
  const pcid = cpu.dv.getInt32(b, true);
  if ((pcid & ~0xfff) !== 0 || cpu.dv.getInt32(b + 4, true) !== 0) gp0(cpu);
  if (type < 2 && pcid !== 0 && (i[CR4]! & Cr.PCIDE) === 0) gp0(cpu);
  if (type === 0 && !canonical(cpu.dv.getInt32(b + 12, true))) gp0(cpu);
  flushTlb(cpu);
}

/** INVD, WBINVD: there is no cache to be seen. */
function cacheFlush(cpu: Cpu): void {
  supervisorOnly(cpu);
}

function setAc(on: boolean): Handler {
  return (cpu) => {
    if (cpu.i32[CPL] !== 0) undefinedOpcode(cpu);
    const flags = cpu.i32[EFLAGS]!;
    cpu.i32[EFLAGS] = on ? flags | Flag.AC : flags & ~Flag.AC;
    updateMode(cpu);
  };
}

function rdpmc(cpu: Cpu): void {
  if ((cpu.i32[CR4]! & Cr.PCE) === 0) supervisorOnly(cpu);
  // No performance counters: every index is invalid.
  gp0(cpu);
}

/** VMCALL and VMMCALL: whoever made the machine answers. */
function hypercall(cpu: Cpu, _a: number, _b: number, pc: number): void {
  const i = cpu.i32;
  const mode = i[MODE]!;
  const frame = cpu.frame;
  frame.vcpu = cpu.vcpu;
  frame.longMode = (mode & Mode.Long) !== 0;
  frame.protectedMode = (mode & (Mode.Protected | Mode.V86)) ===
    Mode.Protected;
  frame.cpl = i[CPL]!;
  cpu.spent += HOST_COST;
  switch (cpu.host.hypercall(frame)) {
    case HypercallResult.Handled:
      return;
    case HypercallResult.Retry:
      restart(cpu, pc);
      return;
    default:
      undefinedOpcode(cpu);
  }
}

/** CLFLUSH, CLFLUSHOPT, CLWB: an access of one byte without effect. */
function flushLine(cpu: Cpu, _a: number, _b: number, pc: number): void {
  linearOf(cpu, pc, 1, false);
  readAddress(cpu, cpu.i32[EA]!, cpu.i32[EA + 1]!, 1);
}

/** The family's lines of the opcode tables. */
export const systemOps: readonly OpDef[] = [
  { code: "FA", run: cli, flags: "ends" },
  { code: "FB", run: sti, flags: "ends" },
  {
    code: "9C",
    run: { 16: pushFlags(2), 32: pushFlags(4), 64: pushFlags(8) },
    flags: "d64",
  },
  {
    code: "9D",
    run: { 16: popFlagsOf(2), 32: popFlagsOf(4), 64: popFlagsOf(8) },
    flags: "d64 ends",
  },
  { code: "F4", run: hlt, flags: "ends" },
  { code: "0F A2", run: cpuid },
  { code: "0F 31", run: rdtsc },
  { code: "0F 01 F9", run: rdtscp },
  { code: "0F 33", run: rdpmc },
  {
    code: "F3 0F C7 /7 r",
    operands: "=Ev",
    run: { 16: rdpid(4), 32: rdpid(4), 64: rdpid(8) },
  },
  { code: "0F 32", run: rdmsr, flags: "ends" },
  { code: "0F 30", run: wrmsr, flags: "ends" },
  { code: "0F 05", run: syscall, flags: "ends" },
  {
    code: "0F 07",
    run: { 16: sysret(false), 32: sysret(false), 64: sysret(true) },
    flags: "ends",
  },
  { code: "0F 34", run: sysenter, flags: "ends" },
  {
    code: "0F 35",
    run: { 16: sysexit(false), 32: sysexit(false), 64: sysexit(true) },
    flags: "ends",
  },
  { code: "CC", run: breakpoint, flags: "ends" },
  { code: "CD", operands: "Ib", run: softwareInterrupt, flags: "ends" },
  { code: "CE", run: into, flags: "ends no64" },
  { code: "F1", run: int1, flags: "ends" },
  {
    code: "0F 20",
    operands: "=Fv Cd",
    run: moveFromControl,
    flags: "ends f64",
  },
  { code: "0F 22", operands: "Cd Fv", run: moveToControl, flags: "ends f64" },
  {
    code: "0F 21",
    operands: "=Fv Dd",
    run: moveFromDebug,
    flags: "ends f64",
  },
  { code: "0F 23", operands: "Dd Fv", run: moveToDebug, flags: "ends f64" },
  { code: "0F 01 /6", operands: "Ew", run: lmsw, flags: "ends" },
  { code: "0F 01 /4 m", operands: "=Ew", run: smsw(2) },
  {
    code: "0F 01 /4 r",
    operands: "=Ev",
    run: { 16: smsw(2), 32: smsw(4), 64: smsw(8) },
  },
  { code: "0F 06", run: clts, flags: "ends" },
  { code: "0F 01 /7 m", operands: "M", run: invlpg, flags: "ends" },
  { code: "66 0F 38 82 m", operands: "Gy Mdq", run: invpcid, flags: "ends" },
  { code: "0F 08", run: cacheFlush },
  { code: "0F 09", run: cacheFlush },
  { code: "0F 01 CA", run: setAc(false), flags: "ends" },
  { code: "0F 01 CB", run: setAc(true), flags: "ends" },
  { code: "0F 01 C1", run: hypercall, flags: "ends" },
  { code: "0F 01 D9", run: hypercall, flags: "ends" },
  { code: "0F AE /7 m", operands: "M", run: flushLine },
  { code: "66 0F AE /7 m", operands: "M", run: flushLine },
  { code: "66 0F AE /6 m", operands: "M", run: flushLine },
];
