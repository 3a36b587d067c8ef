/**
 * Descriptors and segment registers (SDM volume 3A, chapters 3 and 5).
 *
 * @module
 */
import { commit, readSystem, writeSystem } from "./access.ts";
import type { Cpu } from "./cpu.ts";
import { faultCode, Vector } from "./fault.ts";
import {
  Attr,
  CPL,
  EFER,
  GDTR,
  MODE,
  Mode,
  SEG,
  Seg,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SEL,
  SEG_WORDS,
} from "./layout.ts";
import { updateMode } from "./mode.ts";
import { canonical, Cr } from "./paging.ts";

/** A descriptor in pieces. One object is reused by each kind of caller. */
export interface Descriptor {
  selector: number;
  /** Where it lies, for writing bits back. */
  addressLow: number;
  addressHigh: number;
  baseLow: number;
  baseHigh: number;
  /** Bytes, granularity applied. */
  limit: number;
  /** {@linkcode Attr} bits. */
  attr: number;
  /** The two words as they are in memory: gates are read from them. */
  low: number;
  high: number;
  /** Third word of a 16-byte descriptor. */
  upper: number;
}

/** An empty descriptor to be filled. */
export function descriptor(): Descriptor {
  return {
    selector: 0,
    addressLow: 0,
    addressHigh: 0,
    baseLow: 0,
    baseHigh: 0,
    limit: 0,
    attr: 0,
    low: 0,
    high: 0,
    upper: 0,
  };
}

/** System descriptor types (SDM volume 3A, table 3-2). */
export const SystemType = {
  Tss16: 1,
  Ldt: 2,
  Tss16Busy: 3,
  CallGate16: 4,
  TaskGate: 5,
  InterruptGate16: 6,
  TrapGate16: 7,
  Tss32: 9,
  Tss32Busy: 11,
  CallGate32: 12,
  InterruptGate32: 14,
  TrapGate32: 15,
} as const;

/** Whether EFER.LMA is set. */
export function longActive(cpu: Cpu): boolean {
  return (cpu.i32[EFER]! & Cr.LMA) !== 0;
}

/** Real mode or V86: selectors are paragraphs. */
export function paragraphMode(cpu: Cpu): boolean {
  return (cpu.i32[MODE]! & (Mode.Protected | Mode.V86)) !== Mode.Protected;
}

/** DPL of {@linkcode Attr} bits. */
export function dplOf(attr: number): number {
  return (attr >>> Attr.DplShift) & 3;
}

/** Error code for a selector. */
export function selectorError(selector: number): number {
  return selector & 0xfffc;
}

/**
 * Reads a descriptor by selector; beyond its table raises `vector` with the selector.
 *
 * @param wide Read 16 bytes: a system descriptor in long mode.
 * @returns False where `vector` is negative and the selector is out of bounds.
 */
export function readDescriptor(
  cpu: Cpu,
  d: Descriptor,
  selector: number,
  vector: number,
  wide = false,
): boolean {
  const i = cpu.i32;
  let baseLow: number, baseHigh: number, limit: number;
  if ((selector & 4) !== 0) {
    const ldt = SEG + Seg.LDTR * SEG_WORDS;
    const usable = (i[ldt + SEG_ATTR]! & (Attr.Unusable | Attr.Present)) ===
      Attr.Present;
    baseLow = i[ldt + SEG_BASE]!;
    baseHigh = i[ldt + SEG_BASE + 1]!;
    limit = usable ? i[ldt + SEG_LIMIT]! >>> 0 : -1;
  } else {
    baseLow = i[GDTR]!;
    baseHigh = i[GDTR + 1]!;
    limit = i[GDTR + 2]! & 0xffff;
  }
  const offset = selector & 0xfff8;
  if (offset + (wide ? 15 : 7) > limit) {
    if (vector < 0) return false;
    faultCode(cpu, vector, selectorError(selector));
  }
  const low = (baseLow + offset) | 0;
  const high = longActive(cpu)
    ? (baseHigh + ((low >>> 0) < (baseLow >>> 0) ? 1 : 0)) | 0
    : 0;
  const at = readSystem(cpu, low, high, wide ? 16 : 8);
  d.selector = selector;
  d.addressLow = low;
  d.addressHigh = high;
  d.low = cpu.dv.getInt32(at, true);
  d.high = cpu.dv.getInt32(at + 4, true);
  d.upper = wide ? cpu.dv.getInt32(at + 8, true) : 0;
  unpack(d);
  return true;
}

/** Fills base, limit and attributes from the words. */
function unpack(d: Descriptor): void {
  const { low, high } = d;
  d.baseLow = (low >>> 16) | ((high & 0xff) << 16) | (high & 0xff00_0000);
  d.baseHigh = d.upper;
  const limit = (low & 0xffff) | (high & 0xf_0000);
  d.attr = ((high >>> 8) & 0xff) | ((high >>> 8) & 0xf000);
  d.limit = (d.attr & Attr.G) !== 0 ? (limit << 12) | 0xfff : limit;
}

/** Sets bits in the second word of a descriptor in memory. */
export function orDescriptor(cpu: Cpu, d: Descriptor, bits: number): void {
  if ((d.high & bits) === bits) return;
  const at = writeSystem(cpu, (d.addressLow + 4) | 0, d.addressHigh, 4);
  cpu.dv.setInt32(at, cpu.dv.getInt32(at, true) | bits, true);
  commit(cpu);
  d.high |= bits;
  unpack(d);
}

/** Clears bits in the second word of a descriptor in memory. */
export function clearDescriptor(cpu: Cpu, d: Descriptor, bits: number): void {
  const at = writeSystem(cpu, (d.addressLow + 4) | 0, d.addressHigh, 4);
  cpu.dv.setInt32(at, cpu.dv.getInt32(at, true) & ~bits, true);
  commit(cpu);
}

/** Bit "accessed" in the second word of a code or data descriptor. */
export const ACCESSED = 0x100;

/** Puts a descriptor into a segment register. The caller updates the mode. */
export function setFromDescriptor(
  cpu: Cpu,
  seg: number,
  selector: number,
  d: Descriptor,
): void {
  const i = cpu.i32;
  const at = SEG + seg * SEG_WORDS;
  i[at + SEG_SEL] = selector;
  i[at + SEG_BASE] = d.baseLow;
  i[at + SEG_BASE + 1] = d.baseHigh;
  i[at + SEG_LIMIT] = d.limit;
  i[at + SEG_ATTR] = d.attr;
}

/** Sets a segment register as real mode (and, for V86, with DPL 3) has it after a load. */
export function setParagraph(cpu: Cpu, seg: number, selector: number): void {
  const i = cpu.i32;
  const at = SEG + seg * SEG_WORDS;
  i[at + SEG_SEL] = selector;
  i[at + SEG_BASE] = selector << 4;
  i[at + SEG_BASE + 1] = 0;
  if ((i[MODE]! & Mode.V86) !== 0) {
    i[at + SEG_LIMIT] = 0xffff;
    i[at + SEG_ATTR] = V86_ATTR;
  } else if (seg === Seg.CS) {
    // The limit stays ("unreal" mode); rights become those of data, which real mode ignores.
    i[at + SEG_ATTR] = (i[at + SEG_ATTR]! & (Attr.Db | Attr.G)) | 0x93;
  } else i[at + SEG_ATTR] = (i[at + SEG_ATTR]! & (Attr.Db | Attr.G)) | 0x93;
}

/** Present, DPL 3, writable and accessed data. */
export const V86_ATTR = 0xf3;

/** Makes a data segment register null. */
export function setNull(cpu: Cpu, seg: number, selector: number): void {
  const i = cpu.i32;
  const at = SEG + seg * SEG_WORDS;
  i[at + SEG_SEL] = selector;
  i[at + SEG_ATTR] = Attr.Unusable;
  // FS and GS keep their base in long mode on Intel and lose it on AMD's older parts; zero is what
  // a load of a null selector gives in compatibility with both (APM volume 2, 4.5.3).
  i[at + SEG_BASE] = 0;
  i[at + SEG_BASE + 1] = 0;
  i[at + SEG_LIMIT] = 0;
}

const D = descriptor();

/** MOV to, POP into and Lxx of a data or stack segment register, with all checks. */
export function loadSegment(cpu: Cpu, seg: number, selector: number): void {
  const i = cpu.i32;
  if (paragraphMode(cpu)) {
    setParagraph(cpu, seg, selector);
    updateMode(cpu);
    return;
  }
  const cpl = i[CPL]!;
  const rpl = selector & 3;
  if ((selector & 0xfffc) === 0) {
    if (seg === Seg.SS) {
      // 64-bit mode below CPL 3 allows a null stack segment with RPL = CPL.
      if ((i[MODE]! & Mode.Long) === 0 || cpl === 3 || rpl !== cpl) {
        faultCode(cpu, Vector.GP, 0);
      }
      setNull(cpu, seg, selector);
      i[SEG + seg * SEG_WORDS + SEG_ATTR] = Attr.Unusable |
        (cpl << Attr.DplShift);
    } else setNull(cpu, seg, selector);
    updateMode(cpu);
    return;
  }
  readDescriptor(cpu, D, selector, Vector.GP);
  const { attr } = D;
  const error = selectorError(selector);
  if (seg === Seg.SS) {
    if (
      rpl !== cpl || dplOf(attr) !== cpl ||
      (attr & (Attr.S | Attr.Code | Attr.Writable)) !==
        (Attr.S | Attr.Writable)
    ) faultCode(cpu, Vector.GP, error);
    if ((attr & Attr.Present) === 0) faultCode(cpu, Vector.SS, error);
  } else {
    if (
      (attr & Attr.S) === 0 ||
      (attr & (Attr.Code | Attr.Writable)) === Attr.Code
    ) faultCode(cpu, Vector.GP, error);
    const conforming = (attr & (Attr.Code | Attr.Conforming)) ===
      (Attr.Code | Attr.Conforming);
    if (!conforming && (rpl > dplOf(attr) || cpl > dplOf(attr))) {
      faultCode(cpu, Vector.GP, error);
    }
    if ((attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, error);
  }
  orDescriptor(cpu, D, ACCESSED);
  setFromDescriptor(cpu, seg, selector, D);
  updateMode(cpu);
}

/** Puts a code descriptor into CS with the given RPL, which becomes the CPL. */
export function setCodeSegment(
  cpu: Cpu,
  selector: number,
  cpl: number,
  d: Descriptor,
): void {
  orDescriptor(cpu, d, ACCESSED);
  setFromDescriptor(cpu, Seg.CS, (selector & 0xfffc) | cpl, d);
  cpu.i32[CPL] = cpl;
}

/** Raises #GP(selector) where RIP is not canonical or beyond the segment. */
export function checkEntry(
  cpu: Cpu,
  d: Descriptor,
  low: number,
  high: number,
): void {
  if (longActive(cpu) && (d.attr & Attr.L) !== 0) {
    if (!canonical(high)) faultCode(cpu, Vector.GP, 0);
  } else if ((low >>> 0) > (d.limit >>> 0)) faultCode(cpu, Vector.GP, 0);
}

/** LLDT. */
export function loadLdt(cpu: Cpu, selector: number): void {
  const i = cpu.i32;
  const at = SEG + Seg.LDTR * SEG_WORDS;
  if ((selector & 0xfffc) === 0) {
    i[at + SEG_SEL] = selector;
    i[at + SEG_ATTR] = Attr.Unusable;
    return;
  }
  const error = selectorError(selector);
  if ((selector & 4) !== 0) faultCode(cpu, Vector.GP, error);
  readDescriptor(cpu, D, selector, Vector.GP, longActive(cpu));
  if ((D.attr & (Attr.S | Attr.TypeMask)) !== SystemType.Ldt) {
    faultCode(cpu, Vector.GP, error);
  }
  if ((D.attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, error);
  if (longActive(cpu) && !canonical(D.baseHigh)) faultCode(cpu, Vector.GP, 0);
  setFromDescriptor(cpu, Seg.LDTR, selector, D);
}

/** Bit "busy" in the second word of a TSS descriptor. */
export const BUSY = 0x200;

/** LTR. */
export function loadTaskRegister(cpu: Cpu, selector: number): void {
  const error = selectorError(selector);
  if (error === 0) faultCode(cpu, Vector.GP, 0);
  if ((selector & 4) !== 0) faultCode(cpu, Vector.GP, error);
  readDescriptor(cpu, D, selector, Vector.GP, longActive(cpu));
  const type = D.attr & (Attr.S | Attr.TypeMask);
  if (
    type !== SystemType.Tss32 &&
    !(type === SystemType.Tss16 && !longActive(cpu))
  ) faultCode(cpu, Vector.GP, error);
  if ((D.attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, error);
  if (longActive(cpu) && !canonical(D.baseHigh)) faultCode(cpu, Vector.GP, 0);
  orDescriptor(cpu, D, BUSY);
  setFromDescriptor(cpu, Seg.TR, selector, D);
}
