/**
 * Decimal adjustment. Flags that the SDM leaves undefined are what AMD's Zen processors give: those of the
 * addition or subtraction that the instruction makes, to AX in AAA and AAS, else to AL.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { fault, Vector } from "./fault.ts";
import {
  arithmeticFlags,
  parity,
  resultFlags32,
  setArithmeticFlags,
} from "./flags.ts";
import { Flag } from "./layout.ts";
import type { OpDef } from "./opcode.ts";

function signed8(value: number): number {
  return (value << 24) >> 24;
}

/** OF of x + y = result, where `sign` is the highest bit. */
function overflowOfAdd(
  x: number,
  y: number,
  result: number,
  sign = 0x80,
): number {
  return ((x ^ result) & (y ^ result) & sign) !== 0 ? Flag.OF : 0;
}

/** OF of x - y = result. */
function overflowOfSubtract(
  x: number,
  y: number,
  result: number,
  sign = 0x80,
): number {
  return ((x ^ y) & (x ^ result) & sign) !== 0 ? Flag.OF : 0;
}

function adjust(cpu: Cpu, sign: number): void {
  const flags = arithmeticFlags(cpu);
  const ax = cpu.dv.getUint16(0, true);
  const carry = (ax & 15) > 9 || (flags & Flag.AF) !== 0;
  const by = carry ? 0x106 : 0;
  const sum = ax + sign * by;
  cpu.dv.setUint16(0, sum & 0xff0f, true);
  const overflow = sign > 0 ? overflowOfAdd : overflowOfSubtract;
  setArithmeticFlags(
    cpu,
    parity(sum) | ((sum & 0xffff) === 0 ? Flag.ZF : 0) |
      ((sum >> 8) & Flag.SF) | (carry ? Flag.CF | Flag.AF : 0) |
      overflow(ax, by, sum, 0x8000),
  );
}

function aaa(cpu: Cpu): void {
  adjust(cpu, 1);
}

function aas(cpu: Cpu): void {
  adjust(cpu, -1);
}

function aam(cpu: Cpu, a: number): void {
  const base = cpu.u8[a]!;
  if (base === 0) fault(cpu, Vector.DE);
  const al = cpu.u8[0]!;
  cpu.u8[1] = Math.floor(al / base);
  cpu.u8[0] = al % base;
  setArithmeticFlags(cpu, resultFlags32(signed8(cpu.u8[0]!)));
}

function aad(cpu: Cpu, a: number): void {
  const x = cpu.u8[0]!, y = cpu.u8[1]! * cpu.u8[a]! & 255;
  const value = x + y;
  cpu.dv.setUint16(0, value & 255, true);
  setArithmeticFlags(
    cpu,
    resultFlags32(signed8(value)) | (value >> 8) | ((x ^ y ^ value) & Flag.AF) |
      overflowOfAdd(x, y, value),
  );
}

function daa(cpu: Cpu): void {
  const flags = arithmeticFlags(cpu);
  const old = cpu.u8[0]!;
  let al = old;
  let out = 0;
  if ((old & 15) > 9 || (flags & Flag.AF) !== 0) {
    al += 6;
    out |= Flag.AF;
  }
  if (old > 0x99 || (flags & Flag.CF) !== 0) {
    al += 0x60;
    out |= Flag.CF;
  }
  cpu.u8[0] = al;
  setArithmeticFlags(
    cpu,
    out | resultFlags32(signed8(al)) | overflowOfAdd(old, al - old, al),
  );
}

function das(cpu: Cpu): void {
  const flags = arithmeticFlags(cpu);
  const old = cpu.u8[0]!;
  let al = old;
  let out = 0;
  if ((old & 15) > 9 || (flags & Flag.AF) !== 0) {
    // A borrow out of the low digit carries even if the high digit is not adjusted.
    if (old < 6 || (flags & Flag.CF) !== 0) out |= Flag.CF;
    al -= 6;
    out |= Flag.AF;
  }
  if (old > 0x99 || (flags & Flag.CF) !== 0) {
    al -= 0x60;
    out |= Flag.CF;
  }
  cpu.u8[0] = al;
  setArithmeticFlags(
    cpu,
    out | resultFlags32(signed8(al)) | overflowOfSubtract(old, old - al, al),
  );
}

/** The family's lines of the opcode tables. */
export const bcdOps: readonly OpDef[] = [
  { code: "37", run: aaa, flags: "no64" },
  { code: "3F", run: aas, flags: "no64" },
  { code: "D4", operands: "Ib", run: aam, flags: "no64" },
  { code: "D5", operands: "Ib", run: aad, flags: "no64" },
  { code: "27", run: daa, flags: "no64" },
  { code: "2F", run: das, flags: "no64" },
];
