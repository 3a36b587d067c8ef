/**
 * Multiplication and division. After MUL and IMUL, SF, ZF, AF and PF, which the SDM leaves undefined,
 * stay as they were, as on AMD's Zen processors; there DIV and IDIV clear SF, ZF and PF, set AF, and leave CF and OF.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { fault, Vector } from "./fault.ts";
import { arithmeticFlags, setArithmeticFlags } from "./flags.ts";
import { Flag, R_IMM } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64 } from "./operand.ts";

const RAX = 0, RDX = 4;

/** CF and OF say that the upper half matters. */
function mulFlags(cpu: Cpu, significant: boolean): void {
  const flags = arithmeticFlags(cpu) & ~(Flag.CF | Flag.OF);
  setArithmeticFlags(cpu, significant ? flags | Flag.CF | Flag.OF : flags);
}

/** High word of the unsigned product of two 32-bit words. */
export function mulHigh(x: number, y: number): number {
  const x0 = x & 0xffff, x1 = x >>> 16, y0 = y & 0xffff, y1 = y >>> 16;
  const mid = x1 * y0 + ((x0 * y0) >>> 16);
  const mid2 = x0 * y1 + (mid & 0xffff);
  return (x1 * y1 + Math.floor(mid / 0x1_0000) + (mid2 >>> 16)) | 0;
}

function mul8(cpu: Cpu, a: number): void {
  const product = cpu.u8[0]! * cpu.u8[a]!;
  cpu.dv.setUint16(0, product, true);
  mulFlags(cpu, product > 255);
}

function imul8(cpu: Cpu, a: number): void {
  const product = cpu.dv.getInt8(0) * cpu.dv.getInt8(a);
  cpu.dv.setInt16(0, product, true);
  mulFlags(cpu, product !== (product << 24) >> 24);
}

function mul16(cpu: Cpu, a: number): void {
  const product = cpu.dv.getUint16(0, true) * cpu.dv.getUint16(a, true);
  cpu.dv.setUint16(0, product, true);
  cpu.dv.setUint16(4 * RDX, product >>> 16, true);
  mulFlags(cpu, product > 0xffff);
}

function imul16(cpu: Cpu, a: number): void {
  const product = cpu.dv.getInt16(0, true) * cpu.dv.getInt16(a, true);
  cpu.dv.setInt16(0, product, true);
  cpu.dv.setInt16(4 * RDX, product >> 16, true);
  mulFlags(cpu, product !== (product << 16) >> 16);
}

function mul32(cpu: Cpu, a: number): void {
  const x = cpu.i32[RAX]!, y = cpu.dv.getInt32(a, true);
  const high = mulHigh(x, y);
  put32(cpu, 0, Math.imul(x, y));
  put32(cpu, 4 * RDX, high);
  mulFlags(cpu, high !== 0);
}

/** High word of the signed product. */
function imulHigh(x: number, y: number): number {
  return (mulHigh(x, y) - (x < 0 ? y : 0) - (y < 0 ? x : 0)) | 0;
}

function imul32(cpu: Cpu, a: number): void {
  const x = cpu.i32[RAX]!, y = cpu.dv.getInt32(a, true);
  const low = Math.imul(x, y), high = imulHigh(x, y);
  put32(cpu, 0, low);
  put32(cpu, 4 * RDX, high);
  mulFlags(cpu, high !== low >> 31);
}

/** Four words of a 64x64-bit product. Module-level, for it must not allocate. */
const PRODUCT = new Int32Array(4);

/** Unsigned product of two 64-bit values into PRODUCT. */
function mulWide(x: number, xh: number, y: number, yh: number): void {
  const p = PRODUCT;
  p[0] = Math.imul(x, y);
  let sum = (mulHigh(x, y) >>> 0) + (Math.imul(x, yh) >>> 0) +
    (Math.imul(xh, y) >>> 0);
  p[1] = sum | 0;
  sum = Math.floor(sum / 0x1_0000_0000) + (mulHigh(x, yh) >>> 0) +
    (mulHigh(xh, y) >>> 0) + (Math.imul(xh, yh) >>> 0);
  p[2] = sum | 0;
  p[3] = (Math.floor(sum / 0x1_0000_0000) + mulHigh(xh, yh)) | 0;
}

/** Turns the unsigned product into the signed one. */
function mulWideSigned(x: number, xh: number, y: number, yh: number): void {
  mulWide(x, xh, y, yh);
  if (xh < 0) subtractHigh(y, yh);
  if (yh < 0) subtractHigh(x, xh);
}

function subtractHigh(low: number, high: number): void {
  const p = PRODUCT;
  const old = p[2]! >>> 0;
  p[2] = old - (low >>> 0);
  p[3] = p[3]! - high - (old < (low >>> 0) ? 1 : 0);
}

function mul64(cpu: Cpu, a: number): void {
  const i = cpu.i32;
  mulWide(i[0]!, i[1]!, cpu.dv.getInt32(a, true), cpu.dv.getInt32(a + 4, true));
  put64(cpu, 0, PRODUCT[0]!, PRODUCT[1]!);
  put64(cpu, 4 * RDX, PRODUCT[2]!, PRODUCT[3]!);
  mulFlags(cpu, (PRODUCT[2]! | PRODUCT[3]!) !== 0);
}

/** Whether the signed product in PRODUCT does not fit 64 bits. */
function wideOverflow(): boolean {
  const sign = PRODUCT[1]! >> 31;
  return PRODUCT[2] !== sign || PRODUCT[3] !== sign;
}

function imul64(cpu: Cpu, a: number): void {
  const i = cpu.i32;
  mulWideSigned(
    i[0]!,
    i[1]!,
    cpu.dv.getInt32(a, true),
    cpu.dv.getInt32(a + 4, true),
  );
  put64(cpu, 0, PRODUCT[0]!, PRODUCT[1]!);
  put64(cpu, 4 * RDX, PRODUCT[2]!, PRODUCT[3]!);
  mulFlags(cpu, wideOverflow());
}

/** MULX: no flags; the low half goes to VEX.vvvv first, so the high half wins if both are one register. */
function mulx32(cpu: Cpu, a: number, b: number, pc: number): void {
  const x = cpu.i32[RDX]!, y = cpu.dv.getInt32(b, true);
  put32(cpu, cpu.i32[pc + R_IMM]!, Math.imul(x, y));
  put32(cpu, a, mulHigh(x, y));
}

function mulx64(cpu: Cpu, a: number, b: number, pc: number): void {
  const i = cpu.i32;
  mulWide(
    i[RDX]!,
    i[RDX + 1]!,
    cpu.dv.getInt32(b, true),
    cpu.dv.getInt32(b + 4, true),
  );
  put64(cpu, i[pc + R_IMM]!, PRODUCT[0]!, PRODUCT[1]!);
  put64(cpu, a, PRODUCT[2]!, PRODUCT[3]!);
}

/** Two-operand IMUL, and with `immediate` the three-operand form. */
function imulBy16(immediate: boolean): Handler {
  return (cpu, a, b, pc) => {
    const x = cpu.dv.getInt16(b, true);
    const y = immediate ? cpu.i32[pc + R_IMM]! : cpu.dv.getInt16(a, true);
    const product = x * ((y << 16) >> 16);
    cpu.dv.setInt16(a, product, true);
    mulFlags(cpu, product !== (product << 16) >> 16);
  };
}

function imulBy32(immediate: boolean): Handler {
  return (cpu, a, b, pc) => {
    const x = cpu.dv.getInt32(b, true);
    const y = immediate ? cpu.i32[pc + R_IMM]! : cpu.dv.getInt32(a, true);
    const low = Math.imul(x, y);
    put32(cpu, a, low);
    mulFlags(cpu, imulHigh(x, y) !== low >> 31);
  };
}

function imulBy64(immediate: boolean): Handler {
  return (cpu, a, b, pc) => {
    const i = cpu.i32;
    const y = immediate ? i[pc + R_IMM]! : i[a >> 2]!;
    const yh = immediate ? i[pc + R_IMM + 1]! : i[(a >> 2) + 1]!;
    mulWideSigned(
      cpu.dv.getInt32(b, true),
      cpu.dv.getInt32(b + 4, true),
      y,
      yh,
    );
    put64(cpu, a, PRODUCT[0]!, PRODUCT[1]!);
    mulFlags(cpu, wideOverflow());
  };
}

function divideError(cpu: Cpu): never {
  fault(cpu, Vector.DE);
}

/** A handler of DIV or IDIV, with the flags that it leaves. */
function dividing(divide: (cpu: Cpu, a: number) => void): Handler {
  return (cpu, a) => {
    divide(cpu, a);
    const flags = arithmeticFlags(cpu) & (Flag.CF | Flag.OF);
    setArithmeticFlags(cpu, flags | Flag.AF);
  };
}

function div8(cpu: Cpu, a: number): void {
  const divisor = cpu.u8[a]!;
  const dividend = cpu.dv.getUint16(0, true);
  if (divisor === 0) divideError(cpu);
  const quotient = Math.floor(dividend / divisor);
  if (quotient > 255) divideError(cpu);
  cpu.dv.setUint16(0, quotient | ((dividend % divisor) << 8), true);
}

function idiv8(cpu: Cpu, a: number): void {
  const divisor = cpu.dv.getInt8(a);
  const dividend = cpu.dv.getInt16(0, true);
  if (divisor === 0) divideError(cpu);
  const quotient = Math.trunc(dividend / divisor);
  if (quotient > 127 || quotient < -128) divideError(cpu);
  cpu.dv.setUint16(
    0,
    (quotient & 255) | (((dividend % divisor) & 255) << 8),
    true,
  );
}

function div16(cpu: Cpu, a: number): void {
  const divisor = cpu.dv.getUint16(a, true);
  const dividend = cpu.dv.getUint16(4 * RDX, true) * 0x1_0000 +
    cpu.dv.getUint16(0, true);
  if (divisor === 0) divideError(cpu);
  const quotient = Math.floor(dividend / divisor);
  if (quotient > 0xffff) divideError(cpu);
  cpu.dv.setUint16(4 * RDX, dividend % divisor, true);
  cpu.dv.setUint16(0, quotient, true);
}

function idiv16(cpu: Cpu, a: number): void {
  const divisor = cpu.dv.getInt16(a, true);
  const dividend = (cpu.dv.getUint16(4 * RDX, true) << 16) |
    cpu.dv.getUint16(0, true);
  if (divisor === 0) divideError(cpu);
  const quotient = Math.trunc(dividend / divisor);
  if (quotient > 0x7fff || quotient < -0x8000) divideError(cpu);
  cpu.dv.setInt16(4 * RDX, dividend % divisor, true);
  cpu.dv.setInt16(0, quotient, true);
}

function div32(cpu: Cpu, a: number): void {
  const i = cpu.i32;
  const divisor = cpu.dv.getUint32(a, true);
  if (divisor === 0) divideError(cpu);
  const high = i[RDX]! >>> 0, low = i[RAX]! >>> 0;
  if (high >= divisor) divideError(cpu);
  if (high < 0x20_0000) {
    // The dividend is exact in a double; its quotient may round up by one.
    const dividend = high * 0x1_0000_0000 + low;
    const remainder = dividend % divisor;
    put32(cpu, 0, ((dividend - remainder) / divisor) | 0);
    put32(cpu, 4 * RDX, remainder | 0);
    return;
  }
  const dividend = (BigInt(high) << 32n) | BigInt(low);
  const by = BigInt(divisor);
  put32(cpu, 0, Number(BigInt.asIntN(32, dividend / by)));
  put32(cpu, 4 * RDX, Number(BigInt.asIntN(32, dividend % by)));
}

function idiv32(cpu: Cpu, a: number): void {
  const i = cpu.i32;
  const divisor = cpu.dv.getInt32(a, true);
  if (divisor === 0) divideError(cpu);
  const low = i[RAX]!, high = i[RDX]!;
  if (high === low >> 31) {
    if (divisor === -1 && low === -0x8000_0000) divideError(cpu);
    put32(cpu, 0, (low / divisor) | 0);
    put32(cpu, 4 * RDX, low % divisor);
    return;
  }
  const dividend = (BigInt(high) << 32n) | BigInt(low >>> 0);
  const quotient = dividend / BigInt(divisor);
  if (quotient !== BigInt.asIntN(32, quotient)) divideError(cpu);
  put32(cpu, 0, Number(quotient));
  put32(cpu, 4 * RDX, Number(dividend % BigInt(divisor)));
}

function pair(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

function put(cpu: Cpu, a: number, value: bigint): void {
  put64(
    cpu,
    a,
    Number(BigInt.asIntN(32, value)),
    Number(BigInt.asIntN(32, value >> 32n)),
  );
}

/** DIV and IDIV of 128 by 64 bits are rare and slow on hardware too. */
function div64(cpu: Cpu, a: number): void {
  const i = cpu.i32;
  const divisor = pair(cpu.dv.getInt32(a, true), cpu.dv.getInt32(a + 4, true));
  if (divisor === 0n) divideError(cpu);
  const dividend = (pair(i[RDX]!, i[RDX + 1]!) << 64n) | pair(i[0]!, i[1]!);
  const quotient = dividend / divisor;
  if (quotient >> 64n !== 0n) divideError(cpu);
  put(cpu, 0, quotient);
  put(cpu, 4 * RDX, dividend % divisor);
}

function idiv64(cpu: Cpu, a: number): void {
  const i = cpu.i32;
  const divisor = BigInt.asIntN(
    64,
    pair(cpu.dv.getInt32(a, true), cpu.dv.getInt32(a + 4, true)),
  );
  if (divisor === 0n) divideError(cpu);
  const dividend = (BigInt.asIntN(64, pair(i[RDX]!, i[RDX + 1]!)) << 64n) |
    pair(i[0]!, i[1]!);
  const quotient = dividend / divisor;
  if (quotient !== BigInt.asIntN(64, quotient)) divideError(cpu);
  put(cpu, 0, quotient);
  put(cpu, 4 * RDX, dividend % divisor);
}

/** The family's lines of the opcode tables. */
export const mulDivOps: readonly OpDef[] = [
  { code: "F6 /4", operands: "Eb", run: mul8 },
  { code: "F7 /4", operands: "Ev", run: { 16: mul16, 32: mul32, 64: mul64 } },
  { code: "F6 /5", operands: "Eb", run: imul8 },
  {
    code: "F7 /5",
    operands: "Ev",
    run: { 16: imul16, 32: imul32, 64: imul64 },
  },
  { code: "F6 /6", operands: "Eb", run: dividing(div8) },
  {
    code: "F7 /6",
    operands: "Ev",
    run: { 16: dividing(div16), 32: dividing(div32), 64: dividing(div64) },
  },
  { code: "F6 /7", operands: "Eb", run: dividing(idiv8) },
  {
    code: "F7 /7",
    operands: "Ev",
    run: { 16: dividing(idiv16), 32: dividing(idiv32), 64: dividing(idiv64) },
  },
  {
    code: "0F AF",
    operands: "+Gv Ev",
    run: { 16: imulBy16(false), 32: imulBy32(false), 64: imulBy64(false) },
  },
  {
    code: "69",
    operands: "=Gv Ev Iz",
    run: { 16: imulBy16(true), 32: imulBy32(true), 64: imulBy64(true) },
  },
  {
    code: "6B",
    operands: "=Gv Ev Ibs",
    run: { 16: imulBy16(true), 32: imulBy32(true), 64: imulBy64(true) },
  },
  {
    code: "VEX.F2.L0 0F38 F6",
    operands: "=Gy Ey By",
    run: { 16: mulx32, 32: mulx32, 64: mulx64 },
  },
];
