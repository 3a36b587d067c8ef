/**
 * What the families of MMX and SSE instructions share (SDM volume 1, chapters 9 to 12). Their handlers get
 * host addresses as all others do: registers are 16 bytes apart and aligned, memory is
 * aligned only where the form asks for it, so everything goes through the DataView.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { fault, undefinedOpcode, Vector } from "./fault.ts";
import { CR0, CR4, MODE, Mode, R_IMM, TEMP_B, X87_B, XCR0 } from "./layout.ts";
import { YMM_STATE } from "./mode.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { Cr } from "./paging.ts";
import { prepareMmx } from "./x87.ts";

/**
 * In place of an instruction that control registers forbid: #UD or #NM (SDM volume 3A, table 2-2).
 * R_IMM says which {@linkcode Mode} bit it needs.
 */
export function unavailable(
  cpu: Cpu,
  _a: number,
  _b: number,
  pc: number,
): void {
  const i = cpu.i32;
  if (i[pc + R_IMM] === Mode.Avx) {
    const mode = i[MODE]! & (Mode.Protected | Mode.V86);
    if (
      mode !== Mode.Protected || (i[CR4]! & Cr.OSXSAVE) === 0 ||
      (i[XCR0]! & YMM_STATE) !== YMM_STATE
    ) undefinedOpcode(cpu);
    fault(cpu, Vector.NM);
  }
  if ((i[CR0]! & Cr.EM) !== 0) undefinedOpcode(cpu);
  if (i[pc + R_IMM] === Mode.Sse && (i[CR4]! & Cr.OSFXSR) === 0) {
    undefinedOpcode(cpu);
  }
  fault(cpu, Vector.NM);
}

/** Whether an operand is an MMX register. */
function isMmx(a: number): boolean {
  return a >= X87_B && a < X87_B + 128;
}

/** A handler of an instruction with MMX registers: of 8-byte operands, the first possibly a register. */
export function mmx(run: Handler): Handler {
  return (cpu, a, b, pc) => {
    prepareMmx(cpu);
    run(cpu, a, b, pc);
    // As x87 registers they hold a NaN (SDM volume 1, 9.5.1).
    if (isMmx(a)) cpu.dv.setUint16(a + 8, 0xffff, true);
  };
}

/** An operation on operands of 8 or 16 bytes. */
export type Lanes = (
  cpu: Cpu,
  a: number,
  b: number,
  bytes: number,
  imm: number,
) => void;

/** Handlers of an operation for both kinds of registers; the immediate is the third operand. */
export function forBoth(lanes: Lanes): { mm: Handler; xmm: Handler } {
  return {
    mm: mmx((cpu, a, b, pc) => lanes(cpu, a, b, 8, cpu.i32[pc + R_IMM]!)),
    xmm: (cpu, a, b, pc) => lanes(cpu, a, b, 16, cpu.i32[pc + R_IMM]!),
  };
}

/**
 * The lines of an instruction that has the same opcode for MMX and XMM registers.
 *
 * @param code Without its prefix.
 * @param more Operands after the first two.
 */
export function both(
  code: string,
  { mm, xmm }: { mm: Handler; xmm: Handler },
  more = "",
): OpDef[] {
  return [
    { code: `NP ${code}`, operands: `+Pq Qq ${more}`, run: mm },
    { code: `66 ${code}`, operands: `+Vx Wx ${more}`, run: xmm },
  ];
}

/** The line of an instruction that exists for XMM registers only, with prefix 66. */
export function xmm(code: string, run: Handler, operands = "+Vx Wx"): OpDef {
  return { code: `66 ${code}`, operands, run };
}

/** An operation on the corresponding 32 bits of two operands. */
export type Word = (x: number, y: number) => number;

/** Handlers of an operation that each 32-bit word of the result has to itself. */
export function words(op: Word): { mm: Handler; xmm: Handler } {
  return {
    mm: mmx((cpu, a, b) => {
      const dv = cpu.dv;
      for (let at = 0; at < 8; at += 4) {
        const r = op(dv.getInt32(a + at, true), dv.getInt32(b + at, true));
        dv.setInt32(a + at, r, true);
      }
    }),
    xmm: (cpu, a, b) => {
      const dv = cpu.dv;
      for (let at = 0; at < 16; at += 4) {
        const r = op(dv.getInt32(a + at, true), dv.getInt32(b + at, true));
        dv.setInt32(a + at, r, true);
      }
    },
  };
}

/** Copies `bytes` bytes, a multiple of 4; the places may not overlap. */
export function copy(
  cpu: Cpu,
  to: number,
  from: number,
  bytes: number,
): void {
  const dv = cpu.dv;
  for (let at = 0; at < bytes; at += 4) {
    dv.setInt32(to + at, dv.getInt32(from + at, true), true);
  }
}

/**
 * An operation whose result has no bytes in common with its operands until it is done: it writes to
 * `to`, reads from `a` and `b`.
 */
export type Apart = (
  cpu: Cpu,
  to: number,
  a: number,
  b: number,
  bytes: number,
  imm: number,
) => void;

/** {@linkcode Lanes} that write their result only at the end. */
export function apart(op: Apart): Lanes {
  return (cpu, a, b, bytes, imm) => {
    op(cpu, TEMP_B, a, b, bytes, imm);
    copy(cpu, a, TEMP_B, bytes);
  };
}
