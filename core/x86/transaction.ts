/**
 * Control transfers change segment registers, RSP and flags before their last
 * memory access. They save the state first and go back to it when that access faults.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { SAVED, SAVED_WORDS } from "./layout.ts";
import { updateMode } from "./mode.ts";

/** Saves registers, flags, segments and control registers. Not nestable. */
export function saveState(cpu: Cpu): void {
  cpu.i32.copyWithin(SAVED, 0, SAVED_WORDS);
}

/** Goes back to what {@linkcode saveState} saved; CR2 keeps what a fault put there. */
export function restoreState(cpu: Cpu, cr2: number): void {
  const i = cpu.i32;
  const low = i[cr2]!, high = i[cr2 + 1]!;
  i.copyWithin(0, SAVED, SAVED + SAVED_WORDS);
  i[cr2] = low;
  i[cr2 + 1] = high;
  updateMode(cpu);
}
