/**
 * FMA: products and sums with one rounding; and the conversions of half precision, F16C.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { R_IMM, TEMP_B, VEC_B, VEX_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { softConvert } from "./ops_simd_convert.ts";
import { copy } from "./simd.ts";
import {
  begin,
  finish,
  hold,
  nanOf,
  readLane,
  release,
  soft,
  writeLane,
} from "./simd_float.ts";
import {
  convertNan,
  Exception,
  F16,
  F32,
  F64,
  type Format,
  isNan,
  isSignaling,
} from "./soft_float.ts";
import { clearUpper, put, sourceOf, upperOf } from "./vex.ts";

/** x * y + z; of several NaNs the first counts. */
function fused(f: Format, x: bigint, y: bigint, z: bigint): bigint {
  const operands = [x, y, z];
  const nan = operands.find((operand) => isNan(f, operand));
  if (nan === undefined) return soft.fma(f, x, y, z);
  if (operands.some((operand) => isSignaling(f, operand))) {
    soft.flags |= Exception.Invalid;
  }
  return nan | f.quiet;
}

/** Which products and sums are negated in even and odd lanes. */
interface Signs {
  readonly product: boolean;
  readonly even: boolean;
  readonly odd: boolean;
}

/** The order of operands: 132, 213 or 231. */
type Order = 132 | 213 | 231;

/** Lanes of 16 bytes at most: to = +-(product) +- (sum) of a, v and b. */
function fuse(
  cpu: Cpu,
  f: Format,
  order: Order,
  signs: Signs,
  bytes: number,
  to: number,
  a: number,
  v: number,
  b: number,
): void {
  const size = f.width >> 3;
  begin(cpu);
  for (let at = 0; at < bytes; at += size) {
    const first = readLane(cpu, f, a + at);
    const second = readLane(cpu, f, v + at);
    const third = readLane(cpu, f, b + at);
    const [x, y, z] = order === 132
      ? [first, third, second]
      : order === 213
      ? [second, first, third]
      : [second, third, first];
    const negative = (at & size) === 0 ? signs.even : signs.odd;
    const product = signs.product && !isNan(f, x) ? x ^ f.sign : x;
    const sum = negative && !isNan(f, z) ? z ^ f.sign : z;
    writeLane(cpu, f, to + at, fused(f, product, y, sum));
  }
  finish(cpu);
}

function packed(
  f: Format,
  order: Order,
  signs: Signs,
  wide: boolean,
): Handler {
  return (cpu, a, b, pc) => {
    const v = sourceOf(cpu, pc);
    hold();
    fuse(cpu, f, order, signs, 16, VEX_B, a, v, b);
    if (wide) {
      fuse(
        cpu,
        f,
        order,
        signs,
        16,
        VEX_B + 16,
        a + 256,
        v + 256,
        upperOf(b),
      );
    }
    release(cpu);
    put(cpu, a, wide);
  };
}

function scalar(f: Format, order: Order, signs: Signs): Handler {
  return (cpu, a, b, pc) => {
    const size = f.width >> 3;
    fuse(cpu, f, order, signs, size, VEX_B, a, sourceOf(cpu, pc), b);
    copy(cpu, a, VEX_B, size);
    clearUpper(cpu, a);
  };
}

/** The opcodes' low digits: the kind of sum; odd ones from 9 on are scalar. */
const KINDS: readonly (readonly [number, boolean, Signs])[] = [
  [0x6, false, { product: false, even: true, odd: false }],
  [0x7, false, { product: false, even: false, odd: true }],
  ...[
    { product: false, even: false, odd: false },
    { product: false, even: true, odd: true },
    { product: true, even: false, odd: false },
    { product: true, even: true, odd: true },
  ].flatMap((signs, n) =>
    [
      [8 + 2 * n, false, signs],
      [9 + 2 * n, true, signs],
    ] as const
  ),
];

function fusedLines(): OpDef[] {
  const lines: OpDef[] = [];
  for (const [high, order] of [["9", 132], ["A", 213], ["B", 231]] as const) {
    for (const [low, single, signs] of KINDS) {
      for (const [w, f] of [F32, F64].entries()) {
        const opcode = `0F38 ${high}${low.toString(16).toUpperCase()} W${w}`;
        if (single) {
          lines.push({
            code: `VEX.66 ${opcode}`,
            operands: `+Vx W${w === 1 ? "q" : "d"} Hx`,
            run: scalar(f, order, signs),
          });
          continue;
        }
        for (const wide of [false, true]) {
          lines.push({
            code: `VEX.66.L${wide ? 1 : 0} ${opcode}`,
            operands: `+Vx W${wide ? "qq" : "dq"} Hx`,
            run: packed(f, order, signs, wide),
          });
        }
      }
    }
  }
  return lines;
}

/** VCVTPH2PS. MXCSR.DAZ does not count, nor is a denormal an exception. */
function fromHalf(lanes: number): Handler {
  return (cpu, a, b) => {
    begin(cpu);
    soft.denormalsAreZero = false;
    for (let n = 0; n < lanes; n++) {
      const bits = BigInt(cpu.dv.getUint16(b + 2 * n, true));
      const r = nanOf(F16, bits, bits) >= 0n
        ? convertNan(F16, F32, bits)
        : soft.convert(F16, F32, bits, false);
      writeLane(cpu, F32, VEX_B + 4 * n, r);
    }
    finish(cpu);
    put(cpu, a, lanes === 8);
  };
}

/** VCVTPS2PH: rounding by the immediate; MXCSR.FZ does not count. */
function toHalf(lanes: number): Handler {
  return (cpu, a, b, pc) => {
    const imm = cpu.i32[pc + R_IMM]!;
    begin(cpu);
    if ((imm & 4) === 0) soft.rounding = imm & 3;
    soft.flushToZero = false;
    for (let n = 0; n < lanes; n++) {
      const at = n < 4 ? b + 4 * n : b + 256 + 4 * (n - 4);
      const r = softConvert(F32, F16, readLane(cpu, F32, at));
      cpu.dv.setInt16(TEMP_B + 2 * n, Number(r), true);
    }
    finish(cpu);
    copy(cpu, a, TEMP_B, 2 * lanes);
    if (a < VEC_B || a >= VEC_B + 256) return;
    if (lanes === 4) {
      cpu.dv.setInt32(a + 8, 0, true);
      cpu.dv.setInt32(a + 12, 0, true);
    }
    clearUpper(cpu, a);
  };
}

/** The families' lines of the opcode tables. */
export function fmaOps(): OpDef[] {
  return [
    ...fusedLines(),
    { code: "VEX.66.L0 0F38 13 W0", operands: "=Vx Wq", run: fromHalf(4) },
    { code: "VEX.66.L1 0F38 13 W0", operands: "=Vx Wdq", run: fromHalf(8) },
    { code: "VEX.66.L0 0F3A 1D W0", operands: "=Wq Vx Ib", run: toHalf(4) },
    { code: "VEX.66.L1 0F3A 1D W0", operands: "=Wdq Vx Ib", run: toHalf(8) },
  ];
}
