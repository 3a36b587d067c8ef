/**
 * Writing operands whose size the instruction does not fix.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { GPR_END_B } from "./layout.ts";

/** Writes 32 bits; the upper half of a register becomes 0. */
export function put32(cpu: Cpu, a: number, value: number): void {
  cpu.dv.setInt32(a, value, true);
  if (a < GPR_END_B) cpu.i32[(a >> 2) + 1] = 0;
}

/** Writes 64 bits. */
export function put64(cpu: Cpu, a: number, low: number, high: number): void {
  cpu.dv.setInt32(a, low, true);
  cpu.dv.setInt32(a + 4, high, true);
}

/** Writes a value zero-extended to 2, 4 or 8 bytes. */
export function putZero(
  cpu: Cpu,
  a: number,
  value: number,
  size: number,
): void {
  if (size === 2) cpu.dv.setInt16(a, value, true);
  else if (size === 4) put32(cpu, a, value);
  else put64(cpu, a, value, 0);
}
