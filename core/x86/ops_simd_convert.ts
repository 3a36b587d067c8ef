/**
 * Conversions between singles, doubles and integers.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { MXCSR, TEMP_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64 } from "./operand.ts";
import { sumError } from "./ops_simd_float.ts";
import { copy, mmx } from "./simd.ts";
import {
  begin,
  finish,
  Mx,
  nanOf,
  ordinary32,
  ordinary64,
  readLane,
  soft,
  writeLane,
} from "./simd_float.ts";
import {
  convertNan,
  Exception,
  F32,
  F64,
  type Format,
  isNan,
  Rounding,
} from "./soft_float.ts";

/** The nearest integer, of two the even one. */
export function nearest(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** A float as an integer of 32 or 64 bits, with exceptions, in software. */
function softInteger(f: Format, bits: bigint, size: number): bigint {
  if (!isNan(f, bits)) return soft.toInteger(f, bits, size);
  soft.flags |= Exception.Invalid;
  return 1n << BigInt(size - 1);
}

/**
 * A float in lane `at` as an integer within (-limit - 1, limit), or NaN if it is out of that or the mode
 * is not the usual one. PE is set here.
 */
function quickInteger(
  cpu: Cpu,
  f: Format,
  at: number,
  truncate: boolean,
  limit: number,
): number {
  const mxcsr = cpu.i32[MXCSR]!;
  if ((mxcsr & Mx.Control) !== Mx.Default) return NaN;
  const x = f === F64
    ? cpu.dv.getFloat64(at, true)
    : cpu.dv.getFloat32(at, true);
  const r = truncate ? Math.trunc(x) : nearest(x);
  if (!(r >= -limit && r < limit)) return NaN;
  if (r !== x) cpu.i32[MXCSR] = mxcsr | Exception.Precision;
  return r;
}

/** CVTSD2SI, CVTTSS2SI and so on: to a general register. */
function toRegister(f: Format, truncate: boolean, size: 32 | 64): Handler {
  const limit = 2 ** (size - 1);
  return (cpu, a, b) => {
    const quick = quickInteger(cpu, f, b, truncate, limit);
    if (quick === quick) {
      if (size === 32) put32(cpu, a, quick);
      else put64(cpu, a, quick, Math.floor(quick / 0x1_0000_0000));
      return;
    }
    begin(cpu);
    if (truncate) soft.rounding = Rounding.Zero;
    const r = softInteger(f, readLane(cpu, f, b), size);
    finish(cpu);
    if (size === 32) put32(cpu, a, Number(r));
    else cpu.dv.setBigUint64(a, r, true);
  };
}

/** CVTPS2DQ, CVTTPD2DQ, CVTTPS2PI and so on: packed, the result is filled up with 0 to `bytes`. */
function toIntegers(
  f: Format,
  lanes: number,
  truncate: boolean,
  bytes: number,
): Handler {
  const size = f.width >> 3;
  return (cpu, a, b) => {
    begin(cpu);
    if (truncate) soft.rounding = Rounding.Zero;
    for (let n = 0; n < lanes; n++) {
      const r = softInteger(f, readLane(cpu, f, b + n * size), 32);
      cpu.dv.setUint32(TEMP_B + 4 * n, Number(r), true);
    }
    finish(cpu);
    copy(cpu, a, TEMP_B, 4 * lanes);
    for (let at = 4 * lanes; at < bytes; at += 4) {
      cpu.dv.setInt32(a + at, 0, true);
    }
  };
}

/** CVTSI2SS and CVTSI2SD. */
function fromRegister(f: Format, size: 32 | 64): Handler {
  return (cpu, a, b) => {
    const dv = cpu.dv;
    const mxcsr = cpu.i32[MXCSR]!;
    const low = dv.getInt32(b, true);
    if (f === F64 && size === 32) {
      dv.setFloat64(a, low, true);
      return;
    }
    const usual = (mxcsr & Mx.Control) === Mx.Default;
    if (usual && size === 32) {
      const r = Math.fround(low);
      if (r !== low) cpu.i32[MXCSR] = mxcsr | Exception.Precision;
      dv.setFloat32(a, r, true);
      return;
    }
    if (usual && f === F64) {
      const upper = dv.getInt32(b + 4, true) * 0x1_0000_0000;
      const r = upper + (low >>> 0);
      if (sumError(upper, low >>> 0, r) !== 0) {
        cpu.i32[MXCSR] = mxcsr | Exception.Precision;
      }
      dv.setFloat64(a, r, true);
      return;
    }
    begin(cpu);
    const value = size === 32 ? BigInt(low) : dv.getBigInt64(b, true);
    const r = soft.fromInteger(f, value);
    finish(cpu);
    writeLane(cpu, f, a, r);
  };
}

/** CVTDQ2PS, CVTPI2PD and so on: packed 32-bit integers. */
function fromIntegers(f: Format, lanes: number): Handler {
  const size = f.width >> 3;
  return (cpu, a, b) => {
    begin(cpu);
    for (let n = 0; n < lanes; n++) {
      const value = BigInt(cpu.dv.getInt32(b + 4 * n, true));
      writeLane(cpu, f, TEMP_B + n * size, soft.fromInteger(f, value));
    }
    finish(cpu);
    copy(cpu, a, TEMP_B, lanes * size);
  };
}

/** A float in the other format, with exceptions, in software. */
export function softConvert(from: Format, to: Format, bits: bigint): bigint {
  if (nanOf(from, bits, bits) >= 0n) return convertNan(from, to, bits);
  const before = soft.flags;
  soft.flags = 0;
  const result = soft.convert(from, to, bits);
  // Unmasked, only the significand is rounded: that is how the x87 differs where no exponent fits.
  if ((soft.flags & soft.unmasked & BEYOND) !== 0 && fits(from, to, bits)) {
    soft.flags &= ~Exception.Precision;
  }
  soft.flags |= before;
  return result;
}

const BEYOND = Exception.Overflow | Exception.Underflow;

/** Whether a format's precision suffices for a number. */
function fits(from: Format, to: Format, bits: bigint): boolean {
  const fraction = bits & from.fraction;
  const significand = (bits & from.infinity) === 0n
    ? fraction
    : fraction | (from.fraction + 1n);
  const lowest = significand & -significand;
  return significand < lowest << BigInt(to.precision) || significand === 0n;
}

/** CVTSS2SD and CVTSD2SS. */
function convertScalar(from: Format, to: Format): Handler {
  return (cpu, a, b) => {
    const dv = cpu.dv;
    if (from === F32) {
      const x = dv.getFloat32(b, true);
      if (ordinary32(x)) {
        dv.setFloat64(a, x, true);
        return;
      }
    } else {
      const mxcsr = cpu.i32[MXCSR]!;
      const x = dv.getFloat64(b, true);
      const r = Math.fround(x);
      if (
        (mxcsr & Mx.Control) === Mx.Default && ordinary64(x) &&
        ordinary32(r) && (r !== 0 || x === 0)
      ) {
        if (r !== x) cpu.i32[MXCSR] = mxcsr | Exception.Precision;
        dv.setFloat32(a, r, true);
        return;
      }
    }
    begin(cpu);
    const r = softConvert(from, to, readLane(cpu, from, b));
    finish(cpu);
    writeLane(cpu, to, a, r);
  };
}

/** CVTPS2PD and CVTPD2PS: two lanes; the rest of a register of singles becomes 0. */
function convertPacked(from: Format, to: Format): Handler {
  const size = from.width >> 3, toSize = to.width >> 3;
  return (cpu, a, b) => {
    begin(cpu);
    for (let n = 0; n < 2; n++) {
      const bits = readLane(cpu, from, b + n * size);
      writeLane(cpu, to, TEMP_B + n * toSize, softConvert(from, to, bits));
    }
    finish(cpu);
    copy(cpu, a, TEMP_B, 2 * toSize);
    for (let at = 2 * toSize; at < 16; at += 4) {
      cpu.dv.setInt32(a + at, 0, true);
    }
  };
}

type Sized = { 16: Handler; 32: Handler; 64: Handler };

function sized(make: (size: 32 | 64) => Handler): Sized {
  const narrow = make(32);
  return { 16: narrow, 32: narrow, 64: make(64) };
}

/** The lines of CVTSx2SI and CVTTSx2SI. */
function registerLines(code: string, truncate: boolean): OpDef[] {
  return [
    {
      code: `F3 ${code}`,
      operands: "=Gy Wd",
      run: sized((size) => toRegister(F32, truncate, size)),
    },
    {
      code: `F2 ${code}`,
      operands: "=Gy Wq",
      run: sized((size) => toRegister(F64, truncate, size)),
    },
  ];
}

/** The family's lines of the opcode tables. */
export const simdConvertOps: readonly OpDef[] = [
  { code: "NP 0F 2A r", operands: "+Vx Nq", run: mmx(fromIntegers(F32, 2)) },
  { code: "66 0F 2A r", operands: "=Vx Nq", run: mmx(fromIntegers(F64, 2)) },
  // Reading memory they leave the x87 registers alone.
  { code: "NP 0F 2A m", operands: "+Vx Mq", run: fromIntegers(F32, 2) },
  { code: "66 0F 2A m", operands: "=Vx Mq", run: fromIntegers(F64, 2) },
  {
    code: "F3 0F 2A",
    operands: "+Vx Ey",
    run: sized((size) => fromRegister(F32, size)),
  },
  {
    code: "F2 0F 2A",
    operands: "+Vx Ey",
    run: sized((size) => fromRegister(F64, size)),
  },
  ...registerLines("0F 2C", true),
  ...registerLines("0F 2D", false),
  {
    code: "NP 0F 2C",
    operands: "=Pq Wq",
    run: mmx(toIntegers(F32, 2, true, 8)),
  },
  {
    code: "NP 0F 2D",
    operands: "=Pq Wq",
    run: mmx(toIntegers(F32, 2, false, 8)),
  },
  {
    code: "66 0F 2C",
    operands: "=Pq Wx",
    run: mmx(toIntegers(F64, 2, true, 8)),
  },
  {
    code: "66 0F 2D",
    operands: "=Pq Wx",
    run: mmx(toIntegers(F64, 2, false, 8)),
  },
  { code: "NP 0F 5A", operands: "=Vx Wq", run: convertPacked(F32, F64) },
  { code: "66 0F 5A", operands: "=Vx Wx", run: convertPacked(F64, F32) },
  { code: "F3 0F 5A", operands: "+Vx Wd", run: convertScalar(F32, F64) },
  { code: "F2 0F 5A", operands: "+Vx Wq", run: convertScalar(F64, F32) },
  { code: "NP 0F 5B", operands: "=Vx Wx", run: fromIntegers(F32, 4) },
  { code: "66 0F 5B", operands: "=Vx Wx", run: toIntegers(F32, 4, false, 16) },
  { code: "F3 0F 5B", operands: "=Vx Wx", run: toIntegers(F32, 4, true, 16) },
  { code: "66 0F E6", operands: "=Vx Wx", run: toIntegers(F64, 2, true, 16) },
  { code: "F2 0F E6", operands: "=Vx Wx", run: toIntegers(F64, 2, false, 16) },
  { code: "F3 0F E6", operands: "=Vx Wq", run: fromIntegers(F64, 2) },
];
