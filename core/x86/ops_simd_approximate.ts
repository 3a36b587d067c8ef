/**
 * Approximate reciprocals and reciprocal square roots. Every processor has its own; the relative error is
 * below 1.5 * 2^-12 (SDM volume 2B, RCPPS, RSQRTPS). No exception is raised and MXCSR does not count.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { TEMP_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { copy } from "./simd.ts";

const SIGN = 0x8000_0000 | 0, INFINITY = 0x7f80_0000, QUIET = 0x40_0000;
const DEFAULT_NAN = 0xffc0_0000 | 0;
/** What is looked at of a fraction and given of a result: 12 bits; then half of the step is added. */
const TAKEN = 0xffff_f800 | 0, HALF_STEP = 0x400;

/** The approximation for a positive normal number, given and returned as bits. */
function approximate(cpu: Cpu, bits: number, root: boolean): number {
  const dv = cpu.dv;
  dv.setInt32(TEMP_B + 16, (bits & TAKEN) | HALF_STEP, true);
  const x = dv.getFloat32(TEMP_B + 16, true);
  dv.setFloat32(TEMP_B + 16, 1 / (root ? Math.sqrt(x) : x), true);
  const r = dv.getInt32(TEMP_B + 16, true);
  // Denormal results are 0 as denormal operands are.
  return r < 0x80_0000 ? 0 : (r + HALF_STEP) & TAKEN;
}

function lane(cpu: Cpu, bits: number, root: boolean): number {
  const size = bits & ~SIGN, sign = bits & SIGN;
  if (size > INFINITY) return bits | QUIET;
  if (size < 0x80_0000) return sign | INFINITY;
  if (root && sign !== 0) return DEFAULT_NAN;
  if (size === INFINITY) return sign;
  return sign | approximate(cpu, size, root);
}

function approximation(lanes: 1 | 4, root: boolean): Handler {
  return (cpu, a, b) => {
    for (let at = 0; at < 4 * lanes; at += 4) {
      const r = lane(cpu, cpu.dv.getInt32(b + at, true), root);
      cpu.dv.setInt32(TEMP_B + at, r, true);
    }
    copy(cpu, a, TEMP_B, 4 * lanes);
  };
}

/** The family's lines of the opcode tables. */
export const simdApproximateOps: readonly OpDef[] = [
  { code: "NP 0F 52", operands: "=Vx Wx", run: approximation(4, true) },
  { code: "F3 0F 52", operands: "+Vx Wd", run: approximation(1, true) },
  { code: "NP 0F 53", operands: "=Vx Wx", run: approximation(4, false) },
  { code: "F3 0F 53", operands: "+Vx Wd", run: approximation(1, false) },
];
