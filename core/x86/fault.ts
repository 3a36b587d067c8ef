import type { Cpu } from "./cpu.ts";
import { FAULT_ERROR, FAULT_HAS_ERROR, FAULT_VECTOR } from "./layout.ts";

/**
 * Thrown to abandon an instruction; the fault itself is in linear memory. One
 * frozen object, because an Error with its stack trace costs microseconds.
 */
export const FAULT: { readonly name: string } = Object.freeze({
  name: "x86 fault",
});

/** Exception vectors (SDM volume 3A, 6.3.1). */
export const Vector = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XM: 19,
} as const;

/** Abandons the instruction with an exception that has no error code. */
export function fault(cpu: Cpu, vector: number): never {
  cpu.i32[FAULT_VECTOR] = vector;
  cpu.i32[FAULT_ERROR] = 0;
  cpu.i32[FAULT_HAS_ERROR] = 0;
  throw FAULT;
}

/** Abandons the instruction with an exception that has an error code. */
export function faultCode(cpu: Cpu, vector: number, error: number): never {
  cpu.i32[FAULT_VECTOR] = vector;
  cpu.i32[FAULT_ERROR] = error;
  cpu.i32[FAULT_HAS_ERROR] = 1;
  throw FAULT;
}

/** #GP(0). */
export function gp0(cpu: Cpu): never {
  faultCode(cpu, Vector.GP, 0);
}

/** #UD. */
export function undefinedOpcode(cpu: Cpu): never {
  fault(cpu, Vector.UD);
}
