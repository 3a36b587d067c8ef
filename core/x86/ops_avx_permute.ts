/**
 * What AVX and AVX2 have for moving lanes about: broadcasts, permutations, insertion and extraction
 * of halves, blends by a fourth operand, and shifts by a count for each lane.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { MODE, Mode, R_IMM, TEMP_B, VEC_B, VEX_B } from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { lane } from "./ops_simd_shuffle.ts";
import { copy } from "./simd.ts";
import {
  clearUpper,
  put,
  sourceOf,
  three,
  threeWide,
  two,
  twoWide,
  upperOf,
} from "./vex.ts";

/** One lane of b everywhere. */
function broadcast(size: number, wide: boolean): Handler {
  return (cpu, a, b) => {
    for (let at = 0; at < 32; at += Math.min(size, 8)) {
      const from = b + (size === 16 ? at & 8 : 0);
      lane(cpu, VEX_B + at, from, Math.min(size, 8));
    }
    put(cpu, a, wide);
  };
}

function broadcasts(opcode: string, size: number, memory: string): OpDef[] {
  return ["L0", "L1"].map((l) => ({
    code: `VEX.66.${l} 0F38 ${opcode} W0`,
    operands: `=Vx W${memory}`,
    run: broadcast(size, l === "L1"),
  }));
}

/** VPERM2F128: half `select` of the two operands, or 0. */
function half(
  cpu: Cpu,
  to: number,
  select: number,
  x: number,
  b: number,
): void {
  if ((select & 8) !== 0) {
    for (let at = 0; at < 16; at += 4) cpu.dv.setInt32(to + at, 0, true);
    return;
  }
  const from = [x, x + 256, b, upperOf(b)][select & 3]!;
  copy(cpu, to, from, 16);
}
function permuteHalves(cpu: Cpu, a: number, b: number, pc: number): void {
  const imm = cpu.i32[pc + R_IMM]!;
  const x = sourceOf(cpu, pc);
  half(cpu, VEX_B, imm, x, b);
  half(cpu, VEX_B + 16, imm >>> 4, x, b);
  put(cpu, a, true);
}

/** VINSERTF128. */
function insertHalf(cpu: Cpu, a: number, b: number, pc: number): void {
  const upper = (cpu.i32[pc + R_IMM]! & 1) !== 0;
  const x = sourceOf(cpu, pc);
  copy(cpu, VEX_B, upper ? x : b, 16);
  copy(cpu, VEX_B + 16, upper ? b : x + 256, 16);
  put(cpu, a, true);
}

/** VEXTRACTF128, to a register or to memory. */
function extractHalf(cpu: Cpu, a: number, b: number, pc: number): void {
  copy(cpu, a, (cpu.i32[pc + R_IMM]! & 1) !== 0 ? b + 256 : b, 16);
  if (a >= VEC_B && a < VEC_B + 256) clearUpper(cpu, a);
}

/** Address of byte `at` of a register or an operand in memory of 256 bits. */
function within(b: number, at: number): number {
  return at < 16 ? b + at : upperOf(b) + at - 16;
}

/** VPERMD and VPERMPS: VEX.vvvv says which word of b goes to each place. */
function permuteWords(cpu: Cpu, a: number, b: number, pc: number): void {
  const x = sourceOf(cpu, pc);
  for (let at = 0; at < 32; at += 4) {
    const from = cpu.dv.getInt32(within(x, at), true) & 7;
    lane(cpu, VEX_B + at, within(b, 4 * from), 4);
  }
  put(cpu, a, true);
}

/** VPERMQ and VPERMPD: the immediate says it. */
function permuteQuads(cpu: Cpu, a: number, b: number, pc: number): void {
  const imm = cpu.i32[pc + R_IMM]!;
  for (let n = 0; n < 4; n++) {
    lane(cpu, VEX_B + 8 * n, within(b, 8 * ((imm >>> (2 * n)) & 3)), 8);
  }
  put(cpu, a, true);
}

/** VPERMILPS and VPERMILPD by an operand: `a` is replaced by its lanes that b selects. */
function permuteSingles(cpu: Cpu, a: number, b: number): void {
  for (let at = 0; at < 16; at += 4) {
    const from = cpu.dv.getInt32(b + at, true) & 3;
    lane(cpu, TEMP_B + at, a + 4 * from, 4);
  }
  copy(cpu, a, TEMP_B, 16);
}
function permuteDoubles(cpu: Cpu, a: number, b: number): void {
  for (let at = 0; at < 16; at += 8) {
    const from = (cpu.u8[b + at]! >>> 1) & 1;
    lane(cpu, TEMP_B + at, a + 8 * from, 8);
  }
  copy(cpu, a, TEMP_B, 16);
}

/** The same by an immediate. */
function pickSingles(cpu: Cpu, a: number, b: number, pc: number): void {
  const imm = cpu.i32[pc + R_IMM]!;
  for (let n = 0; n < 4; n++) {
    lane(cpu, a + 4 * n, b + 4 * ((imm >>> (2 * n)) & 3), 4);
  }
}
function pickDoubles(cpu: Cpu, a: number, b: number, pc: number): void {
  const imm = cpu.i32[pc + R_IMM]!;
  lane(cpu, a, b + 8 * (imm & 1), 8);
  lane(cpu, a + 8, b + 8 * ((imm >>> 1) & 1), 8);
}

/** VBLENDVPS, VBLENDVPD and VPBLENDVB: the immediate names the mask's register. */
function blendByMask(size: number, wide: boolean): Handler {
  return (cpu, a, b, pc) => {
    const x = sourceOf(cpu, pc);
    const long = (cpu.i32[MODE]! & Mode.Long) !== 0;
    const number = (cpu.i32[pc + R_IMM]! >>> 4) & (long ? 15 : 7);
    const mask = VEC_B + 16 * number;
    for (let at = 0; at < (wide ? 32 : 16); at += size) {
      const top = cpu.u8[within(mask, at + size - 1)]! > 127;
      lane(cpu, VEX_B + at, within(top ? b : x, at), size);
    }
    put(cpu, a, wide);
  };
}

/** VPBLENDD. */
function blendWords(cpu: Cpu, a: number, b: number, pc: number): void {
  const imm = cpu.i32[pc + R_IMM]!;
  for (let n = 0; n < 4; n++) {
    if (((imm >>> n) & 1) !== 0) lane(cpu, a + 4 * n, b + 4 * n, 4);
  }
}

type Shift = (value: number, count: number) => number;

/** Shifts of words by the words of b; counts above 31 are taken for 32. */
function shiftWords(shift: Shift): Handler {
  return (cpu, a, b) => {
    const dv = cpu.dv;
    for (let at = 0; at < 16; at += 4) {
      const count = Math.min(dv.getUint32(b + at, true), 32);
      dv.setInt32(a + at, shift(dv.getInt32(a + at, true), count), true);
    }
  };
}
const left: Shift = (x, count) => count > 31 ? 0 : x << count;
const right: Shift = (x, count) => count > 31 ? 0 : x >>> count;
const arithmetic: Shift = (x, count) => x >> Math.min(count, 31);

function shiftQuads(toLeft: boolean): Handler {
  return (cpu, a, b) => {
    const dv = cpu.dv;
    for (let at = 0; at < 16; at += 8) {
      const large = dv.getInt32(b + at + 4, true) !== 0;
      const count = large ? 64 : Math.min(dv.getUint32(b + at, true), 64);
      const low = dv.getInt32(a + at, true);
      const high = dv.getInt32(a + at + 4, true);
      // What moves out of one word into the other, in two steps because 32 is no step.
      const part = count & 31;
      const near = toLeft ? low : high, far = toLeft ? high : low;
      const carried = toLeft
        ? (near >>> 1) >>> (31 - part)
        : (near << 1) << (31 - part);
      const shift = toLeft ? left : right;
      const first = count > 31 ? 0 : shift(near, part);
      const second = count > 63
        ? 0
        : count > 31
        ? shift(near, part)
        : shift(far, part) | carried;
      dv.setInt32(a + at, toLeft ? first : second, true);
      dv.setInt32(a + at + 4, toLeft ? second : first, true);
    }
  };
}

/** The lines of 128 and 256 bits of an operation on vvvv and b. */
function pair(code: string, run: Handler, more = "", shift = 0): OpDef[] {
  return [
    {
      code: `VEX.66.L0 ${code}`,
      operands: `=Vx Wdq ${more} Hx`,
      run: three(run),
    },
    {
      code: `VEX.66.L1 ${code}`,
      operands: `=Vx Wqq ${more} Hx`,
      run: threeWide(run, { shift, shared: false }),
    },
  ];
}

/** As {@linkcode pair} of b and an immediate. */
function pick(code: string, run: Handler, shift: number): OpDef[] {
  return [
    { code: `VEX.66.L0 ${code}`, operands: "=Vx Wdq Ib", run: two(run) },
    {
      code: `VEX.66.L1 ${code}`,
      operands: "=Vx Wqq Ib",
      run: twoWide(run, { shift, shared: false }),
    },
  ];
}

function maskBlends(opcode: string, size: number): OpDef[] {
  return [
    {
      code: `VEX.66.L0 0F3A ${opcode} W0`,
      operands: "=Vx Wdq Ib Hx",
      run: blendByMask(size, false),
    },
    {
      code: `VEX.66.L1 0F3A ${opcode} W0`,
      operands: "=Vx Wqq Ib Hx",
      run: blendByMask(size, true),
    },
  ];
}

/** A line of 256 bits only. */
function wide(code: string, operands: string, run: Handler): OpDef {
  return { code: `VEX.66.L1 ${code}`, operands, run };
}

/** The family's lines of the opcode tables. */
export function avxPermuteOps(): OpDef[] {
  return [
    ...broadcasts("18", 4, "d"),
    wide("0F38 19 W0", "=Vx Wq", broadcast(8, true)),
    wide("0F38 1A W0", "=Vx Mdq", broadcast(16, true)),
    wide("0F38 5A W0", "=Vx Mdq", broadcast(16, true)),
    ...broadcasts("58", 4, "d"),
    ...broadcasts("59", 8, "q"),
    ...broadcasts("78", 1, "b"),
    ...broadcasts("79", 2, "w"),
    ...["06", "46"].map((opcode) =>
      wide(`0F3A ${opcode} W0`, "=Vx Wqq Ib Hx", permuteHalves)
    ),
    ...["18", "38"].map((opcode) =>
      wide(`0F3A ${opcode} W0`, "=Vx Wdq Ib Hx", insertHalf)
    ),
    ...["19", "39"].map((opcode) =>
      wide(`0F3A ${opcode} W0`, "=Wdq Vx Ib", extractHalf)
    ),
    ...["16", "36"].map((opcode) =>
      wide(`0F38 ${opcode} W0`, "=Vx Wqq Hx", permuteWords)
    ),
    ...["00", "01"].map((opcode) =>
      wide(`0F3A ${opcode}`, "=Vx Wqq Ib", permuteQuads)
    ),
    ...pair("0F38 0C W0", permuteSingles),
    ...pair("0F38 0D W0", permuteDoubles),
    ...pick("0F3A 04 W0", pickSingles, 0),
    ...pick("0F3A 05 W0", pickDoubles, 2),
    ...maskBlends("4A", 4),
    ...maskBlends("4B", 8),
    ...maskBlends("4C", 1),
    ...pair("0F3A 02 W0", blendWords, "Ib", 4),
    ...pair("0F38 45 W0", shiftWords(right)),
    ...pair("0F38 46 W0", shiftWords(arithmetic)),
    ...pair("0F38 47 W0", shiftWords(left)),
    ...pair("0F38 45 W1", shiftQuads(false)),
    ...pair("0F38 47 W1", shiftQuads(true)),
  ];
}
