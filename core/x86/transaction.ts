/**
 * Control transfers change segment registers, RSP and flags before their last
 * memory access. They save the state first and go back to it when that access faults.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { Vector } from "./fault.ts";
import {
  CPL,
  FAULT_ERROR,
  FAULT_VECTOR,
  SAVED,
  SAVED_WORDS,
  SEG,
  Seg,
  SEG_SEL,
  SEG_WORDS,
} from "./layout.ts";
import { updateMode } from "./mode.ts";

const SS_SEL = SEG + Seg.SS * SEG_WORDS + SEG_SEL;

/** Saves registers, flags, segments and control registers. Not nestable. */
export function saveState(cpu: Cpu): void {
  cpu.i32.copyWithin(SAVED, 0, SAVED_WORDS);
}

/**
 * Goes back to what {@linkcode saveState} saved; CR2 keeps what a fault put there. The error code of
 * #SS names the stack of an inner level that had no room (SDM volume 3A, 6.15, #SS).
 */
export function restoreState(cpu: Cpu, cr2: number): void {
  const i = cpu.i32;
  if (i[FAULT_VECTOR] === Vector.SS && i[CPL] !== i[SAVED + CPL]) {
    i[FAULT_ERROR] = i[FAULT_ERROR]! | (i[SS_SEL]! & 0xfffc);
  }
  const low = i[cr2]!, high = i[cr2 + 1]!;
  i.copyWithin(0, SAVED, SAVED + SAVED_WORDS);
  i[cr2] = low;
  i[cr2 + 1] = high;
  updateMode(cpu);
}
