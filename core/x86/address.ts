/**
 * From an instruction's memory operand to a linear address: effective address, segment base,
 * limit and rights (SDM volume 3A, chapter 5), canonical form in 64-bit mode.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { faultCode, Vector } from "./fault.ts";
import {
  Attr,
  EA,
  HIGH,
  Mem,
  MemKind,
  MODE,
  Mode,
  R_DISP,
  R_IMM,
  R_MEM,
  SEG,
  Seg,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_WORDS,
} from "./layout.ts";
import { canonical } from "./paging.ts";

/**
 * The offset part of a decoded memory operand, wrapped to its address size: the low
 * word, and the high word in {@linkcode HIGH}.
 *
 * @param pc The decoded instruction.
 */
export function offsetOf(cpu: Cpu, pc: number): number {
  const i = cpu.i32;
  const mem = i[pc + R_MEM]!;
  if (((mem >>> Mem.KindShift) & Mem.KindMask) === MemKind.Direct) {
    i[HIGH] = i[pc + R_IMM + 1]!;
    return i[pc + R_IMM]!;
  }
  const base = mem & Mem.BaseMask;
  const index = (mem >>> Mem.IndexShift) & Mem.BaseMask;
  const scale = (mem >>> Mem.ScaleShift) & 3;
  const disp = i[pc + R_DISP]!;
  const size = (mem >>> Mem.SizeShift) & 3;
  const xLow = i[index]!;
  if (size !== 2) {
    const sum = (disp + i[base]! + (xLow << scale)) | 0;
    i[HIGH] = 0;
    return size === 0 ? sum & 0xffff : sum;
  }
  const scaledLow = xLow << scale;
  const scaledHigh = scale === 0
    ? i[index + 1]!
    : (i[index + 1]! << scale) | (xLow >>> (32 - scale));
  const s1 = (disp + i[base]!) | 0;
  let high = (disp >> 31) + i[base + 1]! +
    ((s1 >>> 0) < (disp >>> 0) ? 1 : 0);
  const s2 = (s1 + scaledLow) | 0;
  high = high + scaledHigh + ((s2 >>> 0) < (s1 >>> 0) ? 1 : 0);
  i[HIGH] = high | 0;
  return s2;
}

/** The segment register of a decoded memory operand. */
export function segmentOf(cpu: Cpu, pc: number): number {
  return (cpu.i32[pc + R_MEM]! >>> Mem.SegShift) & Mem.SegMask;
}

/**
 * The linear address of `size` bytes at an offset in a segment, in {@linkcode EA}
 * (low, high), after all of segmentation's checks.
 *
 * @param write Whether the bytes are written.
 */
export function linear(
  cpu: Cpu,
  seg: number,
  low: number,
  high: number,
  size: number,
  write: boolean,
): void {
  const i = cpu.i32;
  const s = SEG + seg * SEG_WORDS;
  if ((i[MODE]! & Mode.Long) !== 0) {
    let sum = low;
    let sumHigh = high;
    if (seg >= Seg.FS) {
      sum = (low + i[s + SEG_BASE]!) | 0;
      sumHigh = (high + i[s + SEG_BASE + 1]! +
        ((sum >>> 0) < (low >>> 0) ? 1 : 0)) | 0;
    }
    if (!canonicalRun(sum, sumHigh, size)) segmentFault(cpu, seg);
    i[EA] = sum;
    i[EA + 1] = sumHigh;
    return;
  }
  const attr = i[s + SEG_ATTR]!;
  if ((attr & Attr.Unusable) !== 0) segmentFault(cpu, seg);
  // Real and V86 mode load segments that are readable and writable data.
  if (write) {
    if ((attr & (Attr.Code | Attr.Writable)) !== Attr.Writable) {
      segmentFault(cpu, seg);
    }
  } else if ((attr & (Attr.Code | Attr.Writable)) === Attr.Code) {
    segmentFault(cpu, seg);
  }
  const offset = low >>> 0;
  const limit = i[s + SEG_LIMIT]! >>> 0;
  const last = offset + size - 1;
  if ((attr & (Attr.Code | Attr.ExpandDown)) === Attr.ExpandDown) {
    const top = (attr & Attr.Db) !== 0 ? 0xffff_ffff : 0xffff;
    if (offset <= limit || last > top) segmentFault(cpu, seg);
  } else if (last > limit) segmentFault(cpu, seg);
  i[EA] = (low + i[s + SEG_BASE]!) | 0;
  i[EA + 1] = 0;
}

/** Whether `size` bytes from a linear address on are all at canonical addresses. */
export function canonicalRun(low: number, high: number, size: number): boolean {
  return canonical(high) &&
    ((low >>> 0) + size <= 0x1_0000_0000 || canonical((high + 1) | 0));
}

/** #SS(0) for the stack segment, #GP(0) for any other. */
export function segmentFault(cpu: Cpu, seg: number): never {
  faultCode(cpu, seg === Seg.SS ? Vector.SS : Vector.GP, 0);
}

/**
 * The linear address of a decoded memory operand, in {@linkcode EA}.
 *
 * @param displacement Added to the offset first: the second part of a far pointer, say.
 */
export function linearOf(
  cpu: Cpu,
  pc: number,
  size: number,
  write: boolean,
  displacement = 0,
): void {
  let low = offsetOf(cpu, pc);
  let high = cpu.i32[HIGH]!;
  if (displacement !== 0) {
    const sum = (low + displacement) | 0;
    if ((sum >>> 0) < (low >>> 0)) high = (high + 1) | 0;
    low = sum;
    const bits = (cpu.i32[pc + R_MEM]! >>> Mem.SizeShift) & 3;
    if (bits !== 2) high = 0;
    if (bits === 0) low &= 0xffff;
  }
  linear(cpu, segmentOf(cpu, pc), low, high, size, write);
}
