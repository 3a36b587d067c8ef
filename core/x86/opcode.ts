import type { Cpu } from "./cpu.ts";

/**
 * Executes one instruction.
 *
 * @param a Byte address in linear memory of the first operand, wherever it is: a register, guest
 *   RAM, a scratch copy.
 * @param b Byte address of the second operand: as `a`, or of an immediate (sign-extended to 64 bits).
 * @param pc Word index of the decoded instruction, for immediates and prefixes.
 */
export type Handler = (cpu: Cpu, a: number, b: number, pc: number) => void;

/** What carries an instruction out: a handler, or the number of one built into the loop. */
export type Action = Handler | number;

/**
 * One line of the opcode tables.
 *
 * `code`: bytes in hexadecimal, as in the SDM's opcode column, with
 * - a mandatory prefix in front: `66`, `F2`, `F3`, or `NP` (none of the three);
 * - `VEX.L0` or `VEX.66.L0` (and so on; without L0 or L1 both) in front for VEX encodings, followed by `0F38` or `0F3A`, then the
 *   opcode, then optionally `W0` or `W1`;
 * - `+r` after an opcode whose low three bits are a register (operand Z);
 * - `/0` to `/7` for the reg field of ModRM, or a full ModRM byte for fixed forms (`0F 01 C1`),
 * - `m` or `r` last where only a memory or only a register form is meant.
 *
 * `operands`: up to three, separated by blanks; `+` in front of one means it is read and
 * written, `=` it is only written, nothing it is only read (matters for memory):
 * - `Eb Ew Ed Eq Ev Ey`: ModRM register or memory, of 8, 16, 32, 64 bits, operand size, 32 or 64 bits;
 * - `Mb Mw Md Mq Mdq`: memory only, else #UD; `M`: memory only and not translated, the
 *   handler works from {@linkcode linearOf};
 * - `Ra`: ModRM r/m as an untranslated operand or register: memory is left to the handler (a = 0), a
 *   register gives its address;
 * - `Fv`: the register that ModRM.rm names, whatever ModRM.mod is;
 * - `Gb Gw Gd Gq Gv Gy`: ModRM reg; `Zb Zv Zq`: register in the opcode; `By`: VEX.vvvv, whose address
 *   goes into the record's R_IMM;
 * - `W` and `V`: XMM register or memory, and XMM register, that ModRM r/m and reg name; `U`: r/m, but a
 *   register only. `Q`, `P` and `N` are the same for MMX registers. `b w d q`: memory of 8 to 64 bits; `x`: of
 *   128 bits, aligned; `u`: of 128 bits, not necessarily aligned (also `Mx` and `Mu`); in VEX forms `dq` and
 *   `qq`: of 128 and 256 bits, `xx`: of 256, aligned. `Hx` (after an immediate): VEX.vvvv, the address goes into R_IMM + 1;
 * - `Ib Iw Iz Iv`: immediate (Iz: 16 or 32 bits sign-extended, Iv: up to 64), `Ibs`: 8 bits
 *   sign-extended, `Iwb`: 16 then 8 bits (R_IMM, R_IMM + 1); `Ap`: far pointer, offset then selector (R_IMM, R_IMM + 1);
 * - `Jb Jz`: branch displacement (R_IMM: target relative to the start of the block);
 * - `Sw`, `Cd`, `Dd`: segment, control, debug register: its number is in R_IMM + 1, no address;
 * - `X`: opcode and ModRM of an x87 instruction in the form of {@linkcode FOP}, in R_IMM;
 * - `AL rAX eAX CL DX 1`: fixed; `Ob Ov`: memory at a direct offset.
 * The first operand is `a`, the second `b`; a third is an immediate in R_IMM (zero-extended Ib; Ibs and Iz sign-extended).
 */
export interface OpDef {
  readonly code: string;
  readonly operands?: string;
  /**
   * For all operand sizes, or one for each. With `8` missing and byte operands the plain
   * form is meant.
   */
  readonly run: Action | {
    readonly 16: Action;
    readonly 32: Action;
    readonly 64?: Action;
  };
  /**
   * - `lock`: LOCK is allowed with a memory destination (else #UD);
   * - `ends`: ends the block: RIP is set to the next instruction before the handler runs, the handler
   *   may change it, the loop goes on at RIP. Needed for whatever changes control flow, mode, translation,
   *   IF, or may raise events (ports, MSRs);
   * - `no64`: #UD in 64-bit mode; `only64`: #UD outside; `protected`: #UD in real and V86 mode;
   * - `mmx`, `sse`, `avx`: #UD and #NM as for instructions with MMX, XMM or VEX-encoded ones, which need no saying;
   * - `vsib`: the index register of the memory operand is an XMM or YMM register;
   * - `d64`: operand size 64 by default in 64-bit mode (66 gives 16); `f64`: always 64 there.
   */
  readonly flags?: string;
}
