/**
 * General instructions that belong to no larger family.
 *
 * @module
 */
import { commit, readAddress, writeAddress } from "./access.ts";
import { linear, linearOf, segmentOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { fault, undefinedOpcode, Vector } from "./fault.ts";
import { arithmeticFlags, carry, setArithmeticFlags } from "./flags.ts";
import { Hot } from "./hot.ts";
import {
  COMMIT_SIZE,
  EA,
  EFLAGS,
  Flag,
  GPR,
  HIGH,
  Mem,
  R_IMM,
  R_MEM,
  Seg,
} from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64 } from "./operand.ts";
import {
  peek,
  push,
  release,
  RSP,
  setStackPointer,
  stackOffset,
} from "./stack.ts";

const RDX = GPR + 4;
const RBX = GPR + 6;
const RBP = GPR + 10;

function cbw(cpu: Cpu): void {
  cpu.dv.setInt16(0, cpu.dv.getInt8(0), true);
}
function cwde(cpu: Cpu): void {
  put32(cpu, 0, cpu.dv.getInt16(0, true));
}
function cdqe(cpu: Cpu): void {
  cpu.i32[GPR + 1] = cpu.i32[GPR]! >> 31;
}
function cwd(cpu: Cpu): void {
  cpu.dv.setInt16(4 * RDX, cpu.dv.getInt16(0, true) >> 15, true);
}
function cdq(cpu: Cpu): void {
  put32(cpu, 4 * RDX, cpu.i32[GPR]! >> 31);
}
function cqo(cpu: Cpu): void {
  const sign = cpu.i32[GPR + 1]! >> 31;
  put64(cpu, 4 * RDX, sign, sign);
}

function xlat(cpu: Cpu, _a: number, _b: number, pc: number): void {
  const i = cpu.i32;
  const size = (i[pc + R_MEM]! >>> Mem.SizeShift) & 3;
  const base = i[RBX]!;
  let low = (base + cpu.u8[0]!) | 0;
  let high = 0;
  if (size === 0) low &= 0xffff;
  else if (size === 2) {
    high = (i[RBX + 1]! + ((low >>> 0) < (base >>> 0) ? 1 : 0)) | 0;
  }
  linear(cpu, segmentOf(cpu, pc), low, high, 1, false);
  cpu.u8[0] = cpu.u8[readAddress(cpu, i[EA]!, i[EA + 1]!, 1)]!;
}

/** Flags in AH: SF, ZF, AF, PF, CF. */
const AH_FLAGS = Flag.SF | Flag.ZF | Flag.AF | Flag.PF | Flag.CF;

function lahf(cpu: Cpu): void {
  cpu.u8[1] = (arithmeticFlags(cpu) & AH_FLAGS) | 2;
}
function sahf(cpu: Cpu): void {
  setArithmeticFlags(
    cpu,
    (arithmeticFlags(cpu) & Flag.OF) | (cpu.u8[1]! & AH_FLAGS),
  );
}
function clc(cpu: Cpu): void {
  setArithmeticFlags(cpu, arithmeticFlags(cpu) & ~Flag.CF);
}
function stc(cpu: Cpu): void {
  setArithmeticFlags(cpu, arithmeticFlags(cpu) | Flag.CF);
}
function cmc(cpu: Cpu): void {
  setArithmeticFlags(cpu, arithmeticFlags(cpu) ^ Flag.CF);
}
function cld(cpu: Cpu): void {
  cpu.i32[EFLAGS] = cpu.i32[EFLAGS]! & ~Flag.DF;
}
function std(cpu: Cpu): void {
  cpu.i32[EFLAGS] = cpu.i32[EFLAGS]! | Flag.DF;
}

/** SALC, undocumented by Intel: AL = CF ? FF : 00. */
function salc(cpu: Cpu): void {
  cpu.u8[0] = carry(cpu) !== 0 ? 0xff : 0;
}

function bound(size: number): Handler {
  return (cpu, a, _b, pc) => {
    linearOf(cpu, pc, 2 * size, false);
    const at = readAddress(cpu, cpu.i32[EA]!, cpu.i32[EA + 1]!, 2 * size);
    const [value, lower, upper] = size === 2
      ? [
        cpu.dv.getInt16(a, true),
        cpu.dv.getInt16(at, true),
        cpu.dv.getInt16(at + 2, true),
      ]
      : [
        cpu.dv.getInt32(a, true),
        cpu.dv.getInt32(at, true),
        cpu.dv.getInt32(at + 4, true),
      ];
    if (value! < lower! || value! > upper!) fault(cpu, Vector.BR);
  };
}

/** ENTER: the new frame is checked to be writable before RSP and RBP change. */
function enter(size: number): Handler {
  return (cpu, _a, _b, pc) => {
    const i = cpu.i32;
    const bytes = i[pc + R_IMM]! & 0xffff;
    const level = i[pc + R_IMM + 1]! & 31;
    const oldLow = i[RSP]!, oldHigh = i[RSP + 1]!;
    let done = false;
    try {
      push(cpu, i[RBP]!, i[RBP + 1]!, size);
      const frameLow = i[RSP]!, frameHigh = i[RSP + 1]!;
      let at = i[RBP]!, atHigh = i[RBP + 1]!;
      for (let n = 1; n < level; n++) {
        at = stackOffset(cpu, at, atHigh, -size);
        atHigh = i[HIGH]!;
        linear(cpu, Seg.SS, at, atHigh, size, false);
        const from = readAddress(cpu, i[EA]!, i[EA + 1]!, size);
        push(
          cpu,
          size === 2
            ? cpu.dv.getUint16(from, true)
            : cpu.dv.getInt32(from, true),
          size === 8 ? cpu.dv.getInt32(from + 4, true) : 0,
          size,
        );
      }
      if (level > 0) push(cpu, frameLow, frameHigh, size);
      const top = stackOffset(cpu, i[RSP]!, i[RSP + 1]!, -bytes);
      const topHigh = i[HIGH]!;
      // The instruction faults if a push to the new frame would.
      linear(cpu, Seg.SS, top, topHigh, size, true);
      writeAddress(cpu, i[EA]!, i[EA + 1]!, size, true);
      if (i[COMMIT_SIZE] !== 0) commit(cpu);
      setStackPointer(cpu, top, topHigh);
      if (size === 2) cpu.dv.setInt16(4 * RBP, frameLow, true);
      else put64(cpu, 4 * RBP, frameLow, size === 8 ? frameHigh : 0);
      done = true;
    } finally {
      if (!done) {
        i[RSP] = oldLow;
        i[RSP + 1] = oldHigh;
      }
    }
  };
}

function pusha(size: number): Handler {
  return (cpu) => {
    const i = cpu.i32;
    const sp = i[RSP]!;
    let done = false;
    try {
      for (let r = 0; r < 8; r++) {
        push(cpu, r === 4 ? sp : i[GPR + 2 * r]!, 0, size);
      }
      done = true;
    } finally {
      if (!done) i[RSP] = sp;
    }
  };
}

function popa(size: number): Handler {
  return (cpu) => {
    // A fault leaves what is loaded by then, as on AMD, but the stack pointer.
    for (let r = 7; r >= 0; r--) {
      const value = peek(cpu, (7 - r) * size, size);
      if (r === 4) continue;
      if (size === 2) cpu.dv.setInt16(8 * r, value, true);
      else put32(cpu, 8 * r, value);
    }
    release(cpu, 8 * size);
  };
}

/** NOP, prefetches and hints. */
function nop(): void {}

function fence(): void {}

const byHot = (base: number): { 16: number; 32: number; 64: number } => ({
  16: base + 1,
  32: base + 2,
  64: base + 3,
});

/** The family's lines of the opcode tables. */
export const miscOps: readonly OpDef[] = [
  { code: "98", run: { 16: cbw, 32: cwde, 64: cdqe } },
  { code: "99", run: { 16: cwd, 32: cdq, 64: cqo } },
  { code: "D7", run: xlat },
  { code: "9F", run: lahf },
  { code: "9E", run: sahf },
  { code: "F8", run: clc },
  { code: "F9", run: stc },
  { code: "F5", run: cmc },
  { code: "FC", run: cld },
  { code: "FD", run: std },
  { code: "D6", run: salc, flags: "no64" },
  {
    code: "62 m",
    operands: "Gv M",
    run: { 16: bound(2), 32: bound(4) },
    flags: "no64",
  },
  {
    code: "C8",
    operands: "Iwb",
    run: { 16: enter(2), 32: enter(4), 64: enter(8) },
    flags: "d64",
  },
  { code: "60", run: { 16: pusha(2), 32: pusha(4) }, flags: "no64" },
  { code: "61", run: { 16: popa(2), 32: popa(4) }, flags: "no64" },
  { code: "A0", operands: "=AL Ob", run: Hot.MOV },
  { code: "A1", operands: "=rAX Ov", run: byHot(Hot.MOV) },
  { code: "A2", operands: "=Ob AL", run: Hot.MOV },
  { code: "A3", operands: "=Ov rAX", run: byHot(Hot.MOV) },
  { code: "0F 0D m", operands: "Ra", run: nop },
  ...Array.from({ length: 8 }, (_, n): OpDef => ({
    code: `0F 1${(8 + n).toString(16).toUpperCase()}`,
    operands: "Ra",
    run: nop,
  })),
  { code: "NP 0F AE /5 r", run: fence },
  { code: "NP 0F AE /6 r", run: fence },
  { code: "NP 0F AE /7 r", run: fence },
  {
    code: "NP 0F C3 m",
    operands: "=Ey Gy",
    run: byHot(Hot.MOV),
  },
  { code: "0F 0B", run: undefinedOpcode, flags: "ends" },
  { code: "0F B9", operands: "Gv Ra", run: undefinedOpcode, flags: "ends" },
  { code: "0F FF", operands: "Gv Ra", run: undefinedOpcode, flags: "ends" },
];
