/**
 * Pushes and pops of near code. Nothing is changed in the registers until the memory access
 * has succeeded, so that a fault restarts the instruction.
 *
 * @module
 */
import { load16, load32, load64, store16, store32, store64 } from "./access.ts";
import { linear } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { EA, GPR, HIGH, MODE, Mode, Seg } from "./layout.ts";

/** Word index of RSP. */
export const RSP: number = GPR + 8;

/** Sets the part of RSP that is the stack pointer in the current mode. */
export function setStackPointer(cpu: Cpu, low: number, high: number): void {
  const i = cpu.i32;
  const mode = i[MODE]!;
  if ((mode & Mode.Long) !== 0) {
    i[RSP] = low;
    i[RSP + 1] = high;
  } else if ((mode & Mode.Stack32) !== 0) {
    i[RSP] = low;
    i[RSP + 1] = 0;
  } else i[RSP] = (i[RSP]! & -65536) | (low & 0xffff);
}

/**
 * The stack offset `delta` bytes from (low, high), wrapped to the stack's size: the low word, and
 * the high word in {@linkcode HIGH}.
 */
export function stackOffset(
  cpu: Cpu,
  low: number,
  high: number,
  delta: number,
): number {
  const i = cpu.i32;
  const mode = i[MODE]!;
  const sum = (low + delta) | 0;
  if ((mode & Mode.Long) !== 0) {
    const carried = delta < 0
      ? (sum >>> 0) > (low >>> 0) ? -1 : 0
      : (sum >>> 0) < (low >>> 0)
      ? 1
      : 0;
    i[HIGH] = (high + carried) | 0;
    return sum;
  }
  i[HIGH] = 0;
  return (mode & Mode.Stack32) !== 0 ? sum : sum & 0xffff;
}

/** Pushes a value of 2, 4 or 8 bytes. */
export function push(
  cpu: Cpu,
  low: number,
  high: number,
  size: number,
): void {
  const i = cpu.i32;
  const at = stackOffset(cpu, i[RSP]!, i[RSP + 1]!, -size);
  const atHigh = i[HIGH]!;
  linear(cpu, Seg.SS, at, atHigh, size, true);
  const ea = i[EA]!, eaHigh = i[EA + 1]!;
  if (size === 8) store64(cpu, ea, eaHigh, low, high);
  else if (size === 4) store32(cpu, ea, eaHigh, low);
  else store16(cpu, ea, eaHigh, low);
  setStackPointer(cpu, at, atHigh);
}

/**
 * Reads 2, 4 or 8 bytes `displacement` bytes above the stack pointer, which stays: the low word
 * (16 bits zero-extended), and the high word in {@linkcode HIGH}.
 */
export function peek(cpu: Cpu, displacement: number, size: number): number {
  const i = cpu.i32;
  const at = stackOffset(cpu, i[RSP]!, i[RSP + 1]!, displacement);
  linear(cpu, Seg.SS, at, i[HIGH]!, size, false);
  const ea = i[EA]!, eaHigh = i[EA + 1]!;
  if (size === 8) return load64(cpu, ea, eaHigh);
  const value = size === 4 ? load32(cpu, ea, eaHigh) : load16(cpu, ea, eaHigh);
  i[HIGH] = 0;
  return value;
}

/** Takes `bytes` off the stack. */
export function release(cpu: Cpu, bytes: number): void {
  const i = cpu.i32;
  const at = stackOffset(cpu, i[RSP]!, i[RSP + 1]!, bytes);
  setStackPointer(cpu, at, i[HIGH]!);
}

/** Pops 2, 4 or 8 bytes: the low word, and the high word in {@linkcode HIGH}. */
export function pop(cpu: Cpu, size: number): number {
  const value = peek(cpu, 0, size);
  const high = cpu.i32[HIGH]!;
  release(cpu, size);
  cpu.i32[HIGH] = high;
  return value;
}
