/**
 * Count and index registers of string instructions, at the address size of the instruction.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { Mem, Meta, MODE, Mode, R_MEM, R_META, RIP } from "./layout.ts";

const RCX = 2;
/** F3 or F2 in front of the instruction. */
export const REPEATED: number = Meta.Rep | Meta.Repne;

function addressSize(cpu: Cpu, pc: number): number {
  return (cpu.i32[pc + R_MEM]! >>> Mem.SizeShift) & 3;
}

/** Low word of an index register, cut to the address size. */
export function index(cpu: Cpu, pc: number, register: number): number {
  const low = cpu.i32[register]!;
  return addressSize(cpu, pc) === 0 ? low & 0xffff : low;
}

/** High word of an index register, 0 unless addresses are of 64 bits. */
export function indexHigh(cpu: Cpu, pc: number, register: number): number {
  return addressSize(cpu, pc) === 2 ? cpu.i32[register + 1]! : 0;
}

/** Adds to an index register. */
export function advanceIndex(
  cpu: Cpu,
  pc: number,
  register: number,
  delta: number,
): void {
  const i = cpu.i32;
  const low = i[register]!;
  const sum = (low + delta) | 0;
  switch (addressSize(cpu, pc)) {
    case 0:
      i[register] = (low & -65536) | (sum & 0xffff);
      break;
    case 1:
      i[register] = sum;
      i[register + 1] = 0;
      break;
    default:
      i[register] = sum;
      i[register + 1] = (i[register + 1]! + (delta >> 31) +
        ((sum >>> 0) < (low >>> 0) ? 1 : 0)) | 0;
  }
}

/** Whether the count register is 0. */
export function countIsZero(cpu: Cpu, pc: number): boolean {
  const i = cpu.i32;
  switch (addressSize(cpu, pc)) {
    case 0:
      return (i[RCX]! & 0xffff) === 0;
    case 1:
      return i[RCX] === 0;
    default:
      return (i[RCX]! | i[RCX + 1]!) === 0;
  }
}

/** The count, or `most` if it is larger. */
export function countUpTo(cpu: Cpu, pc: number, most: number): number {
  const i = cpu.i32;
  const low = i[RCX]! >>> 0;
  switch (addressSize(cpu, pc)) {
    case 0:
      return Math.min(low & 0xffff, most);
    case 1:
      return Math.min(low, most);
    default:
      return i[RCX + 1] !== 0 ? most : Math.min(low, most);
  }
}

/** Takes iterations off the count register. */
export function decrementCount(cpu: Cpu, pc: number, by = 1): void {
  advanceIndex(cpu, pc, RCX, -by);
}

/**
 * Lets the instruction run again if the count is not 0: between iterations the loop looks
 * at events as between instructions.
 */
export function repeatAgain(cpu: Cpu, pc: number): void {
  if (!countIsZero(cpu, pc)) restart(cpu, pc);
}

/** Sets RIP back to the instruction. */
export function restart(cpu: Cpu, pc: number): void {
  const i = cpu.i32;
  const length = (i[pc + R_META]! >>> Meta.LengthShift) & Meta.LengthMask;
  const low = i[RIP]!;
  const start = (low - length) | 0;
  i[RIP] = start;
  if ((i[MODE]! & Mode.Long) !== 0 && (start >>> 0) > (low >>> 0)) {
    i[RIP + 1] = (i[RIP + 1]! - 1) | 0;
  }
}
