/**
 * x * y + z with one rounding, made of the host's doubles: the way of numbers that are ordinary, in the usual
 * mode of rounding to nearest with everything masked. NaN stands for what has to be done in software.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { MXCSR, TEMP_B } from "./layout.ts";
import { moderate, productError, sumError } from "./ops_simd_float.ts";
import { ordinary32, ordinary64 } from "./simd_float.ts";
import { Exception } from "./soft_float.ts";

/** Behind what handlers keep in this scratch. */
const BITS_B = TEMP_B + 32;

function inexact(cpu: Cpu): void {
  cpu.i32[MXCSR] = cpu.i32[MXCSR]! | Exception.Precision;
}

/** Of singles. */
export function fma32(cpu: Cpu, x: number, y: number, z: number): number {
  if (!ordinary32(x) || !ordinary32(y) || !ordinary32(z)) return NaN;
  // The product is exact, the sum a double next to the right one.
  const product = x * y;
  const sum = product + z;
  const rest = sumError(product, z, sum);
  const r = Math.fround(sum);
  if (!ordinary32(r) || (r === 0 && sum !== 0)) return NaN;
  if (rest !== 0) {
    // Halfway between two singles the rest decides, which rounding twice does not see.
    cpu.dv.setFloat64(BITS_B, sum, true);
    const lost = cpu.dv.getInt32(BITS_B, true) & 0x1fff_ffff;
    if (lost === 0x1000_0000) return NaN;
  }
  if (rest !== 0 || r !== sum) inexact(cpu);
  return r;
}

/** The sum of two doubles, to the one of its two neighbours that is odd unless it is exact. */
function oddSum(cpu: Cpu, x: number, y: number): number {
  const sum = x + y;
  const rest = sumError(x, y, sum);
  if (rest === 0) return sum;
  inexact(cpu);
  const dv = cpu.dv;
  dv.setFloat64(BITS_B, sum, true);
  const low = dv.getInt32(BITS_B, true);
  if ((low & 1) !== 0) return sum;
  if (rest > 0 === sum > 0) dv.setInt32(BITS_B, low | 1, true);
  else {
    dv.setInt32(BITS_B, low - 1, true);
    if (low === 0) {
      dv.setInt32(BITS_B + 4, dv.getInt32(BITS_B + 4, true) - 1, true);
    }
  }
  return dv.getFloat64(BITS_B, true);
}

/** Of doubles (Boldo and Melquiond, Emulation of FMA and correctly rounded sums, 2008). */
export function fma64(cpu: Cpu, x: number, y: number, z: number): number {
  const product = x * y;
  if (
    !moderate(x) || !moderate(y) || !moderate(z) || !moderate(product) ||
    (product === 0 && x !== 0 && y !== 0)
  ) return NaN;
  if (product === 0) return product + z;
  const low = productError(x, y, product);
  const upper = z + low;
  const upperRest = sumError(z, low, upper);
  const high = product + upper;
  const highRest = sumError(product, upper, high);
  const before = cpu.i32[MXCSR]!;
  const rest = oddSum(cpu, upperRest, highRest);
  const r = high + rest;
  if (!ordinary64(r)) {
    cpu.i32[MXCSR] = before;
    return NaN;
  }
  if (sumError(high, rest, r) !== 0) inexact(cpu);
  return r;
}
