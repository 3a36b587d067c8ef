/**
 * XADD and compare-and-exchange.
 *
 * @module
 */
import { commit, writeAddress } from "./access.ts";
import { linearOf, offsetOf, segmentOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { gp0 } from "./fault.ts";
import {
  arithmeticFlags,
  flagsOfCompare32,
  flagsOfCompare64,
  setArithmeticFlags,
} from "./flags.ts";
import {
  Cc,
  CC_A,
  CC_B,
  CC_OP,
  CC_R,
  COMMIT_SIZE,
  EA,
  Flag,
  SEG,
  Seg,
  SEG_BASE,
  SEG_WORDS,
} from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64 } from "./operand.ts";

const RAX = 0, RCX = 2, RDX = 4, RBX = 6;

function signed(cpu: Cpu, a: number, size: number): number {
  return size === 1
    ? cpu.dv.getInt8(a)
    : size === 2
    ? cpu.dv.getInt16(a, true)
    : cpu.dv.getInt32(a, true);
}

function write(cpu: Cpu, a: number, value: number, size: number): void {
  if (size === 1) cpu.u8[a] = value;
  else if (size === 2) cpu.dv.setInt16(a, value, true);
  else put32(cpu, a, value);
}

function xadd(size: number): Handler {
  return (cpu, a, b) => {
    const i = cpu.i32;
    const unused = 32 - 8 * size;
    const x = signed(cpu, a, size), y = signed(cpu, b, size);
    const sum = ((x + y) << unused) >> unused;
    // The sum wins where both operands are one register.
    write(cpu, b, x, size);
    write(cpu, a, sum, size);
    i[CC_OP] = Cc.Add32;
    i[CC_A] = x;
    i[CC_B] = y;
    i[CC_R] = sum;
  };
}

function xadd64(cpu: Cpu, a: number, b: number): void {
  const i = cpu.i32;
  const x = cpu.dv.getInt32(a, true), xh = cpu.dv.getInt32(a + 4, true);
  const y = cpu.dv.getInt32(b, true), yh = cpu.dv.getInt32(b + 4, true);
  const sum = (x + y) | 0;
  const sumHigh = (xh + yh + ((sum >>> 0) < (x >>> 0) ? 1 : 0)) | 0;
  put64(cpu, b, x, xh);
  put64(cpu, a, sum, sumHigh);
  i[CC_OP] = Cc.Add64;
  i[CC_A] = x;
  i[CC_A + 1] = xh;
  i[CC_B] = y;
  i[CC_B + 1] = yh;
  i[CC_R] = sum;
  i[CC_R + 1] = sumHigh;
}

function cmpxchg(size: number): Handler {
  return (cpu, a, b) => {
    const accumulator = signed(cpu, RAX, size);
    const value = signed(cpu, a, size);
    flagsOfCompare32(cpu, accumulator, value, size);
    if (accumulator === value) write(cpu, a, signed(cpu, b, size), size);
    else write(cpu, RAX, value, size);
  };
}

function cmpxchg64(cpu: Cpu, a: number, b: number): void {
  const i = cpu.i32;
  const low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
  flagsOfCompare64(cpu, i[RAX]!, i[RAX + 1]!, low, high);
  if (i[RAX] === low && i[RAX + 1] === high) {
    put64(cpu, a, cpu.dv.getInt32(b, true), cpu.dv.getInt32(b + 4, true));
  } else put64(cpu, 0, low, high);
}

function setZf(cpu: Cpu, zero: boolean): void {
  const flags = arithmeticFlags(cpu);
  setArithmeticFlags(cpu, zero ? flags | Flag.ZF : flags & ~Flag.ZF);
}

function cmpxchg8b(cpu: Cpu, a: number): void {
  const i = cpu.i32;
  const low = cpu.dv.getInt32(a, true), high = cpu.dv.getInt32(a + 4, true);
  const equal = i[RAX] === low && i[RDX] === high;
  if (equal) put64(cpu, a, i[RBX]!, i[RCX]!);
  else {
    put32(cpu, 4 * RAX, low);
    put32(cpu, 4 * RDX, high);
  }
  setZf(cpu, equal);
}

function cmpxchg16b(cpu: Cpu, a: number): void {
  const i = cpu.i32;
  const w0 = cpu.dv.getInt32(a, true), w1 = cpu.dv.getInt32(a + 4, true);
  const w2 = cpu.dv.getInt32(a + 8, true), w3 = cpu.dv.getInt32(a + 12, true);
  const equal = i[RAX] === w0 && i[RAX + 1] === w1 && i[RDX] === w2 &&
    i[RDX + 1] === w3;
  if (equal) {
    put64(cpu, a, i[RBX]!, i[RBX + 1]!);
    put64(cpu, a + 8, i[RCX]!, i[RCX + 1]!);
  } else {
    put64(cpu, 4 * RAX, w0, w1);
    put64(cpu, 4 * RDX, w2, w3);
  }
  setZf(cpu, equal);
}

/** The operand of CMPXCHG16B must lie on 16 bytes, or #GP(0). */
function cmpxchg16bAligned(
  cpu: Cpu,
  _a: number,
  _b: number,
  pc: number,
): void {
  const i = cpu.i32;
  const seg = segmentOf(cpu, pc);
  const base = seg >= Seg.FS ? i[SEG + seg * SEG_WORDS + SEG_BASE]! : 0;
  // This comes before all other faults of the operand.
  if (((offsetOf(cpu, pc) + base) & 15) !== 0) gp0(cpu);
  linearOf(cpu, pc, 16, true);
  cmpxchg16b(cpu, writeAddress(cpu, i[EA]!, i[EA + 1]!, 16, true));
  if (i[COMMIT_SIZE] !== 0) commit(cpu);
}

/** The family's lines of the opcode tables. */
export const exchangeOps: readonly OpDef[] = [
  { code: "0F C0", operands: "+Eb +Gb", run: xadd(1), flags: "lock" },
  {
    code: "0F C1",
    operands: "+Ev +Gv",
    run: { 16: xadd(2), 32: xadd(4), 64: xadd64 },
    flags: "lock",
  },
  { code: "0F B0", operands: "+Eb Gb", run: cmpxchg(1), flags: "lock" },
  {
    code: "0F B1",
    operands: "+Ev Gv",
    run: { 16: cmpxchg(2), 32: cmpxchg(4), 64: cmpxchg64 },
    flags: "lock",
  },
  {
    code: "0F C7 /1 m W0",
    operands: "+Mq",
    run: cmpxchg8b,
    flags: "lock",
  },
  {
    code: "0F C7 /1 m W1",
    operands: "M",
    run: cmpxchg16bAligned,
    flags: "lock only64",
  },
];
