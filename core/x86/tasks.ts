/**
 * The task-state segment: stacks of inner levels, the I/O permission bitmap, and
 * hardware task switches (SDM volume 3A, chapter 8).
 *
 * @module
 */
import { commit, readSystem, writeSystem } from "./access.ts";
import type { Cpu } from "./cpu.ts";
import { faultCode, Vector } from "./fault.ts";
import { readFlags, setArithmeticFlags } from "./flags.ts";
import {
  Attr,
  CPL,
  CR0,
  CR3,
  CR4,
  DR7,
  EFLAGS,
  Event,
  EVENTS,
  Flag,
  GPR,
  HIGH,
  PENDING_DB,
  RIP,
  SEG,
  Seg,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SEL,
  SEG_WORDS,
} from "./layout.ts";
import { updateMode } from "./mode.ts";
import { Cr, flushTlb, loadPdptes } from "./paging.ts";
import {
  ACCESSED,
  BUSY,
  clearDescriptor,
  type Descriptor,
  descriptor,
  dplOf,
  longActive,
  orDescriptor,
  readDescriptor,
  selectorError,
  setFromDescriptor,
  setNull,
  setParagraph,
  SystemType,
} from "./segments.ts";
import { push } from "./stack.ts";

const TR = SEG + Seg.TR * SEG_WORDS;
/** How a task switch came about. */
export const TaskSwitch = { Jump: 0, Call: 1, Return: 2 } as const;

/** Whether the current TSS is a 32-bit one. */
function tss32(cpu: Cpu): boolean {
  return (cpu.i32[TR + SEG_ATTR]! & 8) !== 0;
}

/** Linear address of a byte in the current TSS: low word, high word in HIGH. */
function tssAddress(cpu: Cpu, offset: number): number {
  const i = cpu.i32;
  const base = i[TR + SEG_BASE]!;
  const low = (base + offset) | 0;
  i[HIGH] = longActive(cpu)
    ? (i[TR + SEG_BASE + 1]! + ((low >>> 0) < (base >>> 0) ? 1 : 0)) | 0
    : 0;
  return low;
}

/** Reads `size` bytes (2 or 4) of the current TSS. */
function readTss(cpu: Cpu, offset: number, size: number): number {
  const low = tssAddress(cpu, offset);
  const at = readSystem(cpu, low, cpu.i32[HIGH]!, size);
  return size === 2 ? cpu.dv.getUint16(at, true) : cpu.dv.getInt32(at, true);
}

/** Raises #TS(TR) unless the current TSS reaches to byte `last`. */
function checkTssLimit(cpu: Cpu, last: number): void {
  const i = cpu.i32;
  if (last > (i[TR + SEG_LIMIT]! >>> 0)) {
    faultCode(cpu, Vector.TS, selectorError(i[TR + SEG_SEL]!));
  }
}

/** SS selector of an inner level in a 16- or 32-bit TSS. */
export function innerStackSelector(cpu: Cpu, level: number): number {
  if (tss32(cpu)) {
    checkTssLimit(cpu, 8 * level + 9);
    return readTss(cpu, 8 * level + 8, 2);
  }
  checkTssLimit(cpu, 4 * level + 5);
  return readTss(cpu, 4 * level + 4, 2);
}

/** Stack pointer of an inner level in a 16- or 32-bit TSS. */
export function innerStackPointer(cpu: Cpu, level: number): number {
  return tss32(cpu)
    ? readTss(cpu, 8 * level + 4, 4)
    : readTss(cpu, 4 * level + 2, 2);
}

/**
 * RSP0-2 (`slot` 0 to 2) or IST1-7 (`slot` 4 to 10) of a 64-bit TSS: low word, high
 * word in HIGH.
 */
export function longStackPointer(cpu: Cpu, slot: number): number {
  const offset = 4 + 8 * slot;
  checkTssLimit(cpu, offset + 7);
  const low = tssAddress(cpu, offset);
  const at = readSystem(cpu, low, cpu.i32[HIGH]!, 8);
  const value = cpu.dv.getInt32(at, true);
  cpu.i32[HIGH] = cpu.dv.getInt32(at + 4, true);
  return value;
}

/** Whether the I/O permission bitmap lets `size` ports from `port` on through. */
export function portAllowed(cpu: Cpu, port: number, size: number): boolean {
  const i = cpu.i32;
  const attr = i[TR + SEG_ATTR]!;
  if ((attr & (Attr.Unusable | Attr.Present)) !== Attr.Present) return false;
  if (!tss32(cpu)) return false;
  const limit = i[TR + SEG_LIMIT]! >>> 0;
  if (limit < 103) return false;
  const at = readTss(cpu, 102, 2) + (port >>> 3);
  // Two bytes are read so that ports across a byte boundary are covered.
  if (at + 1 > limit) return false;
  const bits = readTss(cpu, at, 2) >>> (port & 7);
  return (bits & ((1 << size) - 1)) === 0;
}

const NEW = descriptor();
const OLD = descriptor();
const PART = descriptor();

/**
 * Switches to the task of an available (Return: busy) TSS whose descriptor has been read and checked.
 *
 * @param error Error code to push on the new task's stack, or -1.
 */
export function switchTask(
  cpu: Cpu,
  target: Descriptor,
  how: number,
  error: number,
): void {
  const i = cpu.i32;
  Object.assign(NEW, target);
  const wide = (NEW.attr & 8) !== 0;
  const code = selectorError(NEW.selector);
  if ((NEW.limit >>> 0) < (wide ? 103 : 43)) faultCode(cpu, Vector.TS, code);
  const oldSelector = i[TR + SEG_SEL]!;
  const oldWide = tss32(cpu);
  // Touch all that will be accessed, so that page faults come before any change.
  const newSize = wide ? 104 : 44;
  const oldSize = oldWide ? 104 : 44;
  const oldBase = i[TR + SEG_BASE]!;
  for (const at of [0, newSize - 4]) {
    readSystem(cpu, (NEW.baseLow + at) | 0, 0, 4);
  }
  for (const at of [0, oldSize - 4]) {
    writeSystem(cpu, (oldBase + at) | 0, 0, 4);
    commit(cpu);
  }
  const words: number[] = [];
  for (let at = 0; at < newSize; at += wide ? 4 : 2) {
    const from = readSystem(cpu, (NEW.baseLow + at) | 0, 0, wide ? 4 : 2);
    words.push(
      wide ? cpu.dv.getInt32(from, true) : cpu.dv.getUint16(from, true),
    );
  }

  if (how !== TaskSwitch.Call) {
    readDescriptor(cpu, OLD, oldSelector & 0xfff8, Vector.TS);
    clearDescriptor(cpu, OLD, BUSY);
  }
  let flags = readFlags(cpu);
  if (how === TaskSwitch.Return) flags &= ~Flag.NT;
  saveTask(cpu, oldBase, oldWide, flags);
  if (how === TaskSwitch.Call) {
    const at = writeSystem(cpu, NEW.baseLow, 0, 2);
    cpu.dv.setUint16(at, oldSelector, true);
    commit(cpu);
  }
  if (how !== TaskSwitch.Return) orDescriptor(cpu, NEW, BUSY);
  i[CR0] = i[CR0]! | Cr.TS;
  setFromDescriptor(cpu, Seg.TR, NEW.selector, NEW);
  i[TR + SEG_ATTR] = i[TR + SEG_ATTR]! | 2;

  cpu.newTask = true;
  const base = wide ? 8 : 7;
  if (wide && (i[CR0]! & Cr.PG) !== 0) {
    i[CR3] = words[7]!;
    i[CR3 + 1] = 0;
    flushTlb(cpu);
    if ((i[CR4]! & Cr.PAE) !== 0 && !loadPdptes(cpu, words[7]!)) {
      faultCode(cpu, Vector.TS, code);
    }
  }
  i[DR7] = i[DR7]! & ~DR7_LOCAL;
  i[RIP] = words[base]!;
  i[RIP + 1] = 0;
  let newFlags = (words[base + 1]! & TASK_FLAGS) | 2;
  if (how === TaskSwitch.Call) newFlags |= Flag.NT;
  i[EFLAGS] = newFlags;
  setArithmeticFlags(cpu, newFlags);
  for (let r = 0; r < 8; r++) {
    const value = words[base + 2 + r]!;
    // The upper halves that a 16-bit TSS lacks come out as ones, as on the 80386.
    i[GPR + 2 * r] = wide ? value : value | -65536;
    i[GPR + 2 * r + 1] = 0;
  }
  const selectors = words.slice(base + 10, base + (wide ? 17 : 15))
    .map((word) => word & 0xffff);
  loadTaskSegments(cpu, selectors, wide);
  if (error >= 0) push(cpu, error, 0, wide ? 4 : 2);
  if ((i[RIP]! >>> 0) > (i[SEG + Seg.CS * SEG_WORDS + SEG_LIMIT]! >>> 0)) {
    faultCode(cpu, Vector.GP, 0);
  }
  if (wide && (words[25]! & 1) !== 0) {
    i[PENDING_DB] = i[PENDING_DB]! | DR6_BT;
    i[EVENTS] = i[EVENTS]! | Event.Debug;
  }
  cpu.newTask = false;
}

/** DR6.BT: the T flag of the new TSS. */
const DR6_BT = 0x8000;
/** DR7.L0 to L3 and LE, which a task switch clears. */
const DR7_LOCAL = 0x155;

const TASK_FLAGS = Flag.Arithmetic | Flag.TF | Flag.IF | Flag.DF | Flag.IOPL |
  Flag.NT | Flag.RF | Flag.VM | Flag.AC | Flag.VIF | Flag.VIP | Flag.ID;

function saveTask(cpu: Cpu, base: number, wide: boolean, flags: number): void {
  const i = cpu.i32;
  const size = wide ? 4 : 2;
  let offset = wide ? 32 : 14;
  const put = (value: number): void => {
    const at = writeSystem(cpu, (base + offset) | 0, 0, size);
    if (wide) cpu.dv.setInt32(at, value, true);
    else cpu.dv.setInt16(at, value, true);
    commit(cpu);
    offset += size;
  };
  put(i[RIP]!);
  put(flags);
  for (let r = 0; r < 8; r++) put(i[GPR + 2 * r]!);
  for (let seg = 0; seg < (wide ? 6 : 4); seg++) {
    put(i[SEG + seg * SEG_WORDS + SEG_SEL]!);
  }
}

/** Loads LDTR and segment registers of a new task: ES, CS, SS, DS, (FS, GS,) LDT. */
function loadTaskSegments(
  cpu: Cpu,
  selectors: readonly number[],
  wide: boolean,
): void {
  const i = cpu.i32;
  const ldt = selectors[wide ? 6 : 4]!;
  const count = wide ? 6 : 4;
  // The selectors count even if loading their descriptors faults.
  for (let seg = 0; seg < 6; seg++) {
    setNull(cpu, seg, seg < count ? selectors[seg]! : 0);
  }
  const ldtr = SEG + Seg.LDTR * SEG_WORDS;
  i[ldtr + SEG_SEL] = ldt;
  i[ldtr + SEG_ATTR] = Attr.Unusable;
  const v86 = (i[EFLAGS]! & Flag.VM) !== 0;
  const cs = selectors[Seg.CS]!;
  const cpl = v86 ? 3 : cs & 3;
  i[CPL] = cpl;
  updateMode(cpu);
  if ((ldt & 0xfffc) !== 0) {
    if ((ldt & 4) !== 0) faultCode(cpu, Vector.TS, selectorError(ldt));
    readDescriptor(cpu, PART, ldt, Vector.TS);
    if (
      (PART.attr & (Attr.S | Attr.TypeMask)) !== SystemType.Ldt ||
      (PART.attr & Attr.Present) === 0
    ) faultCode(cpu, Vector.TS, selectorError(ldt));
    setFromDescriptor(cpu, Seg.LDTR, ldt, PART);
  }
  if (v86) {
    for (let seg = 0; seg < 6; seg++) {
      setParagraph(cpu, seg, selectors[seg] ?? 0);
    }
    updateMode(cpu);
    return;
  }
  if ((cs & 0xfffc) === 0) faultCode(cpu, Vector.TS, 0);
  readDescriptor(cpu, PART, cs, Vector.TS);
  const conforming = (PART.attr & Attr.Conforming) !== 0;
  if (
    (PART.attr & (Attr.S | Attr.Code)) !== (Attr.S | Attr.Code) ||
    (conforming ? dplOf(PART.attr) > cpl : dplOf(PART.attr) !== cpl)
  ) faultCode(cpu, Vector.TS, selectorError(cs));
  if ((PART.attr & Attr.Present) === 0) {
    faultCode(cpu, Vector.NP, selectorError(cs));
  }
  orDescriptor(cpu, PART, ACCESSED);
  setFromDescriptor(cpu, Seg.CS, cs, PART);
  updateMode(cpu);

  const ss = selectors[Seg.SS]!;
  if ((ss & 0xfffc) === 0) faultCode(cpu, Vector.TS, 0);
  readDescriptor(cpu, PART, ss, Vector.TS);
  if (
    (ss & 3) !== cpl || dplOf(PART.attr) !== cpl ||
    (PART.attr & (Attr.S | Attr.Code | Attr.Writable)) !==
      (Attr.S | Attr.Writable)
  ) faultCode(cpu, Vector.TS, selectorError(ss));
  if ((PART.attr & Attr.Present) === 0) {
    faultCode(cpu, Vector.SS, selectorError(ss));
  }
  orDescriptor(cpu, PART, ACCESSED);
  setFromDescriptor(cpu, Seg.SS, ss, PART);
  for (const seg of [Seg.ES, Seg.DS, Seg.FS, Seg.GS]) {
    const selector = seg < count ? selectors[seg]! : 0;
    if ((selector & 0xfffc) === 0) continue;
    readDescriptor(cpu, PART, selector, Vector.TS);
    const { attr } = PART;
    const isConforming = (attr & (Attr.Code | Attr.Conforming)) ===
      (Attr.Code | Attr.Conforming);
    if (
      (attr & Attr.S) === 0 ||
      (attr & (Attr.Code | Attr.Writable)) === Attr.Code ||
      (!isConforming &&
        (dplOf(attr) < cpl || dplOf(attr) < (selector & 3)))
    ) faultCode(cpu, Vector.TS, selectorError(selector));
    if ((attr & Attr.Present) === 0) {
      faultCode(cpu, Vector.NP, selectorError(selector));
    }
    orDescriptor(cpu, PART, ACCESSED);
    setFromDescriptor(cpu, seg, selector, PART);
  }
  updateMode(cpu);
}
