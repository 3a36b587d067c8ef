/**
 * Flags of ADC and SBB. With the carry in the result no longer says whether there was a carry
 * out, so these are computed at once.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import {
  carry,
  resultFlags32,
  resultFlags64,
  setArithmeticFlags,
} from "./flags.ts";
import { HIGH } from "./layout.ts";

/** Flags of `x + y + CF = r`, all sign-extended from their size. */
export function flagsOfAdc32(cpu: Cpu, x: number, y: number, r: number): void {
  const out = (x & y) | ((x | y) & ~r);
  setArithmeticFlags(
    cpu,
    (out >>> 31) | resultFlags32(r) | ((x ^ y ^ r) & 16) |
      ((((x ^ r) & (y ^ r)) >>> 31) << 11),
  );
}

/** Flags of `x - y - CF = r`, all sign-extended from their size. */
export function flagsOfSbb32(cpu: Cpu, x: number, y: number, r: number): void {
  const out = (~x & y) | ((~x | y) & r);
  setArithmeticFlags(
    cpu,
    (out >>> 31) | resultFlags32(r) | ((x ^ y ^ r) & 16) |
      ((((x ^ y) & (x ^ r)) >>> 31) << 11),
  );
}

/** Adds with carry and sets the flags: the low word, and the high word in HIGH. */
export function flagsOfAdc64(
  cpu: Cpu,
  x: number,
  xh: number,
  y: number,
  yh: number,
): number {
  const sum = (x >>> 0) + (y >>> 0) + carry(cpu);
  const r = sum | 0;
  const rh = (xh + yh + (sum > 0xffff_ffff ? 1 : 0)) | 0;
  const out = (xh & yh) | ((xh | yh) & ~rh);
  setArithmeticFlags(
    cpu,
    (out >>> 31) | resultFlags64(r, rh) | ((x ^ y ^ r) & 16) |
      ((((xh ^ rh) & (yh ^ rh)) >>> 31) << 11),
  );
  cpu.i32[HIGH] = rh;
  return r;
}

/** Subtracts with borrow and sets the flags: the low word, and the high word in HIGH. */
export function flagsOfSbb64(
  cpu: Cpu,
  x: number,
  xh: number,
  y: number,
  yh: number,
): number {
  const difference = (x >>> 0) - (y >>> 0) - carry(cpu);
  const r = difference | 0;
  const rh = (xh - yh - (difference < 0 ? 1 : 0)) | 0;
  const out = (~xh & yh) | ((~xh | yh) & rh);
  setArithmeticFlags(
    cpu,
    (out >>> 31) | resultFlags64(r, rh) | ((x ^ y ^ r) & 16) |
      ((((xh ^ yh) & (xh ^ rh)) >>> 31) << 11),
  );
  cpu.i32[HIGH] = rh;
  return r;
}
