/**
 * AVX and AVX2 as far as they widen what SSE has: arithmetic, moves, conversions, tests.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { gp0 } from "./fault.ts";
import { setArithmeticFlags } from "./flags.ts";
import { Flag, MODE, Mode, R_IMM, VEC_B, VEX_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { aesOps } from "./ops_aes.ts";
import { simdApproximateOps } from "./ops_simd_approximate.ts";
import { comparisons, simdCompareOps } from "./ops_simd_compare.ts";
import { simdConvertOps } from "./ops_simd_convert.ts";
import { simdFloatOps } from "./ops_simd_float.ts";
import { simdIntOps } from "./ops_simd_int.ts";
import {
  duplicate,
  move16,
  moveMask,
  moveMaskDoubles,
  moveMaskSingles,
  simdMoveOps,
} from "./ops_simd_move.ts";
import { dotProduct, simdRoundOps } from "./ops_simd_round.ts";
import { simdShiftOps } from "./ops_simd_shift.ts";
import { simdShuffleOps } from "./ops_simd_shuffle.ts";
import { simdStringOps } from "./ops_simd_string.ts";
import { copy } from "./simd.ts";
import { hold, release } from "./simd_float.ts";
import { F32 } from "./soft_float.ts";
import {
  clearUpper,
  narrowForm,
  put,
  sourceOf,
  twoWide,
  upperOf,
  vexCode,
  vexForms,
  wrap,
} from "./vex.ts";

function isRegister(a: number): boolean {
  return a >= VEC_B && a < VEC_B + 256;
}

/** Moves of a whole register, to memory too. */
function move(cpu: Cpu, a: number, b: number): void {
  move16(cpu, a, b);
  if (isRegister(a)) clearUpper(cpu, a);
}
function moveWide(cpu: Cpu, a: number, b: number): void {
  move16(cpu, a, b);
  move16(cpu, upperOf(a), upperOf(b));
}

/** Of 32 bytes, aligned: registers are by their nature. */
function moveAligned(cpu: Cpu, a: number, b: number): void {
  if (
    (!isRegister(a) && (a & 31) !== 0) || (!isRegister(b) && (b & 31) !== 0)
  ) {
    gp0(cpu);
  }
  moveWide(cpu, a, b);
}

/** The lines of moves both ways. */
function moves(prefix: string, load: string, store: string): OpDef[] {
  const code = (l: string, opcode: string): string =>
    `VEX.${prefix}.${l} 0F ${opcode}`;
  return [
    { code: code("L0", load), operands: "=Vx Wdq", run: move },
    { code: code("L1", load), operands: "=Vx Wqq", run: moveWide },
    { code: code("L0", store), operands: "=Wdq Vx", run: move },
    { code: code("L1", store), operands: "=Wqq Vx", run: moveWide },
  ];
}
function alignedMoves(prefix: string, load: string, store: string): OpDef[] {
  const code = (l: string, opcode: string): string =>
    `VEX.${prefix}.${l} 0F ${opcode}`;
  return [
    { code: code("L0", load), operands: "=Vx Wx", run: move },
    { code: code("L1", load), operands: "=Vx Wxx", run: moveAligned },
    { code: code("L0", store), operands: "=Wx Vx", run: move },
    { code: code("L1", store), operands: "=Wxx Vx", run: moveAligned },
  ];
}
/** Non-temporal stores. */
function streams(code: (l: string) => string): OpDef[] {
  return [
    { code: code("L0"), operands: "=Mx Vx", run: move },
    { code: code("L1"), operands: "=Mxx Vx", run: moveAligned },
  ];
}

/** Bits of both halves of a register. */
function wideMask(run: Handler, lanes: number): Handler {
  return (cpu, a, b, pc) => {
    run(cpu, VEX_B, b, pc);
    run(cpu, VEX_B + 4, b + 256, pc);
    const low = cpu.dv.getInt32(VEX_B, true);
    cpu.i32[a >> 2] = low | (cpu.dv.getInt32(VEX_B + 4, true) << lanes);
    cpu.i32[(a >> 2) + 1] = 0;
  };
}

/** Conversions from `step` to 16 bytes, of two times that much. */
function widening(run: Handler, step: number): Handler {
  return (cpu, a, b, pc) => {
    hold();
    run(cpu, VEX_B, b, pc);
    run(cpu, VEX_B + 16, b + step, pc);
    release(cpu);
    put(cpu, a, true);
  };
}

/** The lines of a conversion that reads half, or less, of what it writes. */
function wideningLines(line: OpDef): OpDef[] {
  const [step, memory] = {
    "=Vx Wq": [8, "dq"],
    "=Vx Wd": [4, "q"],
    "=Vx Ww": [2, "d"],
  }[line.operands!] as [number, string];
  return [
    ...narrowForm(line),
    {
      code: vexCode(line.code, ".L1"),
      operands: `=Vx W${memory}`,
      run: widening(line.run as Handler, step),
    },
  ];
}

/** Conversions from 256 to 128 bits. */
function narrowing(run: Handler): Handler {
  return (cpu, a, b, pc) => {
    hold();
    run(cpu, VEX_B, b, pc);
    run(cpu, VEX_B + 16, upperOf(b), pc);
    release(cpu);
    copy(cpu, VEX_B + 8, VEX_B + 16, 8);
    put(cpu, a, false);
  };
}

/** VDPPS of 256 bits: two dot products whose steps go together. */
function dotProducts(cpu: Cpu, a: number, b: number, pc: number): void {
  const x = sourceOf(cpu, pc);
  dotProduct(cpu, F32, cpu.i32[pc + R_IMM]!, [
    [VEX_B, x, b],
    [VEX_B + 16, x + 256, upperOf(b)],
  ]);
  put(cpu, a, true);
}

/** PTEST, VTESTPS and VTESTPD: bits that count in even and odd words. */
function test(even: number, odd: number, wide: boolean): Handler {
  return (cpu, a, b) => {
    const dv = cpu.dv;
    let and = 0, andNot = 0;
    for (let half = 0; half < (wide ? 2 : 1); half++) {
      const x = half === 0 ? a : a + 256, y = half === 0 ? b : upperOf(b);
      for (let at = 0; at < 16; at += 4) {
        const bits = (at & 4) === 0 ? even : odd;
        const u = dv.getInt32(x + at, true), v = dv.getInt32(y + at, true);
        and |= u & v & bits;
        andNot |= ~u & v & bits;
      }
    }
    setArithmeticFlags(
      cpu,
      (and === 0 ? Flag.ZF : 0) | (andNot === 0 ? Flag.CF : 0),
    );
  };
}

function tests(code: string, even: number, odd: number): OpDef[] {
  return [
    {
      code: `VEX.66.L0 0F38 ${code}`,
      operands: "Vx Wdq",
      run: test(even, odd, false),
    },
    {
      code: `VEX.66.L1 0F38 ${code}`,
      operands: "Vx Wqq",
      run: test(even, odd, true),
    },
  ];
}

/** VZEROUPPER and VZEROALL: of the registers that the mode has. */
function zero(from: number): Handler {
  return (cpu) => {
    const registers = (cpu.i32[MODE]! & Mode.Long) !== 0 ? 16 : 8;
    for (let n = 0; n < registers; n++) {
      const at = VEC_B + 16 * n;
      if (from === 0) cpu.u8.fill(0, at, at + 16);
      clearUpper(cpu, at);
    }
  };
}

function clearingXmm0(run: Handler): Handler {
  return (cpu, a, b, pc) => {
    run(cpu, a, b, pc);
    clearUpper(cpu, VEC_B);
  };
}

/** The handler of a legacy line. */
function handlerOf(lines: readonly OpDef[], code: string): Handler {
  return lines.find((line) => line.code === code)!.run as Handler;
}

/** Lines of moves that are no whole registers. */
function partialMoves(): OpDef[] {
  return simdMoveOps.filter(({ code, run }) =>
    run !== move16 && !/0F 77/.test(code) && !/^F[23] 0F 1[26]/.test(code)
  ).flatMap((line) =>
    narrowForm(line, /^F[23] 0F 1[01]/.test(line.code) ? "" : ".L0")
  );
}

/** The family's lines of the opcode tables. */
export function avxOps(): OpDef[] {
  const convert = (code: string): Handler => handlerOf(simdConvertOps, code);
  return [
    ...[
      ...simdIntOps,
      ...simdShiftOps,
      ...simdFloatOps,
      ...simdApproximateOps,
      ...simdCompareOps.filter(({ code }) => !code.endsWith("C2")),
      ...comparisons(32),
      ...simdConvertOps,
      ...simdRoundOps,
      ...aesOps(),
      ...simdMoveOps.filter(({ code }) => /^F3 0F 1[26]/.test(code)),
      ...simdShuffleOps.filter(({ code }) => !code.includes("3A 21")),
    ].flatMap(vexForms),
    ...simdShuffleOps.filter(({ code }) => code.includes("3A 21"))
      .flatMap((line) => narrowForm(line)),
    ...partialMoves(),
    ...moves("NP", "10", "11"),
    ...moves("66", "10", "11"),
    ...moves("F3", "6F", "7F"),
    ...alignedMoves("NP", "28", "29"),
    ...alignedMoves("66", "28", "29"),
    ...alignedMoves("66", "6F", "7F"),
    ...streams((l) => `VEX.NP.${l} 0F 2B`),
    ...streams((l) => `VEX.66.${l} 0F 2B`),
    ...streams((l) => `VEX.66.${l} 0F E7`),
    { code: "VEX.66.L0 0F38 2A", operands: "=Vx Mx", run: move },
    { code: "VEX.66.L1 0F38 2A", operands: "=Vx Mxx", run: moveAligned },
    { code: "VEX.F2.L0 0F F0", operands: "=Vx Mdq", run: move },
    { code: "VEX.F2.L1 0F F0", operands: "=Vx Mqq", run: moveWide },
    ...simdMoveOps.filter(({ code }) => code === "F2 0F 12")
      .flatMap((line) => narrowForm(line)),
    {
      code: "VEX.F2.L1 0F 12",
      operands: "=Vx Wqq",
      run: twoWide(duplicate(0, 4, 0, 4)),
    },
    {
      code: "VEX.66.L1 0F D7",
      operands: "=Gd Ux",
      run: wideMask(moveMask(16), 16),
    },
    {
      code: "VEX.NP.L1 0F 50",
      operands: "=Gd Ux",
      run: wideMask(moveMaskSingles, 4),
    },
    {
      code: "VEX.66.L1 0F 50",
      operands: "=Gd Ux",
      run: wideMask(moveMaskDoubles, 2),
    },
    { code: "VEX.NP.L0 0F 77", run: zero(16), flags: "avx" },
    { code: "VEX.NP.L1 0F 77", run: zero(0), flags: "avx" },

    ...simdConvertOps.filter(({ operands }) => operands === "=Vx Wq")
      .flatMap(wideningLines),
    ...simdShuffleOps.filter(({ code }) => / 38 [23][0-5]/.test(code))
      .flatMap(wideningLines),
    {
      code: "VEX.66.L1 0F 5A",
      operands: "=Vx Wqq",
      run: narrowing(convert("66 0F 5A")),
    },
    {
      code: "VEX.66.L1 0F E6",
      operands: "=Vx Wqq",
      run: narrowing(convert("66 0F E6")),
    },
    {
      code: "VEX.F2.L1 0F E6",
      operands: "=Vx Wqq",
      run: narrowing(convert("F2 0F E6")),
    },
    { code: "VEX.66.L1 0F3A 40", operands: "=Vx Wqq Ib Hx", run: dotProducts },
    ...tests("17", -1, -1),
    ...tests("0E W0", 1 << 31, 1 << 31),
    ...tests("0F W0", 0, 1 << 31),
    ...simdStringOps.map(({ code, run }): OpDef => ({
      code: vexCode(code, ".L0"),
      operands: "Vx Wdq Ib",
      // Those that write XMM0 clear the rest of its register.
      run: /3A 6[02]/.test(code) ? wrap(run, clearingXmm0) : run,
    })),
  ];
}
