/**
 * Far JMP, CALL, RET and IRET in all modes (SDM volume 3A, chapter 5; volume 2).
 *
 * @module
 */
import { load16, load32, readSystem } from "./access.ts";
import { linearOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { FAULT, faultCode, gp0, Vector } from "./fault.ts";
import { setArithmeticFlags } from "./flags.ts";
import { checkInnerStack } from "./interrupts.ts";
import {
  Attr,
  CPL,
  CR2,
  EA,
  EFLAGS,
  Event,
  EVENTS,
  Flag,
  HIGH,
  MODE,
  Mode,
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
import { canonical } from "./paging.ts";
import {
  ACCESSED,
  checkEntry,
  type Descriptor,
  descriptor,
  dplOf,
  longActive,
  orDescriptor,
  paragraphMode,
  readDescriptor,
  selectorError,
  setCodeSegment,
  setFromDescriptor,
  setNull,
  setParagraph,
  SystemType,
} from "./segments.ts";
import { peek, push, release, RSP, setStackPointer } from "./stack.ts";
import {
  innerStackPointer,
  longStackPointer,
  switchTask,
  TaskSwitch,
} from "./tasks.ts";
import { restoreState, saveState } from "./transaction.ts";
import { debugControl } from "./watch.ts";

const CS = SEG + Seg.CS * SEG_WORDS;
const SS = SEG + Seg.SS * SEG_WORDS;
const CODE = descriptor();
const GATE = descriptor();
const STACK = descriptor();

/** Runs a transfer all or nothing. */
function atomically(cpu: Cpu, transfer: () => void): void {
  saveState(cpu);
  try {
    transfer();
    updateMode(cpu);
  } catch (thrown) {
    if (thrown === FAULT) restoreState(cpu, CR2);
    throw thrown;
  }
}

function setRip(cpu: Cpu, low: number, high: number): void {
  cpu.i32[RIP] = low;
  cpu.i32[RIP + 1] = high;
}

/** Checks a code descriptor for a direct far JMP or CALL. */
function checkDirect(cpu: Cpu, d: Descriptor): void {
  const cpl = cpu.i32[CPL]!;
  const error = selectorError(d.selector);
  const dpl = dplOf(d.attr);
  if ((d.attr & Attr.Conforming) !== 0) {
    if (dpl > cpl) faultCode(cpu, Vector.GP, error);
  } else if ((d.selector & 3) > cpl || dpl !== cpl) {
    faultCode(cpu, Vector.GP, error);
  }
  checkLongBits(cpu, d, error);
  if ((d.attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, error);
}

/** In long mode a code segment cannot be both 64-bit and default 32-bit. */
function checkLongBits(cpu: Cpu, d: Descriptor, error: number): void {
  if (longActive(cpu) && (d.attr & (Attr.L | Attr.Db)) === (Attr.L | Attr.Db)) {
    faultCode(cpu, Vector.GP, error);
  }
}

/** Far JMP (`call` false) or CALL. `size` is the operand size in bytes. */
export function farTransfer(
  cpu: Cpu,
  selector: number,
  low: number,
  high: number,
  size: number,
  call: boolean,
): void {
  const i = cpu.i32;
  if (paragraphMode(cpu)) {
    const target = size === 2 ? low & 0xffff : low;
    if ((target >>> 0) > (i[CS + SEG_LIMIT]! >>> 0)) gp0(cpu);
    atomically(cpu, () => {
      if (call) {
        push(cpu, i[CS + SEG_SEL]!, 0, size);
        push(cpu, i[RIP]!, 0, size);
      }
      setParagraph(cpu, Seg.CS, selector);
      setRip(cpu, target, 0);
    });
    return;
  }
  if ((selector & 0xfffc) === 0) gp0(cpu);
  readDescriptor(cpu, GATE, selector, Vector.GP);
  if ((GATE.attr & Attr.S) !== 0) {
    if ((GATE.attr & Attr.Code) === 0) {
      faultCode(cpu, Vector.GP, selectorError(selector));
    }
    Object.assign(CODE, GATE);
    checkDirect(cpu, CODE);
    const target = size === 2 ? low & 0xffff : low;
    const targetHigh = size === 8 ? high : 0;
    checkEntry(cpu, CODE, target, targetHigh);
    atomically(cpu, () => {
      const cs = i[CS + SEG_SEL]!;
      if (call) {
        push(cpu, cs, 0, size);
        push(cpu, i[RIP]!, i[RIP + 1]!, size);
      }
      setCodeSegment(cpu, selector, i[CPL]!, CODE);
      setRip(cpu, target, targetHigh);
    });
    return;
  }
  throughGate(cpu, selector, call);
}

function throughGate(cpu: Cpu, selector: number, call: boolean): void {
  const error = selectorError(selector);
  const cpl = cpu.i32[CPL]!;
  const long = longActive(cpu);
  const type = GATE.attr & Attr.TypeMask;
  const known = type === SystemType.CallGate32 ||
    (!long && (type === SystemType.CallGate16 ||
      type === SystemType.TaskGate || type === SystemType.Tss16 ||
      type === SystemType.Tss32));
  if (!known) faultCode(cpu, Vector.GP, error);
  const dpl = dplOf(GATE.attr);
  if (dpl < cpl || dpl < (selector & 3)) faultCode(cpu, Vector.GP, error);
  if ((GATE.attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, error);
  const how = call ? TaskSwitch.Call : TaskSwitch.Jump;
  if (type === SystemType.Tss16 || type === SystemType.Tss32) {
    switchTask(cpu, GATE, how, -1);
    return;
  }
  const target = GATE.low >>> 16;
  if (type === SystemType.TaskGate) {
    const code = selectorError(target);
    if ((target & 4) !== 0) faultCode(cpu, Vector.GP, code);
    readDescriptor(cpu, CODE, target, Vector.GP);
    const kind = CODE.attr & (Attr.S | Attr.TypeMask);
    if (kind !== SystemType.Tss16 && kind !== SystemType.Tss32) {
      faultCode(cpu, Vector.GP, code);
    }
    if ((CODE.attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, code);
    switchTask(cpu, CODE, how, -1);
    return;
  }
  if (long) readDescriptor(cpu, GATE, selector, Vector.GP, true);
  callGate(cpu, target, call, type === SystemType.CallGate32, long);
}

function callGate(
  cpu: Cpu,
  selector: number,
  call: boolean,
  wide: boolean,
  long: boolean,
): void {
  const i = cpu.i32;
  const cpl = i[CPL]!;
  const error = selectorError(selector);
  const low = (GATE.low & 0xffff) | (wide ? GATE.high & -65536 : 0);
  const high = GATE.upper;
  const parameters = GATE.high & 31;
  const size = long ? 8 : wide ? 4 : 2;
  if (error === 0) gp0(cpu);
  readDescriptor(cpu, CODE, selector, Vector.GP);
  const { attr } = CODE;
  const dpl = dplOf(attr);
  const conforming = (attr & Attr.Conforming) !== 0;
  if (
    (attr & (Attr.S | Attr.Code)) !== (Attr.S | Attr.Code) || dpl > cpl ||
    (!call && !conforming && dpl !== cpl)
  ) faultCode(cpu, Vector.GP, error);
  if (long && (attr & (Attr.L | Attr.Db)) !== Attr.L) {
    faultCode(cpu, Vector.GP, error);
  }
  if ((attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, error);
  const inner = call && !conforming && dpl < cpl;
  if (!inner) {
    checkEntry(cpu, CODE, low, high);
    atomically(cpu, () => {
      const cs = i[CS + SEG_SEL]!;
      if (call) {
        push(cpu, cs, 0, size);
        push(cpu, i[RIP]!, i[RIP + 1]!, size);
      }
      setCodeSegment(cpu, selector, cpl, CODE);
      setRip(cpu, low, high);
    });
    return;
  }
  atomically(cpu, () => {
    const oldCs = i[CS + SEG_SEL]!, oldSs = i[SS + SEG_SEL]!;
    const oldLow = i[RSP]!, oldHigh = i[RSP + 1]!;
    if (long) {
      const sp = longStackPointer(cpu, dpl);
      const spHigh = i[HIGH]!;
      if (!canonical(spHigh)) faultCode(cpu, Vector.SS, 0);
      checkEntry(cpu, CODE, low, high);
      setCodeSegment(cpu, selector, dpl, CODE);
      setNull(cpu, Seg.SS, dpl);
      i[SS + SEG_ATTR] = Attr.Unusable | (dpl << Attr.DplShift);
      updateMode(cpu);
      i[RSP] = sp;
      i[RSP + 1] = spHigh;
      push(cpu, oldSs, 0, 8);
      push(cpu, oldLow, oldHigh, 8);
    } else {
      checkInnerStack(cpu, STACK, dpl);
      const sp = innerStackPointer(cpu, dpl);
      checkEntry(cpu, CODE, low, 0);
      const words: number[] = [];
      for (let n = parameters - 1; n >= 0; n--) {
        words.push(peek(cpu, n * size, size));
      }
      orDescriptor(cpu, STACK, ACCESSED);
      setCodeSegment(cpu, selector, dpl, CODE);
      setFromDescriptor(cpu, Seg.SS, STACK.selector, STACK);
      updateMode(cpu);
      setStackPointer(cpu, sp, 0);
      push(cpu, oldSs, 0, size);
      push(cpu, oldLow, 0, size);
      for (const word of words) push(cpu, word, 0, size);
    }
    push(cpu, oldCs, 0, size);
    push(cpu, i[RIP]!, i[RIP + 1]!, size);
    setRip(cpu, low, high);
  });
}

/** RETF of `size` bytes that releases `extra` more. */
export function farReturn(cpu: Cpu, size: number, extra: number): void {
  const i = cpu.i32;
  const low = peek(cpu, 0, size);
  const high = i[HIGH]!;
  const selector = peek(cpu, size, size) & 0xffff;
  if (paragraphMode(cpu)) {
    if ((low >>> 0) > (i[CS + SEG_LIMIT]! >>> 0)) gp0(cpu);
    release(cpu, 2 * size + extra);
    setParagraph(cpu, Seg.CS, selector);
    setRip(cpu, low, 0);
    updateMode(cpu);
    return;
  }
  returnTo(cpu, selector, low, high, size, 2 * size, extra, undefined);
}

/**
 * Checks CS for a return and goes back to it, to an outer level too. The words on the stack are
 * RIP, CS, (flags,) RSP, SS; `above` bytes of them are in front of RSP.
 */
function returnTo(
  cpu: Cpu,
  selector: number,
  low: number,
  high: number,
  size: number,
  above: number,
  extra: number,
  applyFlags: ((cpl: number) => void) | undefined,
): void {
  const i = cpu.i32;
  const cpl = i[CPL]!;
  const rpl = selector & 3;
  const error = selectorError(selector);
  if (error === 0) gp0(cpu);
  readDescriptor(cpu, CODE, selector, Vector.GP);
  const { attr } = CODE;
  const dpl = dplOf(attr);
  if (
    (attr & (Attr.S | Attr.Code)) !== (Attr.S | Attr.Code) || rpl < cpl ||
    ((attr & Attr.Conforming) !== 0 ? dpl > rpl : dpl !== rpl)
  ) faultCode(cpu, Vector.GP, error);
  checkLongBits(cpu, CODE, error);
  if ((attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, error);
  const long = (i[MODE]! & Mode.Long) !== 0;
  const iret = applyFlags !== undefined;
  if (rpl === cpl && !(iret && long)) {
    checkEntry(cpu, CODE, low, high);
    atomically(cpu, () => {
      release(cpu, above + extra);
      setCodeSegment(cpu, selector, rpl, CODE);
      setRip(cpu, low, high);
      applyFlags?.(cpl);
    });
    return;
  }
  const spLow = peek(cpu, above + extra, size);
  const spHigh = i[HIGH]!;
  const ss = peek(cpu, above + extra + size, size) & 0xffff;
  const stackError = selectorError(ss);
  let nullStack = false;
  if (stackError === 0) {
    // Allowed to 64-bit code below CPL 3 (SDM volume 2A, IRET).
    if (
      !longActive(cpu) || (CODE.attr & Attr.L) === 0 || rpl === 3 ||
      (ss & 3) !== rpl
    ) gp0(cpu);
    nullStack = true;
  } else {
    readDescriptor(cpu, STACK, ss, Vector.GP);
    if (
      (ss & 3) !== rpl || dplOf(STACK.attr) !== rpl ||
      (STACK.attr & (Attr.S | Attr.Code | Attr.Writable)) !==
        (Attr.S | Attr.Writable)
    ) faultCode(cpu, Vector.GP, stackError);
    if ((STACK.attr & Attr.Present) === 0) {
      faultCode(cpu, Vector.SS, stackError);
    }
  }
  checkEntry(cpu, CODE, low, high);
  atomically(cpu, () => {
    setCodeSegment(cpu, selector, rpl, CODE);
    if (nullStack) {
      setNull(cpu, Seg.SS, ss);
      i[SS + SEG_ATTR] = Attr.Unusable | (rpl << Attr.DplShift);
    } else {
      orDescriptor(cpu, STACK, ACCESSED);
      setFromDescriptor(cpu, Seg.SS, ss, STACK);
    }
    setRip(cpu, low, high);
    applyFlags?.(cpl);
    updateMode(cpu);
    if (size === 8 || (i[MODE]! & Mode.Long) !== 0) {
      i[RSP] = (spLow + (iret ? 0 : extra)) | 0;
      i[RSP + 1] = spHigh;
    } else setStackPointer(cpu, (spLow + extra) | 0, 0);
    if (rpl > cpl) dropInner(cpu, rpl);
  });
}

/** Makes data segments null that the outer level may not have. */
function dropInner(cpu: Cpu, cpl: number): void {
  const i = cpu.i32;
  for (const seg of [Seg.ES, Seg.DS, Seg.FS, Seg.GS]) {
    const at = SEG + seg * SEG_WORDS;
    const attr = i[at + SEG_ATTR]!;
    if ((attr & Attr.Unusable) !== 0) continue;
    const conforming = (attr & (Attr.Code | Attr.Conforming)) ===
      (Attr.Code | Attr.Conforming);
    if (conforming || dplOf(attr) >= cpl) continue;
    // The base stays: 64-bit code has FS and GS set by MSR.
    i[at + SEG_SEL] = 0;
    i[at + SEG_ATTR] = Attr.Unusable;
  }
}

/** Flags that IRET and POPF bring back at all. */
const POPPED = Flag.Arithmetic | Flag.TF | Flag.DF | Flag.NT | Flag.RF |
  Flag.AC | Flag.ID;

/** Sets EFLAGS from a popped image as a return at privilege `cpl` may. */
export function popFlags(
  cpu: Cpu,
  image: number,
  size: number,
  cpl: number,
): void {
  const i = cpu.i32;
  let mask = POPPED;
  if (cpl === 0) mask |= Flag.IOPL | Flag.VIF | Flag.VIP;
  if (cpl <= ((i[EFLAGS]! >>> 12) & 3)) mask |= Flag.IF;
  if (size === 2) mask &= 0xffff;
  let flags = (i[EFLAGS]! & ~mask) | (image & mask);
  // RF lasts for one instruction and matters to instruction breakpoints only.
  if ((debugControl(cpu) & 0xff) === 0) flags &= ~Flag.RF;
  i[EFLAGS] = flags | 2;
  if ((mask & Flag.Arithmetic) !== 0) setArithmeticFlags(cpu, image);
}

/** Bytes on the stack of an IRET to V86: nine dwords. */
const V86_FRAME = 36;
const TASK = descriptor();

/** IRET, IRETD, IRETQ. */
export function interruptReturn(cpu: Cpu, size: number): void {
  const i = cpu.i32;
  const unblockNmi = (): void => {
    i[EVENTS] = i[EVENTS]! & ~Event.NmiBlocked;
  };
  const mode = i[MODE]!;
  if ((mode & Mode.Protected) === 0) {
    const low = peek(cpu, 0, size);
    const cs = peek(cpu, size, size) & 0xffff;
    const flags = peek(cpu, 2 * size, size);
    if ((low >>> 0) > (i[CS + SEG_LIMIT]! >>> 0)) gp0(cpu);
    release(cpu, 3 * size);
    setParagraph(cpu, Seg.CS, cs);
    setRip(cpu, low, 0);
    popFlags(cpu, flags, size, 0);
    updateMode(cpu);
    unblockNmi();
    return;
  }
  if ((mode & Mode.V86) !== 0) {
    if (((i[EFLAGS]! >>> 12) & 3) < 3) gp0(cpu);
    const low = peek(cpu, 0, size);
    const cs = peek(cpu, size, size) & 0xffff;
    const flags = peek(cpu, 2 * size, size);
    if ((low >>> 0) > 0xffff) gp0(cpu);
    release(cpu, 3 * size);
    setParagraph(cpu, Seg.CS, cs);
    setRip(cpu, low, 0);
    popFlags(cpu, flags, size, 3);
    updateMode(cpu);
    unblockNmi();
    return;
  }
  if ((i[EFLAGS]! & Flag.NT) !== 0) {
    if (longActive(cpu)) gp0(cpu);
    const tr = SEG + Seg.TR * SEG_WORDS;
    const link = cpu.dv.getUint16(
      readSystem(cpu, i[tr + SEG_BASE]!, 0, 2),
      true,
    );
    const error = selectorError(link);
    if ((link & 4) !== 0) faultCode(cpu, Vector.TS, error);
    readDescriptor(cpu, TASK, link, Vector.TS);
    const type = TASK.attr & (Attr.S | Attr.TypeMask);
    if (type !== SystemType.Tss16Busy && type !== SystemType.Tss32Busy) {
      faultCode(cpu, Vector.TS, error);
    }
    if ((TASK.attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, error);
    switchTask(cpu, TASK, TaskSwitch.Return, -1);
    unblockNmi();
    return;
  }
  const low = peek(cpu, 0, size);
  const high = i[HIGH]!;
  const selector = peek(cpu, size, size) & 0xffff;
  const flags = peek(cpu, 2 * size, size);
  if (
    size === 4 && (flags & Flag.VM) !== 0 && i[CPL] === 0 && !longActive(cpu)
  ) {
    returnToV86(cpu, low, selector, flags);
    unblockNmi();
    return;
  }
  returnTo(cpu, selector, low, high, size, 3 * size, 0, (cpl) => {
    popFlags(cpu, flags, size, cpl);
  });
  unblockNmi();
}

function returnToV86(
  cpu: Cpu,
  low: number,
  selector: number,
  flags: number,
): void {
  const i = cpu.i32;
  const words: number[] = [];
  for (let at = 12; at < V86_FRAME; at += 4) words.push(peek(cpu, at, 4));
  if ((low >>> 0) > 0xffff) gp0(cpu);
  i[EFLAGS] = (flags & (POPPED | Flag.IF | Flag.IOPL | Flag.VM | Flag.VIF |
    Flag.VIP)) | 2;
  setArithmeticFlags(cpu, flags);
  i[CPL] = 3;
  updateMode(cpu);
  setParagraph(cpu, Seg.CS, selector);
  setParagraph(cpu, Seg.SS, words[1]! & 0xffff);
  setParagraph(cpu, Seg.ES, words[2]! & 0xffff);
  setParagraph(cpu, Seg.DS, words[3]! & 0xffff);
  setParagraph(cpu, Seg.FS, words[4]! & 0xffff);
  setParagraph(cpu, Seg.GS, words[5]! & 0xffff);
  i[RSP] = words[0]!;
  i[RSP + 1] = 0;
  setRip(cpu, low, 0);
  updateMode(cpu);
}

/** The far pointer that a memory operand names: an offset of 2 or 4 bytes, and the selector behind it. */
export function loadFarPointer(
  cpu: Cpu,
  pc: number,
  size: number,
): { low: number; selector: number } {
  const i = cpu.i32;
  linearOf(cpu, pc, size, false);
  const low = size === 4
    ? load32(cpu, i[EA]!, i[EA + 1]!)
    : load16(cpu, i[EA]!, i[EA + 1]!);
  linearOf(cpu, pc, 2, false, size);
  return { low, selector: load16(cpu, i[EA]!, i[EA + 1]!) };
}
