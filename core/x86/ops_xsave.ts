/**
 * Saving and restoring x87, SSE and AVX state as a whole: FXSAVE, FXRSTOR and the XSAVE family (SDM volume 1,
 * chapter 13; APM volume 2, 11.5). Of the optional optimizations only the init one is done: a
 * component in its initial configuration is not written.
 *
 * @module
 */
import { requireAlignment } from "./access.ts";
import { linearOf } from "./address.ts";
import { probeArea, readArea, readPart, writeArea } from "./area.ts";
import { checkOsxsave, saveAreaSize, setXcr0 } from "./control.ts";
import type { Cpu } from "./cpu.ts";
import { fault, gp0, Vector } from "./fault.ts";
import {
  CPL,
  CR0,
  CR4,
  EA,
  FCS,
  FCW,
  FDP,
  FDS,
  FIP,
  FOP,
  FSW,
  FTW,
  GPR,
  MODE,
  Mode,
  MXCSR,
  VEC_B,
  X87_B,
  XCR0,
} from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32 } from "./operand.ts";
import { Cr } from "./paging.ts";
import { charge, initialize, physical, Status, summarize } from "./x87.ts";
import { CONTROL_BITS } from "./x87_environment.ts";

const RAX = GPR, RCX = GPR + 2, RDX = GPR + 4;

/** State components, as bits of XCR0. */
const Component = { X87: 1, Sse: 2, Avx: 4 } as const;

/** Bits of MXCSR that can be set. */
export const MXCSR_BITS = 0xffff;
const MXCSR_INITIAL = 0x1f80;

/** Where things are in the area (SDM volume 1, 10.5.1 and 13.4). */
const At = {
  mxcsr: 24,
  st: 32,
  xmm: 160,
  fxsaveEnd: 512,
  present: 512,
  compacted: 520,
  headerEnd: 576,
  ymm: 576,
} as const;
const COMPACTED = 0x8000_0000;

/** What saving or restoring takes beyond other instructions, in instructions. */
const XSAVE_COST = 100;

const AREA = new Uint8Array(832);
const VIEW = new DataView(AREA.buffer);

/** How many XMM registers the mode has. */
function xmmCount(cpu: Cpu): number {
  return (cpu.i32[MODE]! & Mode.Long) !== 0 ? 16 : 8;
}

/** Puts FCW to FDP and the registers into the buffer; `wide` has 64-bit pointers. */
function putX87(cpu: Cpu, wide: boolean): void {
  const i = cpu.i32;
  AREA.fill(0, 0, At.mxcsr);
  VIEW.setUint16(0, i[FCW]!, true);
  VIEW.setUint16(2, i[FSW]!, true);
  AREA[4] = i[FTW]!;
  // On AMD the pointers are there for handlers of exceptions only.
  if ((i[FSW]! & Status.ES) !== 0) {
    VIEW.setUint16(6, i[FOP]!, true);
    VIEW.setInt32(8, i[FIP]!, true);
    VIEW.setInt32(12, wide ? i[FIP + 1]! : i[FCS]!, true);
    VIEW.setInt32(16, i[FDP]!, true);
    VIEW.setInt32(20, wide ? i[FDP + 1]! : i[FDS]!, true);
  }
  AREA.fill(0, At.st, At.xmm);
  for (let n = 0; n < 8; n++) {
    const from = X87_B + 16 * physical(cpu, n);
    AREA.set(cpu.u8.subarray(from, from + 10), At.st + 16 * n);
  }
}

function getX87(cpu: Cpu, wide: boolean): void {
  const i = cpu.i32;
  i[FCW] = (VIEW.getUint16(0, true) & CONTROL_BITS) | 0x40;
  i[FSW] = VIEW.getUint16(2, true);
  i[FTW] = AREA[4]!;
  i[FOP] = VIEW.getUint16(6, true) & 0x7ff;
  i[FIP] = VIEW.getInt32(8, true);
  i[FDP] = VIEW.getInt32(16, true);
  // Pointers have 48 bits.
  i[FIP + 1] = wide ? VIEW.getInt16(12, true) : 0;
  i[FDP + 1] = wide ? VIEW.getInt16(20, true) : 0;
  i[FCS] = wide ? 0 : VIEW.getUint16(12, true);
  i[FDS] = wide ? 0 : VIEW.getUint16(20, true);
  for (let n = 0; n < 8; n++) {
    const from = At.st + 16 * n;
    cpu.u8.set(AREA.subarray(from, from + 10), X87_B + 16 * physical(cpu, n));
  }
  summarize(cpu);
}

function putMxcsr(cpu: Cpu): void {
  VIEW.setInt32(At.mxcsr, cpu.i32[MXCSR]!, true);
  VIEW.setInt32(At.mxcsr + 4, MXCSR_BITS, true);
}

/** Checks MXCSR in the buffer, before anything is changed. */
function checkMxcsr(cpu: Cpu): void {
  if ((VIEW.getInt32(At.mxcsr, true) & ~MXCSR_BITS) !== 0) gp0(cpu);
}

/** The bytes of XMM registers (`half` 0) or of the upper halves of YMM registers (1). */
function vectors(cpu: Cpu, half: number): Uint8Array {
  const from = VEC_B + 256 * half;
  return cpu.u8.subarray(from, from + 16 * xmmCount(cpu));
}

/** #NM for FXSAVE and FXRSTOR. */
function checkFx(cpu: Cpu): void {
  if ((cpu.i32[CR0]! & (Cr.EM | Cr.TS)) !== 0) fault(cpu, Vector.NM);
}

/** #UD and #NM for the XSAVE family. */
function checkXsave(cpu: Cpu): void {
  checkOsxsave(cpu);
  if ((cpu.i32[CR0]! & Cr.TS) !== 0) fault(cpu, Vector.NM);
}

function locate(
  cpu: Cpu,
  pc: number,
  size: number,
  alignment: number,
  write: boolean,
): void {
  charge(cpu, XSAVE_COST);
  linearOf(cpu, pc, size, write);
  const low = cpu.i32[EA]!;
  // On AMD alignment checks see an FXSAVE area as one of words of 4 bytes.
  if (alignment === 16) requireAlignment(cpu, low, 4);
  if ((low & (alignment - 1)) !== 0) gp0(cpu);
}

/** FXSAVE. Without CR4.OSFXSR there is no SSE state. */
function fxsave(wide: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    checkFx(cpu);
    locate(cpu, pc, At.fxsaveEnd, 16, true);
    probeArea(cpu, At.fxsaveEnd);
    putX87(cpu, wide);
    if ((cpu.i32[CR4]! & Cr.OSFXSR) === 0) {
      writeArea(cpu, AREA, 0, At.mxcsr);
      writeArea(cpu, AREA, At.st, At.xmm);
      return;
    }
    putMxcsr(cpu);
    const xmm = vectors(cpu, 0);
    AREA.set(xmm, At.xmm);
    writeArea(cpu, AREA, 0, At.xmm + xmm.length);
  };
}

function fxrstor(wide: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    checkFx(cpu);
    locate(cpu, pc, At.fxsaveEnd, 16, false);
    readArea(cpu, AREA.subarray(0, At.fxsaveEnd));
    const sse = (cpu.i32[CR4]! & Cr.OSFXSR) !== 0;
    if (sse) checkMxcsr(cpu);
    getX87(cpu, wide);
    if (sse) {
      cpu.i32[MXCSR] = VIEW.getInt32(At.mxcsr, true);
      getVectors(cpu, 0, At.xmm);
    }
  };
}

function getVectors(cpu: Cpu, half: number, at: number): void {
  const to = vectors(cpu, half);
  to.set(AREA.subarray(at, at + to.length));
}

/** The components that the instruction is about: of those in EDX:EAX the ones that are on. */
function requested(cpu: Cpu): number {
  return cpu.i32[RAX]! & cpu.i32[XCR0]!;
}

/** Components that are not in their initial configuration. */
function inUse(cpu: Cpu): number {
  const i = cpu.i32;
  const zero = (from: number, to: number): boolean => {
    for (let n = from; n < to; n++) if (i[n] !== 0) return false;
    return true;
  };
  const half = 64;
  const vector = VEC_B >> 2;
  let used = 0;
  if (
    i[FCW] !== 0x37f || !zero(FCW + 1, FDS + 1) || !zero(X87_B >> 2, FCW)
  ) used |= Component.X87;
  if (!zero(vector, vector + half)) used |= Component.Sse;
  if (!zero(vector + half, vector + 2 * half)) used |= Component.Avx;
  return used;
}

/** How the three instructions differ. */
interface SaveForm {
  /** Components in their initial configuration are not written. */
  readonly optimized: boolean;
  /** XSAVEC: the header says so, and MXCSR belongs to the SSE component alone. */
  readonly compacted: boolean;
}

function xsave(wide: boolean, { optimized, compacted }: SaveForm): Handler {
  return (cpu, _a, _b, pc) => {
    checkXsave(cpu);
    const components = requested(cpu);
    const size = saveAreaSize(components);
    locate(cpu, pc, size, 64, true);
    probeArea(cpu, size);
    let used = inUse(cpu);
    if (compacted && cpu.i32[MXCSR] !== MXCSR_INITIAL) used |= Component.Sse;
    const written = optimized ? components & used : components;
    const mxcsr = compacted
      ? (written & Component.Sse) !== 0
      : (components & (Component.Sse | Component.Avx)) !== 0;
    if ((written & Component.X87) !== 0) {
      putX87(cpu, wide);
      writeArea(cpu, AREA, 0, At.mxcsr);
      writeArea(cpu, AREA, At.st, At.xmm);
    }
    if (mxcsr) {
      putMxcsr(cpu);
      writeArea(cpu, AREA, At.mxcsr, At.st);
    }
    if ((written & Component.Sse) !== 0) putVectors(cpu, 0, At.xmm);
    if ((written & Component.Avx) !== 0) putVectors(cpu, 1, At.ymm);
    putHeader(cpu, components, used, compacted);
  };
}

function putVectors(cpu: Cpu, half: number, at: number): void {
  const from = vectors(cpu, half);
  AREA.set(from, at);
  writeArea(cpu, AREA, at, at + from.length);
}

/** XSTATE_BV, of which XSAVE leaves the bits of other components, and in compacted form XCOMP_BV. */
function putHeader(
  cpu: Cpu,
  components: number,
  used: number,
  compacted: boolean,
): void {
  if (compacted) {
    VIEW.setInt32(At.present, components & used, true);
    VIEW.setInt32(At.present + 4, 0, true);
    VIEW.setInt32(At.compacted, components, true);
    VIEW.setInt32(At.compacted + 4, COMPACTED, true);
    writeArea(cpu, AREA, At.present, At.compacted + 8);
    return;
  }
  readPart(cpu, AREA, At.present, 8);
  const others = VIEW.getInt32(At.present, true) & ~components;
  VIEW.setInt32(At.present, others | (components & used), true);
  writeArea(cpu, AREA, At.present, At.compacted);
}

/** Checks the header in the buffer (SDM volume 1, 13.8). */
function checkHeader(cpu: Cpu): void {
  const word = (at: number): number => VIEW.getInt32(at, true);
  const enabled = cpu.i32[XCR0]!;
  const present = word(At.present), layout = word(At.compacted);
  const compacted = word(At.compacted + 4) === (COMPACTED | 0);
  const bad = word(At.present + 4) !== 0 || (present & ~enabled) !== 0 ||
    (compacted
      ? (layout & ~enabled) !== 0 || (present & ~layout) !== 0
      : layout !== 0 || word(At.compacted + 4) !== 0);
  if (bad) gp0(cpu);
  // The standard form leaves the rest of the header alone but for 8 bytes.
  const end = compacted ? At.headerEnd : At.compacted + 16;
  for (let at = At.compacted + 8; at < end; at += 4) {
    if (word(at) !== 0) gp0(cpu);
  }
}

function xrstor(wide: boolean): Handler {
  return (cpu, _a, _b, pc) => {
    checkXsave(cpu);
    const i = cpu.i32;
    const components = requested(cpu);
    locate(cpu, pc, At.headerEnd, 64, false);
    readPart(cpu, AREA, At.present, At.headerEnd - At.present);
    checkHeader(cpu);
    const present = VIEW.getInt32(At.present, true) & components;
    const compacted = VIEW.getInt32(At.compacted + 4, true) !== 0;
    const size = saveAreaSize(compacted ? present : components);
    locate(cpu, pc, size, 64, false);
    readArea(cpu, AREA.subarray(0, size));
    const initial = components & ~present;
    // The standard form loads MXCSR whether SSE state is present or not.
    const mxcsr = compacted
      ? (present & Component.Sse) !== 0
      : (components & (Component.Sse | Component.Avx)) !== 0;
    if (mxcsr) checkMxcsr(cpu);
    if ((present & Component.X87) !== 0) getX87(cpu, wide);
    if (mxcsr) i[MXCSR] = VIEW.getInt32(At.mxcsr, true);
    else if ((initial & Component.Sse) !== 0) i[MXCSR] = MXCSR_INITIAL;
    if ((present & Component.Sse) !== 0) getVectors(cpu, 0, At.xmm);
    if ((present & Component.Avx) !== 0) getVectors(cpu, 1, At.ymm);
    if ((initial & Component.X87) !== 0) {
      initialize(cpu);
      i.fill(0, X87_B >> 2, FCW);
    }
    if ((initial & Component.Sse) !== 0) vectors(cpu, 0).fill(0);
    if ((initial & Component.Avx) !== 0) vectors(cpu, 1).fill(0);
  };
}

/** XGETBV of XCR0, and with ECX 1 of those of its components that are in use. */
function xgetbv(cpu: Cpu): void {
  checkOsxsave(cpu);
  const index = cpu.i32[RCX]! >>> 0;
  if (index > 1) gp0(cpu);
  const mask = index === 0 ? -1 : inUse(cpu);
  put32(cpu, 4 * RAX, cpu.i32[XCR0]! & mask);
  put32(cpu, 4 * RDX, 0);
}

function xsetbv(cpu: Cpu): void {
  checkOsxsave(cpu);
  if (cpu.i32[CPL] !== 0 || cpu.i32[RCX] !== 0) gp0(cpu);
  setXcr0(cpu, cpu.i32[RAX]!, cpu.i32[RDX]!);
}

function byWidth(make: (wide: boolean) => Handler): OpDef["run"] {
  return { 16: make(false), 32: make(false), 64: make(true) };
}

const XSAVE: SaveForm = { optimized: false, compacted: false };
const XSAVEOPT: SaveForm = { optimized: true, compacted: false };
const XSAVEC: SaveForm = { optimized: true, compacted: true };

/** The family's lines of the opcode tables. */
export const xsaveOps: readonly OpDef[] = [
  { code: "NP 0F AE /0 m", operands: "M", run: byWidth(fxsave) },
  { code: "NP 0F AE /1 m", operands: "M", run: byWidth(fxrstor) },
  {
    code: "NP 0F AE /4 m",
    operands: "M",
    run: byWidth((wide) => xsave(wide, XSAVE)),
  },
  {
    code: "NP 0F AE /6 m",
    operands: "M",
    run: byWidth((wide) => xsave(wide, XSAVEOPT)),
  },
  {
    code: "NP 0F C7 /4 m",
    operands: "M",
    run: byWidth((wide) => xsave(wide, XSAVEC)),
  },
  { code: "NP 0F AE /5 m", operands: "M", run: byWidth(xrstor) },
  { code: "NP 0F 01 D0", run: xgetbv },
  { code: "NP 0F 01 D1", run: xsetbv, flags: "ends" },
];
