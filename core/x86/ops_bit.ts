/**
 * Bit tests and scans. Flags that the SDM leaves undefined are what AMD's Zen processors
 * give: BT and its kin leave all but CF alone, BSF and BSR clear them but for PF, which is the result's.
 *
 * @module
 */
import { commit, readAddress, writeAddress } from "./access.ts";
import { linear, offsetOf, segmentOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { arithmeticFlags, parity, setArithmeticFlags } from "./flags.ts";
import {
  COMMIT_SIZE,
  EA,
  Flag,
  GPR_END_B,
  HIGH,
  Mem,
  R_MEM,
} from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64, putZero } from "./operand.ts";

/** What to do with the tested bit. */
const Change = { None: 0, Set: 1, Reset: 2, Complement: 3 } as const;

function setCarry(cpu: Cpu, bit: number): void {
  setArithmeticFlags(cpu, (arithmeticFlags(cpu) & ~Flag.CF) | bit);
}

/** Tests bit `n` (below 8 * size) of the operand at `a`, changes it and sets CF. */
function testAt(
  cpu: Cpu,
  a: number,
  n: number,
  size: number,
  change: number,
): void {
  const at = a + (n >>> 3);
  const mask = 1 << (n & 7);
  const old = cpu.u8[at]!;
  const bit = (old & mask) !== 0 ? 1 : 0;
  if (change === Change.Set) cpu.u8[at] = old | mask;
  else if (change === Change.Reset) cpu.u8[at] = old & ~mask;
  else if (change === Change.Complement) cpu.u8[at] = old ^ mask;
  if (change !== Change.None && size === 4 && a < GPR_END_B) {
    put32(cpu, a, cpu.dv.getInt32(a, true));
  }
  setCarry(cpu, bit);
}

function testRegister(change: number, size: number): Handler {
  return (cpu, a, b) =>
    testAt(cpu, a, cpu.u8[b]! & (8 * size - 1), size, change);
}

/** With a register offset a memory operand is a bit string that reaches beyond the operand. */
function testString(change: number, size: number): Handler {
  return (cpu, _a, b, pc) => {
    const i = cpu.i32;
    const low = size === 2
      ? cpu.dv.getInt16(b, true)
      : cpu.dv.getInt32(b, true);
    const mask = 8 * size - 1;
    // The offset in units of the operand, times its size, is added to the address.
    let high = size === 8 ? cpu.dv.getInt32(b + 4, true) : low >> 31;
    const shift = size === 2 ? 4 : size === 4 ? 5 : 6;
    const unitsLow = (low >>> shift) | (high << (32 - shift));
    const unitsHigh = high >> shift;
    const scale = shift - 3;
    const addLow = unitsLow << scale;
    const addHigh = (unitsHigh << scale) | (unitsLow >>> (32 - scale));
    const base = offsetOf(cpu, pc);
    high = i[HIGH]!;
    let sum = (base + addLow) | 0;
    high = (high + addHigh + ((sum >>> 0) < (base >>> 0) ? 1 : 0)) | 0;
    const bits = (i[pc + R_MEM]! >>> Mem.SizeShift) & 3;
    if (bits === 0) sum &= 0xffff;
    if (bits !== 2) high = 0;
    const write = change !== Change.None;
    linear(cpu, segmentOf(cpu, pc), sum, high, size, write);
    const at = write
      ? writeAddress(cpu, i[EA]!, i[EA + 1]!, size, true)
      : readAddress(cpu, i[EA]!, i[EA + 1]!, size);
    testAt(cpu, at, low & mask, size, change);
    if (i[COMMIT_SIZE] !== 0) commit(cpu);
  };
}

function bySize(
  make: (size: number) => Handler,
): { 16: Handler; 32: Handler; 64: Handler } {
  return { 16: make(2), 32: make(4), 64: make(8) };
}

/** Index of the lowest set bit of a word that is not 0. */
function lowest(word: number): number {
  return 31 - Math.clz32(word & -word);
}

function operandLow(cpu: Cpu, b: number, size: number): number {
  return size === 2 ? cpu.dv.getUint16(b, true) : cpu.dv.getInt32(b, true);
}

function operandHigh(cpu: Cpu, b: number, size: number): number {
  return size === 8 ? cpu.dv.getInt32(b + 4, true) : 0;
}

/** Index of the lowest set bit, or -1. */
function scanForward(low: number, high: number): number {
  return low !== 0 ? lowest(low) : high !== 0 ? 32 + lowest(high) : -1;
}

/** Index of the highest set bit, or -1. */
function scanReverse(low: number, high: number): number {
  return high !== 0 ? 63 - Math.clz32(high) : 31 - Math.clz32(low);
}

/** BSF, BSR: without a set bit the destination stays, as AMD documents. */
function scan(
  find: (low: number, high: number) => number,
  size: number,
): Handler {
  return (cpu, a, b) => {
    const n = find(operandLow(cpu, b, size), operandHigh(cpu, b, size));
    if (n >= 0) putZero(cpu, a, n, size);
    setArithmeticFlags(cpu, n < 0 ? Flag.ZF | Flag.PF : parity(n));
  };
}

/** Flags of TZCNT and LZCNT: CF for a source of 0, ZF for a result of 0; of the others Zen leaves OF alone. */
function countFlags(cpu: Cpu, none: boolean, result: number): void {
  const flags = arithmeticFlags(cpu) & Flag.OF;
  setArithmeticFlags(
    cpu,
    flags | (none ? Flag.CF : 0) | (result === 0 ? Flag.ZF : 0),
  );
}

function tzcnt(size: number): Handler {
  return (cpu, a, b) => {
    const n = scanForward(operandLow(cpu, b, size), operandHigh(cpu, b, size));
    const result = n < 0 ? 8 * size : n;
    putZero(cpu, a, result, size);
    countFlags(cpu, n < 0, result);
  };
}

function lzcnt(size: number): Handler {
  return (cpu, a, b) => {
    const n = scanReverse(operandLow(cpu, b, size), operandHigh(cpu, b, size));
    const result = 8 * size - 1 - n;
    putZero(cpu, a, result, size);
    countFlags(cpu, n < 0, result);
  };
}

/** Set bits of a word. */
export function ones(word: number): number {
  let x = word - ((word >>> 1) & 0x5555_5555);
  x = (x & 0x3333_3333) + ((x >>> 2) & 0x3333_3333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

function popcnt(size: number): Handler {
  return (cpu, a, b) => {
    const result = ones(operandLow(cpu, b, size)) +
      ones(operandHigh(cpu, b, size));
    putZero(cpu, a, result, size);
    setArithmeticFlags(cpu, result === 0 ? Flag.ZF : 0);
  };
}

/** BSWAP of a 16-bit register gives 0 on AMD and Intel alike. */
function bswap16(cpu: Cpu, a: number): void {
  cpu.dv.setInt16(a, 0, true);
}

function bswap32(cpu: Cpu, a: number): void {
  put32(cpu, a, cpu.dv.getInt32(a, false));
}

function bswap64(cpu: Cpu, a: number): void {
  put64(cpu, a, cpu.dv.getInt32(a + 4, false), cpu.dv.getInt32(a, false));
}

function tests(
  code: string,
  group: number,
  change: number,
): OpDef[] {
  const flags = change === Change.None ? "" : "lock";
  return [
    {
      code: `0F ${code} r`,
      operands: "Ra Gv",
      run: bySize((size) => testRegister(change, size)),
    },
    {
      code: `0F ${code} m`,
      operands: "M Gv",
      run: bySize((size) => testString(change, size)),
      flags,
    },
    {
      code: `0F BA /${group}`,
      operands: change === Change.None ? "Ev Ib" : "+Ev Ib",
      run: bySize((size) => testRegister(change, size)),
      flags,
    },
  ];
}

/** The family's lines of the opcode tables. */
export const bitOps: readonly OpDef[] = [
  ...tests("A3", 4, Change.None),
  ...tests("AB", 5, Change.Set),
  ...tests("B3", 6, Change.Reset),
  ...tests("BB", 7, Change.Complement),
  {
    code: "0F BC",
    operands: "+Gv Ev",
    run: bySize((size) => scan(scanForward, size)),
  },
  {
    code: "0F BD",
    operands: "+Gv Ev",
    run: bySize((size) => scan(scanReverse, size)),
  },
  { code: "F3 0F BC", operands: "=Gv Ev", run: bySize(tzcnt) },
  { code: "F3 0F BD", operands: "=Gv Ev", run: bySize(lzcnt) },
  { code: "F3 0F B8", operands: "=Gv Ev", run: bySize(popcnt) },
  {
    code: "0F C8 +r",
    operands: "+Zv",
    run: { 16: bswap16, 32: bswap32, 64: bswap64 },
  },
];
