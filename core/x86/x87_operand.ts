/**
 * What the x87's tables and handlers share: operands in memory, ST(n), lines of the opcode table.
 *
 * @module
 */
import { commit, requireAlignment, writeAddress } from "./access.ts";
import { linearOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { COMMIT_SIZE, EA, FSW, R_IMM } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { F32, F64 } from "./soft_float.ts";
import { soft, source, Status } from "./x87.ts";
import { widen, type Widened, widenInteger } from "./x87_arithmetic.ts";

/** Fetches an operand from memory and widens it. */
export type Fetcher = (cpu: Cpu, pc: number) => Widened;

/** By format: `m` floating point, `i` integers. */
export const fetchers: Record<"m32" | "m64" | "i16" | "i32" | "i64", Fetcher> =
  {
    m32: (cpu, pc) =>
      widen(F32, BigInt(cpu.dv.getUint32(source(cpu, pc, 4), true))),
    m64: (cpu, pc) => widen(F64, cpu.dv.getBigUint64(source(cpu, pc, 8), true)),
    i16: (cpu, pc) =>
      widenInteger(BigInt(cpu.dv.getInt16(source(cpu, pc, 2), true))),
    i32: (cpu, pc) =>
      widenInteger(BigInt(cpu.dv.getInt32(source(cpu, pc, 4), true))),
    i64: (cpu, pc) =>
      widenInteger(cpu.dv.getBigInt64(source(cpu, pc, 8), true)),
  };

/** Host address of an operand in memory that is written by {@linkcode put}. */
export function target(cpu: Cpu, pc: number, bytes: number): number {
  const i = cpu.i32;
  linearOf(cpu, pc, bytes, true);
  if (bytes === 10) requireAlignment(cpu, i[EA]!, 8);
  return writeAddress(cpu, i[EA]!, i[EA + 1]!, bytes);
}

/** Stores 2 to 10 bytes there. */
export function put(cpu: Cpu, at: number, bytes: number, bits: bigint): void {
  const { dv } = cpu;
  if (bytes === 2) dv.setUint16(at, Number(bits), true);
  else if (bytes === 4) dv.setUint32(at, Number(bits), true);
  else dv.setBigUint64(at, bits, true);
  if (bytes === 10) dv.setUint16(at + 8, Number(bits >> 64n), true);
  if (cpu.i32[COMMIT_SIZE] !== 0) commit(cpu);
}

/** The n of ST(n) in a register form. */
export function number(cpu: Cpu, pc: number): number {
  return cpu.i32[pc + R_IMM]! & 7;
}

/** For FNOP and the P6's instructions, which leave C1 as it is but for a stack fault. */
export function keepC1(cpu: Cpu): void {
  if ((soft.flags & Status.SF) === 0) {
    soft.roundedUp = (cpu.i32[FSW]! & Status.C1) !== 0;
  }
}

/** A line with an operand in memory that the handler looks for. */
export function memory(code: string, run: OpDef["run"]): OpDef {
  return { code: `${code} m`, operands: "M X", run };
}

/** A line for every ST(n). */
export function register(code: string, run: Handler): OpDef {
  return { code: `${code} r`, operands: "X", run };
}

/** An instruction whose second byte is fixed. */
export function fixed(code: string, run: Handler): OpDef {
  return { code, operands: "X", run };
}
