/**
 * The x87's registers, stack and exceptions: what all of its instructions share (SDM volume 1,
 * chapter 8; APM volume 1, chapter 6). Where AMD and Intel differ this one takes after AMD.
 *
 * Registers hold numbers as F80 bit patterns; see soft_float.ts. An exception that is not
 * masked is reported as #MF by the next waiting instruction whatever CR0.NE says: the
 * detour of the first PCs, by an external interrupt, is not there.
 *
 * @module
 */
import { readAddress, requireAlignment } from "./access.ts";
import { linearOf, offsetOf, segmentOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { fault, undefinedOpcode, Vector } from "./fault.ts";
import {
  BLOCK_RIP,
  CR0,
  EA,
  Event,
  EVENTS,
  FCS,
  FCW,
  FDP,
  FDS,
  FIP,
  FOP,
  FSW,
  FTW,
  HIGH,
  Meta,
  MODE,
  Mode,
  R_IMM,
  R_META,
  SEG,
  Seg,
  SEG_SEL,
  SEG_WORDS,
  X87_B,
} from "./layout.ts";
import { Cr } from "./paging.ts";
import { Exception, F80, SoftFloat } from "./soft_float.ts";

/** Bits of {@linkcode FSW}; the lower six are {@linkcode Exception}s. */
export const Status = {
  /** Stack fault. */
  SF: 0x40,
  /** An exception is not masked. */
  ES: 0x80,
  C0: 0x100,
  C1: 0x200,
  C2: 0x400,
  TopShift: 11,
  Top: 0x3800,
  C3: 0x4000,
  /** Busy: a copy of ES. */
  B: 0x8000,
} as const;

/** All exceptions. */
export const EXCEPTIONS = 0x3f;
/** Exceptions that are found before there is a result. */
export const BEFORE_RESULT = Exception.Invalid | Exception.Denormal |
  Exception.DivideByZero;

/** What stands for the result of an invalid operation: the default NaN. */
export const INDEFINITE = F80.defaultNan;

/** The x87's arithmetic, set up by {@linkcode begin}. */
export const soft: SoftFloat = new SoftFloat();

/** What an x87 instruction takes beyond others, in instructions. */
export const X87_COST = 24;
/** How much of that may be run up before the loop has to look at it. */
const COST_LIMIT = 2000;

/** Takes the time for something slow off the budget of the loop, also if it does not leave the block. */
export function charge(cpu: Cpu, cost: number): void {
  cpu.spent += cost;
  if (cpu.spent > COST_LIMIT) {
    cpu.i32[EVENTS] = cpu.i32[EVENTS]! | Event.LeaveBlock;
  }
}

/** #NM if CR0 asks for it: all x87 instructions begin with this, except WAIT. */
export function checkAvailable(cpu: Cpu): void {
  if ((cpu.i32[CR0]! & (Cr.EM | Cr.TS)) !== 0) fault(cpu, Vector.NM);
}

/** #MF if an exception waits. */
export function checkPending(cpu: Cpu): void {
  if ((cpu.i32[FSW]! & Status.ES) !== 0) fault(cpu, Vector.MF);
}

/** The checks of waiting instructions, and {@linkcode soft} set to what the control word says. */
export function begin(cpu: Cpu): void {
  checkAvailable(cpu);
  checkPending(cpu);
  charge(cpu, X87_COST);
  const control = cpu.i32[FCW]!;
  soft.flags = 0;
  soft.roundedUp = false;
  soft.rounding = (control >>> 10) & 3;
  soft.unmasked = ~control & EXCEPTIONS;
}

/**
 * Ends an instruction: it becomes the last one, and what {@linkcode soft} found goes into the status word.
 * Nothing can fault after this.
 *
 * @param blocking Exceptions that prevent the result if they are not masked.
 * @returns Whether the result is delivered.
 */
export function settle(
  cpu: Cpu,
  pc: number,
  blocking: number = BEFORE_RESULT,
): boolean {
  const i = cpu.i32;
  setPointers(cpu, pc);
  let status = i[FSW]! & ~Status.C1;
  if (soft.roundedUp) status |= Status.C1;
  const unmasked = soft.flags & soft.unmasked;
  status |= soft.flags;
  if (unmasked !== 0) status |= Status.ES | Status.B;
  i[FSW] = status;
  return (unmasked & blocking) === 0;
}

/** FIP, FCS and FOP always, FDP and FDS if there is an operand in memory. */
function setPointers(cpu: Cpu, pc: number): void {
  const i = cpu.i32;
  const opcode = i[pc + R_IMM]!;
  i[FOP] = opcode;
  const start = i[BLOCK_RIP]!;
  const low = (start + (i[pc + R_META]! & Meta.OffsetMask)) | 0;
  i[FIP] = low;
  i[FIP + 1] = (i[MODE]! & Mode.Long) === 0
    ? 0
    : (i[BLOCK_RIP + 1]! + ((low >>> 0) < (start >>> 0) ? 1 : 0)) | 0;
  i[FCS] = i[SEG + Seg.CS * SEG_WORDS + SEG_SEL]!;
  if ((opcode & 0xc0) === 0xc0) return;
  i[FDP] = offsetOf(cpu, pc);
  i[FDP + 1] = i[HIGH]!;
  i[FDS] = i[SEG + segmentOf(cpu, pc) * SEG_WORDS + SEG_SEL]!;
}

/** Host address of an operand in memory that is read. For one of ten bytes the alignment that counts is 8. */
export function source(cpu: Cpu, pc: number, size: number): number {
  linearOf(cpu, pc, size, false);
  if (size === 10) requireAlignment(cpu, cpu.i32[EA]!, 8);
  return readAddress(cpu, cpu.i32[EA]!, cpu.i32[EA + 1]!, size);
}

/** The physical register that ST(n) is. */
export function physical(cpu: Cpu, n: number): number {
  return ((cpu.i32[FSW]! >>> Status.TopShift) + n) & 7;
}

/** Whether ST(n) is empty. */
export function isEmpty(cpu: Cpu, n: number): boolean {
  return (cpu.i32[FTW]! & (1 << physical(cpu, n))) === 0;
}

/** ST(n), empty or not. */
export function getSt(cpu: Cpu, n: number): bigint {
  const at = X87_B + 16 * physical(cpu, n);
  return (BigInt(cpu.dv.getUint16(at + 8, true)) << 64n) |
    cpu.dv.getBigUint64(at, true);
}

/** Sets ST(n), which is not empty afterwards. */
export function setSt(cpu: Cpu, n: number, value: bigint): void {
  const number = physical(cpu, n);
  const at = X87_B + 16 * number;
  cpu.dv.setBigUint64(at, value, true);
  cpu.dv.setUint16(at + 8, Number(value >> 64n), true);
  cpu.i32[FTW] = cpu.i32[FTW]! | (1 << number);
}

/** Makes ST(n) empty. */
export function free(cpu: Cpu, n: number): void {
  cpu.i32[FTW] = cpu.i32[FTW]! & ~(1 << physical(cpu, n));
}

/** Moves the top of the stack; nothing else. */
export function turn(cpu: Cpu, by: number): void {
  const status = cpu.i32[FSW]!;
  const top = ((status >>> Status.TopShift) + by) & 7;
  cpu.i32[FSW] = (status & ~Status.Top) | (top << Status.TopShift);
}

/** Takes ST(0) off the stack. */
export function pop(cpu: Cpu): void {
  free(cpu, 0);
  turn(cpu, 1);
}

/** Puts a value on the stack. */
export function push(cpu: Cpu, value: bigint): void {
  turn(cpu, -1);
  setSt(cpu, 0, value);
}

/** An empty register where a full one is needed. */
export function underflow(): void {
  soft.flags = Exception.Invalid | Status.SF;
  soft.roundedUp = false;
}

/**
 * A full register where an empty one is needed. True: there was one. An underflow of the same instruction
 * comes first.
 */
export function overflows(cpu: Cpu): boolean {
  if (isEmpty(cpu, 7) || (soft.flags & Status.SF) !== 0) return false;
  soft.flags = Exception.Invalid | Status.SF;
  // C1 tells it from an underflow.
  soft.roundedUp = true;
  return true;
}

/** What an instruction that reads ST(n) has to work with, or undefined after {@linkcode underflow}. */
export function operand(cpu: Cpu, n: number): bigint | undefined {
  if (!isEmpty(cpu, n)) return getSt(cpu, n);
  underflow();
  return undefined;
}

/** Recomputes ES and B after the control or status word was loaded. */
export function summarize(cpu: Cpu): void {
  const i = cpu.i32;
  const status = i[FSW]! & ~(Status.ES | Status.B);
  i[FSW] = (status & ~i[FCW]! & EXCEPTIONS) !== 0
    ? status | Status.ES | Status.B
    : status;
}

/** FNINIT, and what XRSTOR makes of a component in its initial state. */
export function initialize(cpu: Cpu): void {
  cpu.i32.fill(0, FCW, FDS + 1);
  cpu.i32[FCW] = 0x37f;
}

/**
 * The checks of MMX instructions, and what all of them but EMMS do to the x87's state: the
 * top of the stack is 0 and no register is empty. Whoever writes an MMX register also sets the 16 bits
 * behind its 8 bytes to ones.
 */
export function prepareMmx(cpu: Cpu): void {
  checkMmx(cpu);
  cpu.i32[FSW] = cpu.i32[FSW]! & ~Status.Top;
  cpu.i32[FTW] = 0xff;
}

/** The checks alone, before an operand in memory is touched. */
export function checkMmx(cpu: Cpu): void {
  const cr0 = cpu.i32[CR0]!;
  if ((cr0 & Cr.EM) !== 0) undefinedOpcode(cpu);
  if ((cr0 & Cr.TS) !== 0) fault(cpu, Vector.NM);
  checkPending(cpu);
}

/** EMMS: all registers are empty. */
export function emptyMmx(cpu: Cpu): void {
  checkMmx(cpu);
  cpu.i32[FTW] = 0;
}
