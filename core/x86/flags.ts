/**
 * Arithmetic flags, computed only when somebody looks. An operation leaves its
 * operands and result in the CC words; operands shorter than 32 bits are left
 * sign-extended, which keeps signed and unsigned order and so lets one rule
 * serve all sizes up to 32 bits.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { Cc, CC_A, CC_B, CC_OP, CC_R, EFLAGS, Flag } from "./layout.ts";

/** CF as 0 or 1. */
export function carry(cpu: Cpu): number {
  const i = cpu.i32;
  const aLo = i[CC_A]!, bLo = i[CC_B]!, rLo = i[CC_R]!;
  switch (i[CC_OP]) {
    case Cc.Explicit:
      return i[EFLAGS]! & 1;
    case Cc.Add32:
      return (rLo >>> 0) < (aLo >>> 0) ? 1 : 0;
    case Cc.Sub32:
      return (aLo >>> 0) < (bLo >>> 0) ? 1 : 0;
    case Cc.Inc32:
    case Cc.Dec32:
    case Cc.Inc64:
    case Cc.Dec64:
      return bLo;
    case Cc.Add64: {
      const r = i[CC_R + 1]!, a = i[CC_A + 1]!;
      return r === a
        ? (rLo >>> 0) < (aLo >>> 0) ? 1 : 0
        : (r >>> 0) < (a >>> 0)
        ? 1
        : 0;
    }
    case Cc.Sub64: {
      const a = i[CC_A + 1]!, b = i[CC_B + 1]!;
      return a === b
        ? (aLo >>> 0) < (bLo >>> 0) ? 1 : 0
        : (a >>> 0) < (b >>> 0)
        ? 1
        : 0;
    }
    default:
      return 0;
  }
}

/** ZF as a truth value. */
export function zero(cpu: Cpu): boolean {
  const i = cpu.i32;
  const op = i[CC_OP]!;
  if (op === Cc.Explicit) return (i[EFLAGS]! & Flag.ZF) !== 0;
  return op >= Cc.Add64 ? (i[CC_R]! | i[CC_R + 1]!) === 0 : i[CC_R] === 0;
}

/** SF as a truth value. */
export function sign(cpu: Cpu): boolean {
  const i = cpu.i32;
  const op = i[CC_OP]!;
  if (op === Cc.Explicit) return (i[EFLAGS]! & Flag.SF) !== 0;
  return (op >= Cc.Add64 ? i[CC_R + 1]! : i[CC_R]!) < 0;
}

/** OF as a truth value. */
export function overflow(cpu: Cpu): boolean {
  const i = cpu.i32;
  switch (i[CC_OP]) {
    case Cc.Explicit:
      return (i[EFLAGS]! & Flag.OF) !== 0;
    case Cc.Add32:
      return ((i[CC_A]! ^ i[CC_R]!) & (i[CC_B]! ^ i[CC_R]!)) < 0;
    case Cc.Sub32:
      return ((i[CC_A]! ^ i[CC_B]!) & (i[CC_A]! ^ i[CC_R]!)) < 0;
    case Cc.Inc32:
      // Only the most positive value turns negative.
      return i[CC_A]! >= 0 && i[CC_R]! < 0;
    case Cc.Dec32:
      return i[CC_A]! < 0 && i[CC_R]! >= 0;
    case Cc.Add64:
      return ((i[CC_A + 1]! ^ i[CC_R + 1]!) &
        (i[CC_B + 1]! ^ i[CC_R + 1]!)) < 0;
    case Cc.Sub64:
      return ((i[CC_A + 1]! ^ i[CC_B + 1]!) &
        (i[CC_A + 1]! ^ i[CC_R + 1]!)) < 0;
    case Cc.Inc64:
      return i[CC_A + 1]! >= 0 && i[CC_R + 1]! < 0;
    case Cc.Dec64:
      return i[CC_A + 1]! < 0 && i[CC_R + 1]! >= 0;
    default:
      return false;
  }
}

/** PF of a result's low byte, as the flag bit. */
export function parity(low: number): number {
  const x = (low ^ (low >>> 4)) & 15;
  return ((0x9669 >>> x) & 1) << 2;
}

/** All six arithmetic flags as bits of EFLAGS. */
export function arithmeticFlags(cpu: Cpu): number {
  const i = cpu.i32;
  const op = i[CC_OP]!;
  if (op === Cc.Explicit) return i[EFLAGS]! & Flag.Arithmetic;
  let aux = 0;
  switch (op) {
    case Cc.Add32:
    case Cc.Add64:
    case Cc.Sub32:
    case Cc.Sub64:
      aux = (i[CC_A]! ^ i[CC_B]! ^ i[CC_R]!) & 16;
      break;
    case Cc.Inc32:
    case Cc.Inc64:
    case Cc.Dec32:
    case Cc.Dec64:
      aux = (i[CC_A]! ^ i[CC_R]!) & 16;
      break;
  }
  return carry(cpu) | parity(i[CC_R]!) | aux |
    (zero(cpu) ? Flag.ZF : 0) | (sign(cpu) ? Flag.SF : 0) |
    (overflow(cpu) ? Flag.OF : 0);
}

/** Sets all six arithmetic flags from bits of EFLAGS. */
export function setArithmeticFlags(cpu: Cpu, flags: number): void {
  const i = cpu.i32;
  i[EFLAGS] = (i[EFLAGS]! & ~Flag.Arithmetic) | (flags & Flag.Arithmetic);
  i[CC_OP] = Cc.Explicit;
}

/** EFLAGS with the arithmetic flags in place. */
export function readFlags(cpu: Cpu): number {
  const i = cpu.i32;
  if (i[CC_OP] !== Cc.Explicit) setArithmeticFlags(cpu, arithmeticFlags(cpu));
  return i[EFLAGS]!;
}

/** Sets the flags of a logic operation of up to 32 bits: `result` sign-extended. */
export function flagsLogic32(cpu: Cpu, result: number): void {
  cpu.i32[CC_OP] = Cc.Logic32;
  cpu.i32[CC_R] = result;
}

/** Sets the flags of a 64-bit logic operation. */
export function flagsLogic64(cpu: Cpu, low: number, high: number): void {
  cpu.i32[CC_OP] = Cc.Logic64;
  cpu.i32[CC_R] = low;
  cpu.i32[CC_R + 1] = high;
}

/** Sets the flags of x - y, both sign-extended from `size` (1, 2 or 4) bytes. */
export function flagsOfCompare32(
  cpu: Cpu,
  x: number,
  y: number,
  size: number,
): void {
  const i = cpu.i32;
  const unused = 32 - 8 * size;
  i[CC_OP] = Cc.Sub32;
  i[CC_A] = x;
  i[CC_B] = y;
  i[CC_R] = ((x - y) << unused) >> unused;
}

/** Sets the flags of a 64-bit x - y. */
export function flagsOfCompare64(
  cpu: Cpu,
  x: number,
  xh: number,
  y: number,
  yh: number,
): void {
  const i = cpu.i32;
  i[CC_OP] = Cc.Sub64;
  i[CC_A] = x;
  i[CC_A + 1] = xh;
  i[CC_B] = y;
  i[CC_B + 1] = yh;
  i[CC_R] = x - y;
  i[CC_R + 1] = xh - yh - ((x >>> 0) < (y >>> 0) ? 1 : 0);
}

/** SF, ZF and PF of a sign-extended result of up to 32 bits, as bits of EFLAGS. */
export function resultFlags32(result: number): number {
  return parity(result) | (result === 0 ? Flag.ZF : 0) |
    (result < 0 ? Flag.SF : 0);
}

/** SF, ZF and PF of a 64-bit result, as bits of EFLAGS. */
export function resultFlags64(low: number, high: number): number {
  return parity(low) | ((low | high) === 0 ? Flag.ZF : 0) |
    (high < 0 ? Flag.SF : 0);
}

/** Whether condition `code` (the low four bits of Jcc's opcode) holds. */
export function condition(cpu: Cpu, code: number): boolean {
  let holds: boolean;
  switch (code >> 1) {
    case 0:
      holds = overflow(cpu);
      break;
    case 1:
      holds = carry(cpu) !== 0;
      break;
    case 2:
      holds = zero(cpu);
      break;
    case 3:
      holds = carry(cpu) !== 0 || zero(cpu);
      break;
    case 4:
      holds = sign(cpu);
      break;
    case 5:
      holds = cpu.i32[CC_OP] === Cc.Explicit
        ? (cpu.i32[EFLAGS]! & Flag.PF) !== 0
        : parity(cpu.i32[CC_R]!) !== 0;
      break;
    case 6:
      holds = sign(cpu) !== overflow(cpu);
      break;
    default:
      holds = zero(cpu) || sign(cpu) !== overflow(cpu);
  }
  return holds !== ((code & 1) === 1);
}
