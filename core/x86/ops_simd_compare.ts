/**
 * Comparisons of singles and doubles, minimum and maximum. They do not round: where no operand is a NaN or a
 * denormal nothing can go wrong.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { setArithmeticFlags } from "./flags.ts";
import { Flag, R_IMM, TEMP_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { fourKinds } from "./ops_simd_float.ts";
import { copy } from "./simd.ts";
import { begin, finish, readLane, soft, writeLane } from "./simd_float.ts";
import {
  Exception,
  F32,
  F64,
  type Format,
  isNan,
  isSignaling,
} from "./soft_float.ts";

/** What comparing gives: a bit each, so that predicates are masks. */
const Order = { Less: 1, Equal: 2, Greater: 4, Unordered: 8 } as const;

/** Compares lanes, with exceptions; `signaling`: quiet NaNs are invalid too. */
function order(f: Format, x: bigint, y: bigint, signaling: boolean): number {
  if (isNan(f, x) || isNan(f, y)) {
    if (signaling || isSignaling(f, x) || isSignaling(f, y)) {
      soft.flags |= Exception.Invalid;
    }
    return Order.Unordered;
  }
  return 2 ** (soft.compare(f, x, y) + 1);
}

/** Compares numbers of which none is a NaN. */
function quickOrder(x: number, y: number): number {
  return x < y ? Order.Less : x > y ? Order.Greater : Order.Equal;
}

const LEAST64 = 2 ** -1022, LEAST32 = 2 ** -126;

/** Not a NaN and not a denormal. */
function plain(x: number, least: number): boolean {
  return x === 0 || Math.abs(x) >= least;
}

function read(cpu: Cpu, f: Format, at: number): number {
  return f === F64 ? cpu.dv.getFloat64(at, true) : cpu.dv.getFloat32(at, true);
}

/** The predicates of CMPccPS and so on; VEX forms have the second eight too, and the signaling inverted. */
const PREDICATES = [
  Order.Equal,
  Order.Less,
  Order.Less | Order.Equal,
  Order.Unordered,
  Order.Less | Order.Greater | Order.Unordered,
  Order.Equal | Order.Greater | Order.Unordered,
  Order.Greater | Order.Unordered,
  Order.Less | Order.Equal | Order.Greater,
  Order.Equal | Order.Unordered,
  Order.Less | Order.Unordered,
  Order.Less | Order.Equal | Order.Unordered,
  0,
  Order.Less | Order.Greater,
  Order.Equal | Order.Greater,
  Order.Greater,
  Order.Less | Order.Equal | Order.Greater | Order.Unordered,
] as const;

/** The bit that inverts whether quiet NaNs are invalid. */
const INVERTED = 16;

/** CMPccPS, CMPccSD and so on. */
function compare(f: Format, lanes: number, predicates: number): Handler {
  const size = f.width >> 3;
  const least = f === F64 ? LEAST64 : LEAST32;
  return (cpu, a, b, pc) => {
    const predicate = cpu.i32[pc + R_IMM]! &
      (predicates - 1);
    const mask = PREDICATES[predicate & 15]!;
    const middle = (predicate & 3) === 1 || (predicate & 3) === 2;
    const signaling = middle !== ((predicate & INVERTED) !== 0);
    begin(cpu);
    for (let at = 0; at < lanes * size; at += size) {
      const x = read(cpu, f, a + at), y = read(cpu, f, b + at);
      const found = plain(x, least) && plain(y, least)
        ? quickOrder(x, y)
        : order(
          f,
          readLane(cpu, f, a + at),
          readLane(cpu, f, b + at),
          signaling,
        );
      const r = (mask & found) !== 0 ? -1 : 0;
      cpu.dv.setInt32(TEMP_B + at, r, true);
      if (size === 8) cpu.dv.setInt32(TEMP_B + at + 4, r, true);
    }
    finish(cpu);
    copy(cpu, a, TEMP_B, lanes * size);
  };
}

/** COMISS, COMISD, UCOMISS, UCOMISD. */
function compareFlags(f: Format, signaling: boolean): Handler {
  const least = f === F64 ? LEAST64 : LEAST32;
  return (cpu, a, b) => {
    const x = read(cpu, f, a), y = read(cpu, f, b);
    let found: number;
    if (plain(x, least) && plain(y, least)) found = quickOrder(x, y);
    else {
      begin(cpu);
      found = order(f, readLane(cpu, f, a), readLane(cpu, f, b), signaling);
      finish(cpu);
    }
    setArithmeticFlags(
      cpu,
      found === Order.Unordered
        ? Flag.ZF | Flag.PF | Flag.CF
        : found === Order.Less
        ? Flag.CF
        : found === Order.Equal
        ? Flag.ZF
        : 0,
    );
  };
}

/** MIN (`wanted` Less) and MAX: of a if it is, else of b, which includes NaNs and zeros of both signs. */
function extreme(f: Format, lanes: number, wanted: number): Handler {
  const size = f.width >> 3;
  const least = f === F64 ? LEAST64 : LEAST32;
  return (cpu, a, b) => {
    begin(cpu);
    for (let at = 0; at < lanes * size; at += size) {
      const x = read(cpu, f, a + at), y = read(cpu, f, b + at);
      if (plain(x, least) && plain(y, least)) {
        const from = quickOrder(x, y) === wanted ? a : b;
        copy(cpu, TEMP_B + at, from + at, size);
        continue;
      }
      const bits = readLane(cpu, f, a + at), others = readLane(cpu, f, b + at);
      const found = order(f, bits, others, true);
      const result = found === wanted ? bits : others;
      writeLane(cpu, f, TEMP_B + at, withoutDenormal(f, result));
    }
    finish(cpu);
    copy(cpu, a, TEMP_B, lanes * size);
  };
}

/** With MXCSR.DAZ a denormal counts as 0, also as a result. */
function withoutDenormal(f: Format, bits: bigint): bigint {
  return soft.denormalsAreZero && (bits & f.infinity) === 0n
    ? bits & f.sign
    : bits;
}

function extremes(code: string, wanted: number): OpDef[] {
  return fourKinds(
    code,
    (lanes) => extreme(F32, lanes, wanted),
    (lanes) => extreme(F64, lanes, wanted),
  );
}

/** The lines of CMPccPS and so on with 8 or 32 predicates. */
export function comparisons(predicates: number): OpDef[] {
  return fourKinds(
    "0F C2",
    (lanes) => compare(F32, lanes, predicates),
    (lanes) => compare(F64, lanes, predicates),
    "Ib",
  );
}

/** The family's lines of the opcode tables. */
export const simdCompareOps: readonly OpDef[] = [
  ...extremes("0F 5D", Order.Less),
  ...extremes("0F 5F", Order.Greater),
  ...comparisons(8),
  { code: "NP 0F 2E", operands: "Vx Wd", run: compareFlags(F32, false) },
  { code: "66 0F 2E", operands: "Vx Wq", run: compareFlags(F64, false) },
  { code: "NP 0F 2F", operands: "Vx Wd", run: compareFlags(F32, true) },
  { code: "66 0F 2F", operands: "Vx Wq", run: compareFlags(F64, true) },
];
