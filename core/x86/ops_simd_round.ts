/**
 * SSE4.1's ROUND and dot products.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { R_IMM, TEMP_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { FloatOp, softly } from "./ops_simd_float.ts";
import { copy, xmm } from "./simd.ts";
import {
  begin,
  finish,
  nanOf,
  readLane,
  soft,
  writeLane,
} from "./simd_float.ts";
import { Exception, F32, F64, type Format } from "./soft_float.ts";

/** Bits of ROUND's immediate; the lower two are a rounding mode. */
const Imm = { Mxcsr: 4, NoPrecision: 8 } as const;

/** ROUNDPS, ROUNDPD, ROUNDSS and ROUNDSD. */
function round(f: Format, lanes: number): Handler {
  const size = f.width >> 3;
  return (cpu, a, b, pc) => {
    const imm = cpu.i32[pc + R_IMM]!;
    begin(cpu);
    if ((imm & Imm.Mxcsr) === 0) soft.rounding = imm & 3;
    for (let at = 0; at < lanes * size; at += size) {
      const bits = readLane(cpu, f, b + at);
      const nan = nanOf(f, bits, bits);
      const result = nan >= 0n ? nan : soft.integral(f, bits);
      writeLane(cpu, f, TEMP_B + at, result);
    }
    if ((imm & Imm.NoPrecision) !== 0) soft.flags &= ~Exception.Precision;
    finish(cpu);
    copy(cpu, a, TEMP_B, lanes * size);
  };
}

/** Destination and sources of 16 bytes of a dot product. */
type Part = readonly [to: number, a: number, b: number];

/**
 * DPPS and DPPD: products where the immediate's upper half says so, their sum where its lower half does.
 * The sum is made of pairs, and every step raises the exceptions of all its lanes.
 */
export function dotProduct(
  cpu: Cpu,
  f: Format,
  imm: number,
  parts: readonly Part[],
): void {
  const size = f.width >> 3;
  const lanes = 16 / size;
  begin(cpu);
  let sums = parts.map(([, a, b]) =>
    Array.from({ length: lanes }, (_, n) => {
      if (((imm >>> (4 + n)) & 1) === 0) return 0n;
      const x = readLane(cpu, f, a + n * size);
      return softly(f, FloatOp.Mul, x, readLane(cpu, f, b + n * size));
    })
  );
  finish(cpu);
  for (let count = lanes; count > 1; count >>= 1) {
    sums = sums.map((terms) =>
      Array.from(
        { length: count >> 1 },
        (_, n) => softly(f, FloatOp.Add, terms[2 * n]!, terms[2 * n + 1]!),
      )
    );
    finish(cpu);
  }
  parts.forEach(([to], part) => {
    for (let n = 0; n < lanes; n++) {
      const wanted = ((imm >>> n) & 1) !== 0;
      writeLane(cpu, f, to + n * size, wanted ? sums[part]![0]! : 0n);
    }
  });
}

function dotProductOf(f: Format): Handler {
  return (cpu, a, b, pc) =>
    dotProduct(cpu, f, cpu.i32[pc + R_IMM]!, [[a, a, b]]);
}

/** The family's lines of the opcode tables. */
export const simdRoundOps: readonly OpDef[] = [
  xmm("0F 3A 08", round(F32, 4), "=Vx Wx Ib"),
  xmm("0F 3A 09", round(F64, 2), "=Vx Wx Ib"),
  xmm("0F 3A 0A", round(F32, 1), "+Vx Wd Ib"),
  xmm("0F 3A 0B", round(F64, 1), "+Vx Wq Ib"),
  xmm("0F 3A 40", dotProductOf(F32), "+Vx Wx Ib"),
  xmm("0F 3A 41", dotProductOf(F64), "+Vx Wx Ib"),
];
