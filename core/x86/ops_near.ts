/**
 * Near control transfers and stack instructions outside the loop's fast forms: 16-bit
 * code, code segments with a base or limit, indirect and counted branches.
 *
 * @module
 */
import { commit, readAddress, writeAddress } from "./access.ts";
import { linear, linearOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { gp0, undefinedOpcode } from "./fault.ts";
import { condition, zero } from "./flags.ts";
import { Hot } from "./hot.ts";
import {
  BLOCK_RIP,
  COMMIT_SIZE,
  EA,
  GPR,
  HIGH,
  Mem,
  MODE,
  Mode,
  R_IMM,
  R_MEM,
  RIP,
  SEG,
  Seg,
  SEG_LIMIT,
  SEG_WORDS,
} from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { canonical } from "./paging.ts";
import {
  peek,
  pop,
  push,
  release,
  RSP,
  setStackPointer,
  stackOffset,
} from "./stack.ts";

const CS_LIMIT = SEG + Seg.CS * SEG_WORDS + SEG_LIMIT;
const RBP = GPR + 10;
const RCX = GPR + 2;

/**
 * Raises #GP(0) unless (low, high), cut to `size` bytes, is a place to go to in CS.
 */
export function checkTarget(
  cpu: Cpu,
  low: number,
  high: number,
  size: number,
): void {
  const i = cpu.i32;
  if ((i[MODE]! & Mode.Long) !== 0) {
    if (size === 8 && !canonical(high)) gp0(cpu);
    return;
  }
  const target = size === 2 ? low & 0xffff : low >>> 0;
  if (target > (i[CS_LIMIT]! >>> 0)) gp0(cpu);
}

/** Sets RIP to (low, high) cut to `size` bytes. */
function setRip(cpu: Cpu, low: number, high: number, size: number): void {
  const i = cpu.i32;
  i[RIP] = size === 2 ? low & 0xffff : low;
  i[RIP + 1] = size === 8 ? high : 0;
}

/** Goes to (low, high), cut to `size` bytes, in CS. */
export function jumpTo(
  cpu: Cpu,
  low: number,
  high: number,
  size: number,
): void {
  checkTarget(cpu, low, high, size);
  setRip(cpu, low, high, size);
}

/** The target of a relative branch: low word, and high word in HIGH. */
function relativeTarget(cpu: Cpu, pc: number): number {
  const i = cpu.i32;
  const offset = i[pc + R_IMM]!;
  const start = i[BLOCK_RIP]!;
  const low = (start + offset) | 0;
  i[HIGH] = (i[BLOCK_RIP + 1]! + (offset >> 31) +
    ((low >>> 0) < (start >>> 0) ? 1 : 0)) | 0;
  return low;
}

/**
 * A branch with every check: the loop's own forms skip those that cannot fail in flat code.
 * Operand A is the operand size, R_IMM + 1 the built-in operation.
 */
export function checkedBranch(
  cpu: Cpu,
  size: number,
  _b: number,
  pc: number,
): void {
  const i = cpu.i32;
  const op = i[pc + R_IMM + 1]!;
  if (op >= Hot.JCC && op < Hot.JCC + 16 && !condition(cpu, op - Hot.JCC)) {
    return;
  }
  const low = relativeTarget(cpu, pc);
  const high = i[HIGH]!;
  checkTarget(cpu, low, high, size);
  if (op === Hot.CALL32 || op === Hot.CALL64) {
    push(cpu, i[RIP]!, i[RIP + 1]!, size);
  }
  setRip(cpu, low, high, size);
}

/** Undefined opcodes. */
export function invalid(cpu: Cpu): void {
  undefinedOpcode(cpu);
}

function operandHigh(cpu: Cpu, a: number, size: number): number {
  return size === 8 ? cpu.dv.getInt32(a + 4, true) : 0;
}

function operandLow(cpu: Cpu, a: number, size: number): number {
  return size === 2 ? cpu.dv.getUint16(a, true) : cpu.dv.getInt32(a, true);
}

function indirectJump(size: number): Handler {
  return (cpu, a) =>
    jumpTo(cpu, operandLow(cpu, a, size), operandHigh(cpu, a, size), size);
}

function indirectCall(size: number): Handler {
  return (cpu, a) => {
    const low = operandLow(cpu, a, size);
    const high = operandHigh(cpu, a, size);
    checkTarget(cpu, low, high, size);
    push(cpu, cpu.i32[RIP]!, cpu.i32[RIP + 1]!, size);
    setRip(cpu, low, high, size);
  };
}

/** RET: pops RIP of `size` bytes and releases `extra` more. */
export function nearReturn(cpu: Cpu, size: number, extra: number): void {
  const low = peek(cpu, 0, size);
  jumpTo(cpu, low, cpu.i32[HIGH]!, size);
  release(cpu, size + extra);
}

function returnNear(size: number): Handler {
  return (cpu) => nearReturn(cpu, size, 0);
}

function returnNearRelease(size: number): Handler {
  return (cpu, a) => nearReturn(cpu, size, cpu.dv.getUint16(a, true));
}

function push16(cpu: Cpu, a: number): void {
  push(cpu, cpu.dv.getUint16(a, true), 0, 2);
}

function pop16(cpu: Cpu, a: number): void {
  cpu.dv.setUint16(a, pop(cpu, 2), true);
}

/** POP to memory: RSP in the address has its value after the pop (SDM volume 2B, POP). */
function popMemory(size: number): Handler {
  return (cpu, _a, _b, pc) => {
    const i = cpu.i32;
    const low = peek(cpu, 0, size);
    const high = i[HIGH]!;
    const oldLow = i[RSP]!, oldHigh = i[RSP + 1]!;
    release(cpu, size);
    let done = false;
    try {
      linearOf(cpu, pc, size, true);
      const at = writeAddress(cpu, i[EA]!, i[EA + 1]!, size);
      if (size === 2) cpu.dv.setInt16(at, low, true);
      else cpu.dv.setInt32(at, low, true);
      if (size === 8) cpu.dv.setInt32(at + 4, high, true);
      if (i[COMMIT_SIZE] !== 0) commit(cpu);
      done = true;
    } finally {
      if (!done) {
        i[RSP] = oldLow;
        i[RSP + 1] = oldHigh;
      }
    }
  };
}

/** LEAVE: RSP from RBP, then RBP from the stack. */
function leave(size: number): Handler {
  return (cpu) => {
    const i = cpu.i32;
    const low = stackOffset(cpu, i[RBP]!, i[RBP + 1]!, 0);
    const lowHigh = i[HIGH]!;
    linear(cpu, Seg.SS, low, lowHigh, size, false);
    const at = readAddress(cpu, i[EA]!, i[EA + 1]!, size);
    const next = stackOffset(cpu, low, lowHigh, size);
    setStackPointer(cpu, next, i[HIGH]!);
    if (size === 2) cpu.dv.setInt16(RBP * 4, cpu.dv.getInt16(at, true), true);
    else {
      i[RBP] = cpu.dv.getInt32(at, true);
      i[RBP + 1] = size === 8 ? cpu.dv.getInt32(at + 4, true) : 0;
    }
  };
}

/** The count register of LOOP and JCXZ at the address size: decremented if `step`. True: not zero. */
function counter(cpu: Cpu, pc: number, step: boolean): boolean {
  const i = cpu.i32;
  const bits = (i[pc + R_MEM]! >>> Mem.SizeShift) & 3;
  const low = i[RCX]!;
  if (bits === 0) {
    const value = step ? (low - 1) & 0xffff : low & 0xffff;
    if (step) i[RCX] = (low & -65536) | value;
    return value !== 0;
  }
  if (bits === 1) {
    const value = step ? (low - 1) | 0 : low;
    if (step) {
      i[RCX] = value;
      i[RCX + 1] = 0;
    }
    return value !== 0;
  }
  if (!step) return (low | i[RCX + 1]!) !== 0;
  if (low === 0) i[RCX + 1] = (i[RCX + 1]! - 1) | 0;
  i[RCX] = (low - 1) | 0;
  return (i[RCX]! | i[RCX + 1]!) !== 0;
}

/**
 * LOOPNE, LOOPE, LOOP.
 *
 * @param zf What ZF must be, or -1.
 */
function loop(zf: number): Handler {
  return (cpu, size, _b, pc) => {
    const i = cpu.i32;
    const low = relativeTarget(cpu, pc);
    const high = i[HIGH]!;
    const oldLow = i[RCX]!, oldHigh = i[RCX + 1]!;
    const taken = counter(cpu, pc, true) &&
      (zf < 0 || zero(cpu) === (zf === 1));
    if (!taken) return;
    if ((i[MODE]! & Mode.Long) === 0) {
      const target = size === 2 ? low & 0xffff : low >>> 0;
      if (target > (i[CS_LIMIT]! >>> 0)) {
        i[RCX] = oldLow;
        i[RCX + 1] = oldHigh;
        gp0(cpu);
      }
    }
    setRip(cpu, low, high, size);
  };
}

function jumpIfCounterZero(
  cpu: Cpu,
  size: number,
  _b: number,
  pc: number,
): void {
  if (counter(cpu, pc, false)) return;
  const low = relativeTarget(cpu, pc);
  jumpTo(cpu, low, cpu.i32[HIGH]!, size);
}

/** XCHG with the accumulator; with itself it is NOP and changes nothing at all. */
function exchange16(cpu: Cpu, a: number): void {
  const value = cpu.dv.getInt16(a, true);
  cpu.dv.setInt16(a, cpu.dv.getInt16(0, true), true);
  cpu.dv.setInt16(0, value, true);
}

/** PAUSE, unless REX.B makes it an XCHG. What it waits for may be another vCPU's to do, whose turn comes the sooner. */
function pauseOr(exchange: (cpu: Cpu, a: number) => void): Handler {
  return (cpu, a) => {
    if (a !== 0) exchange(cpu, a);
    else cpu.spent += cpu.pauseCost;
  };
}

function exchange32(cpu: Cpu, a: number): void {
  if (a === 0) return;
  const i = cpu.i32;
  const value = i[a >> 2]!;
  i[a >> 2] = i[GPR]!;
  i[(a >> 2) + 1] = 0;
  i[GPR] = value;
  i[GPR + 1] = 0;
}

function exchange64(cpu: Cpu, a: number): void {
  const i = cpu.i32;
  const low = i[a >> 2]!, high = i[(a >> 2) + 1]!;
  i[a >> 2] = i[GPR]!;
  i[(a >> 2) + 1] = i[GPR + 1]!;
  i[GPR] = low;
  i[GPR + 1] = high;
}

const pushes = { 16: push16, 32: Hot.PUSH32, 64: Hot.PUSH64 };
const pops = { 16: pop16, 32: Hot.POP32, 64: Hot.POP64 };

/** The family's lines of the opcode tables. */
export const nearOps: readonly OpDef[] = [
  { code: "50 +r", operands: "Zv", run: pushes, flags: "d64" },
  { code: "58 +r", operands: "=Zv", run: pops, flags: "d64" },
  { code: "68", operands: "Iz", run: pushes, flags: "d64" },
  { code: "6A", operands: "Ibs", run: pushes, flags: "d64" },
  { code: "FF /6", operands: "Ev", run: pushes, flags: "d64" },
  { code: "8F /0 r", operands: "=Ev", run: pops, flags: "d64" },
  {
    code: "8F /0 m",
    operands: "M",
    run: { 16: popMemory(2), 32: popMemory(4), 64: popMemory(8) },
    flags: "d64",
  },
  {
    code: "FF /2",
    operands: "Ev",
    run: { 16: indirectCall(2), 32: indirectCall(4), 64: indirectCall(8) },
    flags: "d64 ends",
  },
  {
    code: "FF /4",
    operands: "Ev",
    run: { 16: indirectJump(2), 32: indirectJump(4), 64: indirectJump(8) },
    flags: "d64 ends",
  },
  {
    code: "C3",
    run: { 16: returnNear(2), 32: Hot.RET32, 64: Hot.RET64 },
    flags: "d64 ends",
  },
  {
    code: "C2",
    operands: "Iw",
    run: {
      16: returnNearRelease(2),
      32: returnNearRelease(4),
      64: returnNearRelease(8),
    },
    flags: "d64 ends",
  },
  {
    code: "C9",
    run: { 16: leave(2), 32: leave(4), 64: leave(8) },
    flags: "d64",
  },
  { code: "E0", operands: "Jb", run: loop(0), flags: "d64 ends" },
  { code: "E1", operands: "Jb", run: loop(1), flags: "d64 ends" },
  { code: "E2", operands: "Jb", run: loop(-1), flags: "d64 ends" },
  { code: "E3", operands: "Jb", run: jumpIfCounterZero, flags: "d64 ends" },
  {
    code: "F3 90",
    operands: "+Zv",
    run: {
      16: pauseOr(exchange16),
      32: pauseOr(exchange32),
      64: pauseOr(exchange64),
    },
    flags: "ends",
  },
  {
    code: "90 +r",
    operands: "+Zv",
    run: { 16: exchange16, 32: exchange32, 64: exchange64 },
  },
];
