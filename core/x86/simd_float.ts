/**
 * Floating point in XMM registers: MXCSR and its exceptions, NaNs, and the slow path in software (SDM volume
 * 1, 11.5; APM volume 1, 4.10). Handlers compute with the host's doubles where operands and results are
 * ordinary, which means that the one rounding they do is the right one, and leave the rest to
 * {@linkcode SoftFloat}. Bits of NaNs are only moved as integers: an engine may change them in a double.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { fault, undefinedOpcode, Vector } from "./fault.ts";
import { CR4, MXCSR } from "./layout.ts";
import { Cr } from "./paging.ts";
import {
  Exception,
  type Format,
  isNan,
  isSignaling,
  SoftFloat,
} from "./soft_float.ts";

/** Bits of MXCSR other than the exception flags. */
export const Mx = {
  DenormalsAreZero: 0x40,
  MaskShift: 7,
  RoundingShift: 13,
  FlushToZero: 0x8000,
  /** All of them. */
  Control: 0xffc0,
  /** Round to nearest, everything masked, denormals as they are. */
  Default: 0x1f80,
} as const;

/** Exceptions that are found before anything is computed. */
const BEFORE = Exception.Invalid | Exception.Denormal | Exception.DivideByZero;

/** The arithmetic of all slow paths. */
export const soft: SoftFloat = new SoftFloat();

/** Prepares {@linkcode soft} for an instruction. */
export function begin(cpu: Cpu): void {
  const mxcsr = cpu.i32[MXCSR]!;
  soft.rounding = (mxcsr >>> Mx.RoundingShift) & 3;
  soft.unmasked = ~(mxcsr >>> Mx.MaskShift) & 0x3f;
  soft.flushToZero = (mxcsr & Mx.FlushToZero) !== 0;
  soft.denormalsAreZero = (mxcsr & Mx.DenormalsAreZero) !== 0;
  if (!held) soft.flags = 0;
}

let held = false;

/** From now on exceptions are collected, not raised: an instruction is carried out in several parts. */
export function hold(): void {
  held = true;
  soft.flags = 0;
}

/** Ends {@linkcode hold}: raises what was collected. */
export function release(cpu: Cpu): void {
  held = false;
  finish(cpu);
}

/** Records the exceptions of all lanes, and raises #XM if one is not masked. Results are stored after it. */
export function finish(cpu: Cpu): void {
  if (held) return;
  const i = cpu.i32;
  let flags = soft.flags;
  if ((flags & BEFORE & soft.unmasked) !== 0) flags &= BEFORE;
  i[MXCSR] = i[MXCSR]! | flags;
  if ((flags & soft.unmasked) === 0) return;
  if ((i[CR4]! & Cr.OSXMMEXCPT) === 0) undefinedOpcode(cpu);
  fault(cpu, Vector.XM);
}

/** Reads a lane of a format. */
export function readLane(cpu: Cpu, f: Format, at: number): bigint {
  return f.width === 64
    ? cpu.dv.getBigUint64(at, true)
    : BigInt(cpu.dv.getUint32(at, true));
}

/** Writes a lane of a format. */
export function writeLane(
  cpu: Cpu,
  f: Format,
  at: number,
  bits: bigint,
): void {
  if (f.width === 64) cpu.dv.setBigUint64(at, bits, true);
  else cpu.dv.setUint32(at, Number(bits), true);
}

/** The NaN that an operation on x and y gives because one of them is one, or -1. */
export function nanOf(f: Format, x: bigint, y: bigint): bigint {
  const first = isNan(f, x);
  if (!first && !isNan(f, y)) return -1n;
  if (isSignaling(f, x) || isSignaling(f, y)) soft.flags |= Exception.Invalid;
  return (first ? x : y) | f.quiet;
}

/** The smallest normal numbers. */
const LEAST64 = 2 ** -1022, LEAST32 = 2 ** -126;
const MOST64 = Number.MAX_VALUE, MOST32 = (2 - 2 ** -23) * 2 ** 127;

/** Not a NaN, a denormal or an infinity. As a result of an operation also not the product of underflow. */
export function ordinary64(x: number): boolean {
  const size = Math.abs(x);
  return x === 0 || (size > LEAST64 && size <= MOST64);
}

/** As {@linkcode ordinary64} of a single. */
export function ordinary32(x: number): boolean {
  const size = Math.abs(x);
  return x === 0 || (size > LEAST32 && size <= MOST32);
}
