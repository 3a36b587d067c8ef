/**
 * String instructions. With a repeat prefix a run executes a bounded number of iterations and
 * then goes back to the instruction, so that interrupts come in between.
 *
 * @module
 */
import { commit, readAddress, writeAddress } from "./access.ts";
import { linear, segmentOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { flagsOfCompare32, flagsOfCompare64, zero } from "./flags.ts";
import {
  COMMIT_SIZE,
  EA,
  EFLAGS,
  EVENTS,
  Flag,
  Mem,
  Meta,
  MODE,
  Mode,
  R_MEM,
  R_META,
  Seg,
} from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { put32, put64 } from "./operand.ts";
import {
  advanceIndex,
  countIsZero,
  countUpTo,
  decrementCount,
  index,
  indexHigh,
  REPEATED,
  restart,
} from "./repeat.ts";

const RSI = 12;
const RDI = 14;
/** Iterations in one go: some tens of microseconds. */
const CHUNK = 4096;
/** What one element, and one run of them at once, takes, in instructions. */
const ELEMENT_COST = 4, BULK_COST = 16;

function step(cpu: Cpu, size: number): number {
  return (cpu.i32[EFLAGS]! & Flag.DF) !== 0 ? -size : size;
}

/** Host address of the source element. */
function source(cpu: Cpu, pc: number, size: number): number {
  linear(
    cpu,
    segmentOf(cpu, pc),
    index(cpu, pc, RSI),
    indexHigh(cpu, pc, RSI),
    size,
    false,
  );
  return readAddress(cpu, cpu.i32[EA]!, cpu.i32[EA + 1]!, size);
}

/** Linear address of the destination element, in EA. */
function destination(
  cpu: Cpu,
  pc: number,
  size: number,
  write: boolean,
): void {
  linear(
    cpu,
    Seg.ES,
    index(cpu, pc, RDI),
    indexHigh(cpu, pc, RDI),
    size,
    write,
  );
}

function copy(cpu: Cpu, to: number, from: number, size: number): void {
  if (size === 8) {
    const high = cpu.dv.getInt32(from + 4, true);
    cpu.dv.setInt32(to, cpu.dv.getInt32(from, true), true);
    cpu.dv.setInt32(to + 4, high, true);
  } else if (size === 4) cpu.dv.setInt32(to, cpu.dv.getInt32(from, true), true);
  else if (size === 2) cpu.dv.setInt16(to, cpu.dv.getInt16(from, true), true);
  else cpu.u8[to] = cpu.u8[from]!;
}

function movsOnce(cpu: Cpu, pc: number, size: number): void {
  let from = source(cpu, pc, size);
  destination(cpu, pc, size, true);
  const i = cpu.i32;
  // The source may be in the scratch operand, which the destination needs too.
  const low = size === 1
    ? cpu.u8[from]!
    : size === 2
    ? cpu.dv.getInt16(from, true)
    : cpu.dv.getInt32(from, true);
  const high = size === 8 ? cpu.dv.getInt32(from + 4, true) : 0;
  from = writeAddress(cpu, i[EA]!, i[EA + 1]!, size);
  if (size === 1) cpu.u8[from] = low;
  else if (size === 2) cpu.dv.setInt16(from, low, true);
  else {
    cpu.dv.setInt32(from, low, true);
    if (size === 8) cpu.dv.setInt32(from + 4, high, true);
  }
  if (i[COMMIT_SIZE] !== 0) commit(cpu);
  const delta = step(cpu, size);
  advanceIndex(cpu, pc, RSI, delta);
  advanceIndex(cpu, pc, RDI, delta);
}

function stosOnce(cpu: Cpu, pc: number, size: number): void {
  destination(cpu, pc, size, true);
  const i = cpu.i32;
  const to = writeAddress(cpu, i[EA]!, i[EA + 1]!, size);
  copy(cpu, to, 0, size);
  if (i[COMMIT_SIZE] !== 0) commit(cpu);
  advanceIndex(cpu, pc, RDI, step(cpu, size));
}

function lodsOnce(cpu: Cpu, pc: number, size: number): void {
  const from = source(cpu, pc, size);
  if (size === 4) put32(cpu, 0, cpu.dv.getInt32(from, true));
  else if (size === 8) {
    put64(cpu, 0, cpu.dv.getInt32(from, true), cpu.dv.getInt32(from + 4, true));
  } else copy(cpu, 0, from, size);
  advanceIndex(cpu, pc, RSI, step(cpu, size));
}

function signed(cpu: Cpu, at: number, size: number): number {
  return size === 1
    ? cpu.dv.getInt8(at)
    : size === 2
    ? cpu.dv.getInt16(at, true)
    : cpu.dv.getInt32(at, true);
}

/** Flags of x - y. */
function compare(
  cpu: Cpu,
  x: number,
  xh: number,
  y: number,
  yh: number,
  size: number,
): void {
  if (size === 8) flagsOfCompare64(cpu, x, xh, y, yh);
  else flagsOfCompare32(cpu, x, y, size);
}

function cmpsOnce(cpu: Cpu, pc: number, size: number): void {
  const from = source(cpu, pc, size);
  const x = signed(cpu, from, size);
  const xh = size === 8 ? cpu.dv.getInt32(from + 4, true) : 0;
  destination(cpu, pc, size, false);
  const to = readAddress(cpu, cpu.i32[EA]!, cpu.i32[EA + 1]!, size);
  const y = signed(cpu, to, size);
  const yh = size === 8 ? cpu.dv.getInt32(to + 4, true) : 0;
  compare(cpu, x, xh, y, yh, size);
  const delta = step(cpu, size);
  advanceIndex(cpu, pc, RSI, delta);
  advanceIndex(cpu, pc, RDI, delta);
}

function scasOnce(cpu: Cpu, pc: number, size: number): void {
  destination(cpu, pc, size, false);
  const at = readAddress(cpu, cpu.i32[EA]!, cpu.i32[EA + 1]!, size);
  const y = signed(cpu, at, size);
  const yh = size === 8 ? cpu.dv.getInt32(at + 4, true) : 0;
  compare(cpu, signed(cpu, 0, size), cpu.i32[1]!, y, yh, size);
  advanceIndex(cpu, pc, RDI, step(cpu, size));
}

/** Elements of `size` bytes from a linear address to the end of its page, forward. */
function inPage(low: number, size: number): number {
  return Math.floor((4096 - (low & 4095)) / size);
}

/** Whether segmentation cannot stop a run: 64-bit mode or flat data with 32-bit addresses. */
function plain(cpu: Cpu, pc: number): boolean {
  const mode = cpu.i32[MODE]!;
  const bits = (cpu.i32[pc + R_MEM]! >>> Mem.SizeShift) & 3;
  return bits === 2 || (bits === 1 && (mode & Mode.FlatData) !== 0 &&
    segmentOf(cpu, pc) < Seg.FS && segmentOf(cpu, pc) !== Seg.CS);
}

/**
 * Many forward elements of MOVS or STOS at once, where both runs are plain RAM in
 * one page each.
 *
 * @returns The elements done, 0 if the slow way has to be taken.
 */
function bulk(cpu: Cpu, pc: number, size: number, move: boolean): number {
  const i = cpu.i32;
  if (
    (i[EFLAGS]! & Flag.DF) !== 0 || (i[MODE]! & Mode.Single) !== 0 ||
    !plain(cpu, pc)
  ) return 0;
  let count = countUpTo(cpu, pc, 4096);
  let from = 0;
  if (move) {
    // Faults of the source come first.
    from = source(cpu, pc, size);
    count = Math.min(count, inPage(i[EA]!, size));
  }
  destination(cpu, pc, size, true);
  const toLow = i[EA]!, toHigh = i[EA + 1]!;
  count = Math.min(count, inPage(toLow, size));
  if (count < 2) return 0;
  const bytes = count * size;
  const to = writeAddress(cpu, toLow, toHigh, size);
  if (i[COMMIT_SIZE] !== 0) {
    i[COMMIT_SIZE] = 0;
    return 0;
  }
  // A copy of MMIO in the scratch operand is of one element only.
  if (to < cpu.ramBase || (move && from < cpu.ramBase)) return 0;
  if (move) {
    // Elements that overlap forward repeat a pattern, which copyWithin would not.
    if (to > from && to < from + bytes) {
      for (let n = 0; n < bytes; n += size) copy(cpu, to + n, from + n, size);
    } else cpu.u8.copyWithin(to, from, from + bytes);
    advanceIndex(cpu, pc, RSI, bytes);
  } else if (size === 1) cpu.u8.fill(cpu.u8[0]!, to, to + bytes);
  else for (let n = 0; n < bytes; n += size) copy(cpu, to + n, 0, size);
  advanceIndex(cpu, pc, RDI, bytes);
  decrementCount(cpu, pc, count);
  return count;
}

type Once = (cpu: Cpu, pc: number, size: number) => void;

/** MOVS, STOS, LODS: repeated until the count is 0. */
function repeated(once: Once, size: number, bulkMove: number): Handler {
  return (cpu, _a, _b, pc) => {
    const i = cpu.i32;
    if ((i[pc + R_META]! & REPEATED) === 0) {
      once(cpu, pc, size);
      return;
    }
    if (countIsZero(cpu, pc)) return;
    const most = (i[MODE]! & Mode.Single) !== 0 ? 1 : CHUNK;
    for (let n = 0; n < most;) {
      const many = bulkMove < 0 ? 0 : bulk(cpu, pc, size, bulkMove === 1);
      if (many === 0) {
        once(cpu, pc, size);
        decrementCount(cpu, pc);
        n++;
        cpu.spent += ELEMENT_COST;
      } else {
        n += many;
        cpu.spent += BULK_COST;
      }
      if (countIsZero(cpu, pc)) return;
      if (i[EVENTS] !== 0) break;
    }
    restart(cpu, pc);
  };
}

/** CMPS, SCAS: repeated until the count is 0 or ZF says to stop. */
function repeatedWhile(once: Once, size: number): Handler {
  return (cpu, _a, _b, pc) => {
    const i = cpu.i32;
    const prefix = i[pc + R_META]! & REPEATED;
    if (prefix === 0) {
      once(cpu, pc, size);
      return;
    }
    if (countIsZero(cpu, pc)) return;
    const equal = prefix === Meta.Rep;
    const most = (i[MODE]! & Mode.Single) !== 0 ? 1 : CHUNK;
    for (let n = 0; n < most; n++) {
      once(cpu, pc, size);
      decrementCount(cpu, pc);
      cpu.spent += ELEMENT_COST;
      if (countIsZero(cpu, pc) || zero(cpu) !== equal) return;
      if (i[EVENTS] !== 0) break;
    }
    restart(cpu, pc);
  };
}

function family(
  code: number,
  make: (size: number) => Handler,
): OpDef[] {
  const hex = (n: number): string => n.toString(16).toUpperCase();
  return [
    { code: hex(code), run: make(1), flags: "ends" },
    {
      code: hex(code + 1),
      run: { 16: make(2), 32: make(4), 64: make(8) },
      flags: "ends",
    },
  ];
}

/** The family's lines of the opcode tables. */
export const stringOps: readonly OpDef[] = [
  ...family(0xa4, (size) => repeated(movsOnce, size, 1)),
  ...family(0xa6, (size) => repeatedWhile(cmpsOnce, size)),
  ...family(0xaa, (size) => repeated(stosOnce, size, 0)),
  ...family(0xac, (size) => repeated(lodsOnce, size, -1)),
  ...family(0xae, (size) => repeatedWhile(scasOnce, size)),
];
