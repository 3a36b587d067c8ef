/**
 * Segment registers and descriptor tables as instructions see them.
 *
 * @module
 */
import { commit, load16, load32, load64, writeAddress } from "./access.ts";
import { linearOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { gp0, undefinedOpcode } from "./fault.ts";
import {
  farReturn,
  farTransfer,
  interruptReturn,
  loadFarPointer,
} from "./far.ts";
import { arithmeticFlags, setArithmeticFlags } from "./flags.ts";
import { MOV_SS_SHADOW } from "./interrupts.ts";
import {
  Attr,
  COMMIT_SIZE,
  CPL,
  CR4,
  EA,
  Flag,
  GDTR,
  HIGH,
  IDTR,
  MODE,
  Mode,
  MSR_KERNEL_GS_BASE,
  R_IMM,
  SEG,
  Seg,
  SEG_BASE,
  SEG_SEL,
  SEG_WORDS,
  SHADOW,
} from "./layout.ts";
import { updateMode } from "./mode.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64, putZero } from "./operand.ts";
import { canonical, Cr } from "./paging.ts";
import {
  descriptor,
  dplOf,
  loadLdt,
  loadSegment,
  loadTaskRegister,
  longActive,
  readDescriptor,
  SystemType,
} from "./segments.ts";
import { peek, push, release, RSP } from "./stack.ts";

const D = descriptor();

function selectorOf(cpu: Cpu, seg: number): number {
  return cpu.i32[SEG + seg * SEG_WORDS + SEG_SEL]! & 0xffff;
}

/** After SS was loaded nothing interrupts before the next instruction. */
function shadowStack(cpu: Cpu, seg: number): void {
  if (seg !== Seg.SS) return;
  cpu.i32[SHADOW] = MOV_SS_SHADOW;
  updateMode(cpu);
}

function moveToSegment(cpu: Cpu, _a: number, b: number, pc: number): void {
  const seg = cpu.i32[pc + R_IMM + 1]!;
  loadSegment(cpu, seg, cpu.dv.getUint16(b, true));
  shadowStack(cpu, seg);
}

/** MOV from a segment register to memory: always 16 bits. */
function storeSegment(cpu: Cpu, a: number, _b: number, pc: number): void {
  cpu.dv.setUint16(a, selectorOf(cpu, cpu.i32[pc + R_IMM + 1]!), true);
}

/** MOV from a segment register to a register: zero-extended. */
function moveFromSegment(size: number): Handler {
  return (cpu, a, _b, pc) =>
    putZero(cpu, a, selectorOf(cpu, cpu.i32[pc + R_IMM + 1]!), size);
}

function pushSegment(seg: number, size: number): Handler {
  return (cpu) => push(cpu, selectorOf(cpu, seg), 0, size);
}

function popSegment(seg: number, size: number): Handler {
  return (cpu) => {
    const selector = peek(cpu, 0, size) & 0xffff;
    const i = cpu.i32;
    const low = i[RSP]!, high = i[RSP + 1]!;
    // The stack pointer's size is that of the old SS.
    release(cpu, size);
    let done = false;
    try {
      loadSegment(cpu, seg, selector);
      done = true;
    } finally {
      if (!done) {
        i[RSP] = low;
        i[RSP + 1] = high;
      }
    }
    shadowStack(cpu, seg);
  };
}

/** LES, LDS, LSS, LFS, LGS. */
function loadPointer(seg: number, size: number): Handler {
  return (cpu, a, _b, pc) => {
    const pointer = loadFarPointer(cpu, pc, size);
    loadSegment(cpu, seg, pointer.selector);
    if (size === 2) cpu.dv.setInt16(a, pointer.low, true);
    else put32(cpu, a, pointer.low);
  };
}

function farDirect(size: number, call: boolean): Handler {
  return (cpu, _a, _b, pc) =>
    farTransfer(
      cpu,
      cpu.i32[pc + R_IMM + 1]!,
      cpu.i32[pc + R_IMM]!,
      0,
      size,
      call,
    );
}

function farIndirect(size: number, call: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    // AMD has no far pointers with an offset of 64 bits, but pushes as many.
    const { selector, low } = loadFarPointer(cpu, pc, Math.min(size, 4));
    farTransfer(cpu, selector, low, 0, size, call);
  };
}

function returnFar(size: number): Handler {
  return (cpu) => farReturn(cpu, size, 0);
}

function returnFarRelease(size: number): Handler {
  return (cpu, a) => farReturn(cpu, size, cpu.dv.getUint16(a, true));
}

function iret(size: number): Handler {
  return (cpu) => interruptReturn(cpu, size);
}

function supervisorOnly(cpu: Cpu): void {
  if (cpu.i32[CPL] !== 0) gp0(cpu);
}

/** User-mode instruction prevention: #GP outside CPL 0 where CR4.UMIP is set. */
function umip(cpu: Cpu): void {
  if ((cpu.i32[CR4]! & Cr.UMIP) !== 0) supervisorOnly(cpu);
}

function storeTable(at: number): Handler {
  return (cpu, _a, _b, pc) => {
    umip(cpu);
    const i = cpu.i32;
    const long = (i[MODE]! & Mode.Long) !== 0;
    const size = long ? 10 : 6;
    linearOf(cpu, pc, size, true);
    const to = writeAddress(cpu, i[EA]!, i[EA + 1]!, size);
    cpu.dv.setInt16(to, i[at + 2]!, true);
    cpu.dv.setInt32(to + 2, i[at]!, true);
    if (long) cpu.dv.setInt32(to + 6, i[at + 1]!, true);
    if (i[COMMIT_SIZE] !== 0) commit(cpu);
  };
}

function loadTable(at: number, wide: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    supervisorOnly(cpu);
    const i = cpu.i32;
    const long = (i[MODE]! & Mode.Long) !== 0;
    linearOf(cpu, pc, long ? 10 : 6, false);
    const low = i[EA]!, high = i[EA + 1]!;
    const baseAt = (low + 2) | 0;
    const baseAtHigh = (baseAt >>> 0) < (low >>> 0) && long
      ? (high + 1) | 0
      : high;
    const limit = load16(cpu, low, high);
    if (long) {
      const base = load64(cpu, baseAt, baseAtHigh);
      const baseHigh = i[HIGH]!;
      if (!canonical(baseHigh)) gp0(cpu);
      i[at] = base;
      i[at + 1] = baseHigh;
    } else {
      const base = load32(cpu, baseAt, baseAtHigh);
      i[at] = wide ? base : base & 0xff_ffff;
      i[at + 1] = 0;
    }
    i[at + 2] = limit;
  };
}

function storeSelector(seg: number, size: number): Handler {
  return (cpu, a) => {
    umip(cpu);
    putZero(cpu, a, selectorOf(cpu, seg), size);
  };
}

function storeSelectorMemory(seg: number): Handler {
  return (cpu, a) => {
    umip(cpu);
    cpu.dv.setUint16(a, selectorOf(cpu, seg), true);
  };
}

function lldt(cpu: Cpu, a: number): void {
  supervisorOnly(cpu);
  loadLdt(cpu, cpu.dv.getUint16(a, true));
}

function ltr(cpu: Cpu, a: number): void {
  supervisorOnly(cpu);
  loadTaskRegister(cpu, cpu.dv.getUint16(a, true));
}

function setZero(cpu: Cpu, zero: boolean): void {
  const flags = arithmeticFlags(cpu);
  setArithmeticFlags(cpu, zero ? flags | Flag.ZF : flags & ~Flag.ZF);
}

/** Reads a descriptor for LAR, LSL, VERR, VERW: false where it is out of reach. */
function reachable(cpu: Cpu, selector: number): boolean {
  if ((selector & 0xfffc) === 0) return false;
  if (!readDescriptor(cpu, D, selector, -1)) return false;
  const conforming = (D.attr & (Attr.S | Attr.Code | Attr.Conforming)) ===
    (Attr.S | Attr.Code | Attr.Conforming);
  const dpl = dplOf(D.attr);
  return conforming || (dpl >= cpu.i32[CPL]! && dpl >= (selector & 3));
}

function larType(cpu: Cpu): boolean {
  if ((D.attr & Attr.S) !== 0) return true;
  const type = D.attr & Attr.TypeMask;
  if (longActive(cpu)) {
    return type === SystemType.Ldt || type === SystemType.Tss32 ||
      type === SystemType.Tss32Busy || type === SystemType.CallGate32;
  }
  return [1, 2, 3, 4, 5, 9, 11, 12].includes(type);
}

function lslType(cpu: Cpu): boolean {
  if ((D.attr & Attr.S) !== 0) return true;
  const type = D.attr & Attr.TypeMask;
  return (longActive(cpu) ? [2, 9, 11] : [1, 2, 3, 9, 11]).includes(type);
}

function lar(size: number): Handler {
  return (cpu, a, b) => {
    const ok = reachable(cpu, cpu.dv.getUint16(b, true)) && larType(cpu);
    if (ok) {
      const value = D.high & 0xf0_ff00;
      putZero(cpu, a, size === 2 ? value & 0xff00 : value, size);
    }
    setZero(cpu, ok);
  };
}

function lsl(size: number): Handler {
  return (cpu, a, b) => {
    const ok = reachable(cpu, cpu.dv.getUint16(b, true)) && lslType(cpu);
    if (ok) putZero(cpu, a, D.limit, size);
    setZero(cpu, ok);
  };
}

function verr(cpu: Cpu, a: number): void {
  const ok = reachable(cpu, cpu.dv.getUint16(a, true)) &&
    (D.attr & Attr.S) !== 0 &&
    (D.attr & (Attr.Code | Attr.Writable)) !== Attr.Code;
  setZero(cpu, ok);
}

function verw(cpu: Cpu, a: number): void {
  const ok = reachable(cpu, cpu.dv.getUint16(a, true)) &&
    (D.attr & (Attr.S | Attr.Code | Attr.Writable)) ===
      (Attr.S | Attr.Writable);
  setZero(cpu, ok);
}

function arpl(cpu: Cpu, a: number, b: number): void {
  const destination = cpu.dv.getUint16(a, true);
  const rpl = cpu.dv.getUint16(b, true) & 3;
  const raise = (destination & 3) < rpl;
  if (raise) cpu.dv.setUint16(a, (destination & ~3) | rpl, true);
  setZero(cpu, raise);
}

function swapgs(cpu: Cpu): void {
  supervisorOnly(cpu);
  const i = cpu.i32;
  const at = SEG + Seg.GS * SEG_WORDS + SEG_BASE;
  const low = i[at]!, high = i[at + 1]!;
  i[at] = i[MSR_KERNEL_GS_BASE]!;
  i[at + 1] = i[MSR_KERNEL_GS_BASE + 1]!;
  i[MSR_KERNEL_GS_BASE] = low;
  i[MSR_KERNEL_GS_BASE + 1] = high;
}

function readBase(seg: number, size: number): Handler {
  return (cpu, a) => {
    if ((cpu.i32[CR4]! & Cr.FSGSBASE) === 0) undefinedOpcode(cpu);
    const at = SEG + seg * SEG_WORDS + SEG_BASE;
    if (size === 8) put64(cpu, a, cpu.i32[at]!, cpu.i32[at + 1]!);
    else put32(cpu, a, cpu.i32[at]!);
  };
}

function writeBase(seg: number, size: number): Handler {
  return (cpu, a) => {
    if ((cpu.i32[CR4]! & Cr.FSGSBASE) === 0) undefinedOpcode(cpu);
    const at = SEG + seg * SEG_WORDS + SEG_BASE;
    const high = size === 8 ? cpu.dv.getInt32(a + 4, true) : 0;
    if (!canonical(high)) gp0(cpu);
    cpu.i32[at] = cpu.dv.getInt32(a, true);
    cpu.i32[at + 1] = high;
  };
}

/** Lines for PUSH and POP of one segment register. */
function pushPop(
  pushCode: string,
  popCode: string | undefined,
  seg: number,
  flags: string,
): OpDef[] {
  const defs: OpDef[] = [{
    code: pushCode,
    run: {
      16: pushSegment(seg, 2),
      32: pushSegment(seg, 4),
      64: pushSegment(seg, 8),
    },
    flags,
  }];
  if (popCode !== undefined) {
    defs.push({
      code: popCode,
      run: {
        16: popSegment(seg, 2),
        32: popSegment(seg, 4),
        64: popSegment(seg, 8),
      },
      flags: `${flags} ends`,
    });
  }
  return defs;
}

function pointers(code: string, seg: number, flags: string): OpDef {
  return {
    code,
    operands: "=Gv M",
    // REX.W changes nothing: see farIndirect.
    run: { 16: loadPointer(seg, 2), 32: loadPointer(seg, 4) },
    flags,
  };
}

function bySize(
  make: (size: number) => Handler,
): { 16: Handler; 32: Handler; 64: Handler } {
  return { 16: make(2), 32: make(4), 64: make(8) };
}

/** The family's lines of the opcode tables. */
export const segmentOps: readonly OpDef[] = [
  { code: "8C m", operands: "=Ew Sw", run: storeSegment },
  { code: "8C r", operands: "=Ev Sw", run: bySize(moveFromSegment) },
  // Known before the operand is looked at.
  { code: "8E /1", run: undefinedOpcode },
  { code: "8E", operands: "Sw Ew", run: moveToSegment, flags: "ends" },
  ...pushPop("06", "07", Seg.ES, "no64"),
  ...pushPop("0E", undefined, Seg.CS, "no64"),
  ...pushPop("16", "17", Seg.SS, "no64"),
  ...pushPop("1E", "1F", Seg.DS, "no64"),
  ...pushPop("0F A0", "0F A1", Seg.FS, "d64"),
  ...pushPop("0F A8", "0F A9", Seg.GS, "d64"),
  pointers("C4 m", Seg.ES, "no64 ends"),
  pointers("C5 m", Seg.DS, "no64 ends"),
  pointers("0F B2 m", Seg.SS, "ends"),
  pointers("0F B4 m", Seg.FS, "ends"),
  pointers("0F B5 m", Seg.GS, "ends"),
  {
    code: "9A",
    operands: "Ap",
    run: bySize((size) => farDirect(size, true)),
    flags: "no64 ends",
  },
  {
    code: "EA",
    operands: "Ap",
    run: bySize((size) => farDirect(size, false)),
    flags: "no64 ends",
  },
  {
    code: "FF /3 m",
    operands: "M",
    run: bySize((size) => farIndirect(size, true)),
    flags: "ends",
  },
  {
    code: "FF /5 m",
    operands: "M",
    run: bySize((size) => farIndirect(size, false)),
    flags: "ends",
  },
  { code: "CB", run: bySize(returnFar), flags: "ends" },
  { code: "CA", operands: "Iw", run: bySize(returnFarRelease), flags: "ends" },
  { code: "CF", run: bySize(iret), flags: "ends" },
  { code: "0F 01 /0 m", operands: "M", run: storeTable(GDTR) },
  { code: "0F 01 /1 m", operands: "M", run: storeTable(IDTR) },
  {
    code: "0F 01 /2 m",
    operands: "M",
    run: {
      16: loadTable(GDTR, false),
      32: loadTable(GDTR, true),
    },
    flags: "ends",
  },
  {
    code: "0F 01 /3 m",
    operands: "M",
    run: {
      16: loadTable(IDTR, false),
      32: loadTable(IDTR, true),
    },
    flags: "ends",
  },
  {
    code: "0F 00 /0 m",
    operands: "=Ew",
    run: storeSelectorMemory(Seg.LDTR),
    flags: "protected",
  },
  {
    code: "0F 00 /0 r",
    operands: "=Ev",
    run: bySize((size) => storeSelector(Seg.LDTR, size)),
    flags: "protected",
  },
  {
    code: "0F 00 /1 m",
    operands: "=Ew",
    run: storeSelectorMemory(Seg.TR),
    flags: "protected",
  },
  {
    code: "0F 00 /1 r",
    operands: "=Ev",
    run: bySize((size) => storeSelector(Seg.TR, size)),
    flags: "protected",
  },
  { code: "0F 00 /2", operands: "Ew", run: lldt, flags: "protected ends" },
  { code: "0F 00 /3", operands: "Ew", run: ltr, flags: "protected ends" },
  { code: "0F 00 /4", operands: "Ew", run: verr, flags: "protected" },
  { code: "0F 00 /5", operands: "Ew", run: verw, flags: "protected" },
  { code: "0F 02", operands: "=Gv Ew", run: bySize(lar), flags: "protected" },
  { code: "0F 03", operands: "=Gv Ew", run: bySize(lsl), flags: "protected" },
  { code: "63", operands: "+Ew Gw", run: arpl, flags: "protected no64" },
  { code: "0F 01 F8", run: swapgs, flags: "only64 ends" },
  ...([[0, Seg.FS, "r"], [1, Seg.GS, "r"], [2, Seg.FS, "w"], [
    3,
    Seg.GS,
    "w",
  ]] as const)
    .map(([n, seg, kind]): OpDef => ({
      code: `F3 0F AE /${n} r`,
      operands: kind === "r" ? "=Ey" : "Ey",
      run: kind === "r"
        ? { 16: readBase(seg, 4), 32: readBase(seg, 4), 64: readBase(seg, 8) }
        : {
          16: writeBase(seg, 4),
          32: writeBase(seg, 4),
          64: writeBase(seg, 8),
        },
      flags: "only64 ends",
    })),
];
