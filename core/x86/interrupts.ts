/**
 * Delivery of exceptions, software and external interrupts (SDM volume 3A, chapter 6),
 * and what the loop looks at between blocks.
 *
 * @module
 */
import { readSystem } from "./access.ts";
import type { Cpu } from "./cpu.ts";
import { FAULT, faultCode, Vector } from "./fault.ts";
import { readFlags } from "./flags.ts";
import {
  ACTIVITY,
  Activity,
  Attr,
  CPL,
  CR2,
  DR7,
  EFLAGS,
  Event,
  EVENTS,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  Flag,
  HIGH,
  IDTR,
  MODE,
  Mode,
  PENDING_DB,
  RESUME_ACTIVITY,
  RIP,
  SEG,
  Seg,
  SEG_ATTR,
  SEG_BASE,
  SEG_SEL,
  SEG_WORDS,
  SHADOW,
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
  readDescriptor,
  selectorError,
  setCodeSegment,
  setFromDescriptor,
  setNull,
  setParagraph,
  SystemType,
} from "./segments.ts";
import { push, RSP } from "./stack.ts";
import {
  innerStackPointer,
  innerStackSelector,
  longStackPointer,
  switchTask,
  TaskSwitch,
} from "./tasks.ts";
import { restoreState, saveState } from "./transaction.ts";
import { setDebugStatus, watchFetch } from "./watch.ts";

/** Where an event comes from. */
export const Source = {
  /** An exception of the CPU. */
  Exception: 0,
  /** INT n, INT3, INTO: gate's DPL is checked, no EXT bit. */
  Software: 1,
  /** An external interrupt, an NMI or INT1. */
  External: 2,
} as const;

const CS = SEG + Seg.CS * SEG_WORDS;
const SS = SEG + Seg.SS * SEG_WORDS;
const CODE = descriptor();
const STACK = descriptor();
const TASK = descriptor();

/** EFLAGS that every delivery clears. */
const CLEARED = Flag.TF | Flag.NT | Flag.VM | Flag.RF;

/**
 * Delivers an event. RIP is what the handler is to return to.
 *
 * @param error Error code, or -1 for none.
 * @param resume RF in the saved flags: the return must not hit the same breakpoint again.
 */
export function deliver(
  cpu: Cpu,
  vector: number,
  source: number,
  error: number,
  resume: boolean,
): void {
  const i = cpu.i32;
  saveState(cpu);
  try {
    const flags = readFlags(cpu) | (resume ? Flag.RF : 0);
    if ((i[MODE]! & Mode.Protected) === 0) deliverReal(cpu, vector, flags);
    else deliverProtected(cpu, vector, source, error, flags);
    i[SHADOW] = 0;
    if (vector === Vector.DB) i[DR7] = i[DR7]! & ~DR7_GD;
    cpu.trapDone = true;
    updateMode(cpu);
  } catch (thrown) {
    if (thrown !== FAULT) throw thrown;
    // EXT: what went wrong was not the program's doing. #PF has other bits there.
    if (source !== Source.Software && i[FAULT_VECTOR] !== Vector.PF) {
      i[FAULT_ERROR] = i[FAULT_ERROR]! | 1;
    }
    if (!cpu.newTask) restoreState(cpu, CR2);
    throw thrown;
  }
}

function deliverReal(cpu: Cpu, vector: number, flags: number): void {
  const i = cpu.i32;
  if (vector * 4 + 3 > (i[IDTR + 2]! & 0xffff)) {
    faultCode(cpu, Vector.GP, 0);
  }
  const at = readSystem(cpu, (i[IDTR]! + vector * 4) | 0, 0, 4);
  const ip = cpu.dv.getUint16(at, true);
  const cs = cpu.dv.getUint16(at + 2, true);
  push(cpu, flags, 0, 2);
  push(cpu, i[CS + SEG_SEL]!, 0, 2);
  push(cpu, i[RIP]!, 0, 2);
  i[EFLAGS] = i[EFLAGS]! & ~(Flag.IF | Flag.TF | Flag.AC | Flag.RF);
  setParagraph(cpu, Seg.CS, cs);
  i[RIP] = ip;
  i[RIP + 1] = 0;
}

function deliverProtected(
  cpu: Cpu,
  vector: number,
  source: number,
  error: number,
  flags: number,
): void {
  const i = cpu.i32;
  const long = longActive(cpu);
  const gateError = vector * 8 + 2;
  const size = long ? 16 : 8;
  const offset = vector * size;
  if (offset + size - 1 > (i[IDTR + 2]! & 0xffff)) {
    faultCode(cpu, Vector.GP, gateError);
  }
  const base = i[IDTR]!;
  const low = (base + offset) | 0;
  const high = long
    ? (i[IDTR + 1]! + ((low >>> 0) < (base >>> 0) ? 1 : 0)) | 0
    : 0;
  const at = readSystem(cpu, low, high, size);
  const word0 = cpu.dv.getInt32(at, true);
  const word1 = cpu.dv.getInt32(at + 4, true);
  const word2 = long ? cpu.dv.getInt32(at + 8, true) : 0;
  const attr = (word1 >>> 8) & 0xff;
  const type = attr & (Attr.S | Attr.TypeMask);
  const isTask = type === SystemType.TaskGate && !long;
  const isGate = type === SystemType.InterruptGate32 ||
    type === SystemType.TrapGate32 ||
    (!long && (type === SystemType.InterruptGate16 ||
      type === SystemType.TrapGate16));
  if (!isTask && !isGate) faultCode(cpu, Vector.GP, gateError);
  if (source === Source.Software && dplOf(attr) < i[CPL]!) {
    faultCode(cpu, Vector.GP, gateError);
  }
  if ((attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, gateError);
  const selector = word0 >>> 16;
  if (isTask) {
    taskGate(cpu, selector, error);
    return;
  }
  const codeError = selectorError(selector);
  if (codeError === 0) faultCode(cpu, Vector.GP, 0);
  readDescriptor(cpu, CODE, selector, Vector.GP);
  const cpl = i[CPL]!;
  if (
    (CODE.attr & (Attr.S | Attr.Code)) !== (Attr.S | Attr.Code) ||
    dplOf(CODE.attr) > cpl
  ) faultCode(cpu, Vector.GP, codeError);
  if (long && (CODE.attr & (Attr.L | Attr.Db)) !== Attr.L) {
    faultCode(cpu, Vector.GP, codeError);
  }
  if ((CODE.attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, codeError);
  const wide = (type & 8) !== 0;
  const targetLow = (word0 & 0xffff) | (wide ? word1 & -65536 : 0);
  const clearIf = (type & 1) === 0;
  const inner = (CODE.attr & Attr.Conforming) === 0 && dplOf(CODE.attr) < cpl;
  if (long) {
    longGate(cpu, CODE, selector, {
      low: targetLow,
      high: word2,
      ist: word1 & 7,
      inner,
      flags,
      error,
    });
  } else {
    legacyGate(cpu, CODE, selector, {
      low: targetLow,
      size: wide ? 4 : 2,
      inner,
      flags,
      error,
    });
  }
  i[EFLAGS] = i[EFLAGS]! & ~(CLEARED | (clearIf ? Flag.IF : 0));
}

interface LongGate {
  low: number;
  high: number;
  ist: number;
  inner: boolean;
  flags: number;
  error: number;
}

function longGate(
  cpu: Cpu,
  code: Descriptor,
  selector: number,
  gate: LongGate,
): void {
  const i = cpu.i32;
  const oldSs = i[SS + SEG_SEL]!;
  const oldLow = i[RSP]!, oldHigh = i[RSP + 1]!;
  const oldCs = i[CS + SEG_SEL]!;
  const cpl = i[CPL]!;
  const newCpl = gate.inner ? dplOf(code.attr) : cpl;
  let low = oldLow, high = oldHigh;
  if (gate.ist !== 0 || gate.inner) {
    low = longStackPointer(cpu, gate.ist !== 0 ? gate.ist + 3 : newCpl);
    high = i[HIGH]!;
    if (!canonical(high)) faultCode(cpu, Vector.SS, 0);
  }
  if (!canonical(gate.high)) faultCode(cpu, Vector.GP, 0);
  setCodeSegment(cpu, selector, newCpl, code);
  if (gate.inner) {
    setNull(cpu, Seg.SS, newCpl);
    i[SS + SEG_ATTR] = Attr.Unusable | (newCpl << Attr.DplShift);
  }
  // The handler's privilege and 64-bit stack are in force for the pushes.
  i[EFLAGS] = i[EFLAGS]! & ~Flag.VM;
  updateMode(cpu);
  i[RSP] = low & -16;
  i[RSP + 1] = high;
  push(cpu, oldSs, 0, 8);
  push(cpu, oldLow, oldHigh, 8);
  push(cpu, gate.flags, 0, 8);
  push(cpu, oldCs, 0, 8);
  push(cpu, i[RIP]!, i[RIP + 1]!, 8);
  if (gate.error >= 0) push(cpu, gate.error, 0, 8);
  i[RIP] = gate.low;
  i[RIP + 1] = gate.high;
}

interface LegacyGate {
  low: number;
  size: number;
  inner: boolean;
  flags: number;
  error: number;
}

function legacyGate(
  cpu: Cpu,
  code: Descriptor,
  selector: number,
  gate: LegacyGate,
): void {
  const i = cpu.i32;
  const { size } = gate;
  const v86 = (i[MODE]! & Mode.V86) !== 0;
  const oldCs = i[CS + SEG_SEL]!;
  const oldIp = i[RIP]!;
  if (!gate.inner) {
    if (
      v86 || (dplOf(code.attr) !== i[CPL] &&
        (code.attr & Attr.Conforming) === 0)
    ) faultCode(cpu, Vector.GP, selectorError(selector));
    checkEntry(cpu, code, gate.low, 0);
    push(cpu, gate.flags, 0, size);
    push(cpu, oldCs, 0, size);
    push(cpu, oldIp, 0, size);
    if (gate.error >= 0) push(cpu, gate.error, 0, size);
    setCodeSegment(cpu, selector, i[CPL]!, code);
  } else {
    const level = dplOf(code.attr);
    if (v86 && level !== 0) {
      faultCode(cpu, Vector.GP, selectorError(selector));
    }
    const oldSs = i[SS + SEG_SEL]!;
    const oldSp = i[RSP]!;
    checkInnerStack(cpu, STACK, level);
    const sp = innerStackPointer(cpu, level);
    checkEntry(cpu, code, gate.low, 0);
    orDescriptor(cpu, STACK, ACCESSED);
    setCodeSegment(cpu, selector, level, code);
    setFromDescriptor(cpu, Seg.SS, STACK.selector, STACK);
    i[EFLAGS] = i[EFLAGS]! & ~Flag.VM;
    updateMode(cpu);
    i[RSP] = (STACK.attr & Attr.Db) !== 0
      ? sp
      : (i[RSP]! & -65536) | (sp & 0xffff);
    i[RSP + 1] = 0;
    if (v86) {
      for (const seg of [Seg.GS, Seg.FS, Seg.DS, Seg.ES]) {
        push(cpu, i[SEG + seg * SEG_WORDS + SEG_SEL]!, 0, size);
      }
    }
    push(cpu, oldSs, 0, size);
    push(cpu, oldSp, 0, size);
    push(cpu, gate.flags, 0, size);
    push(cpu, oldCs, 0, size);
    push(cpu, oldIp, 0, size);
    if (gate.error >= 0) push(cpu, gate.error, 0, size);
    if (v86) {
      for (const seg of [Seg.GS, Seg.FS, Seg.DS, Seg.ES]) setNull(cpu, seg, 0);
    }
  }
  i[RIP] = gate.low;
  i[RIP + 1] = 0;
}

/** Reads the stack segment of an inner level from the TSS and checks it (#TS, #SS). */
export function checkInnerStack(
  cpu: Cpu,
  stack: Descriptor,
  level: number,
): void {
  const selector = innerStackSelector(cpu, level);
  const error = selectorError(selector);
  if (error === 0) faultCode(cpu, Vector.TS, 0);
  readDescriptor(cpu, stack, selector, Vector.TS);
  if (
    (selector & 3) !== level || dplOf(stack.attr) !== level ||
    (stack.attr & (Attr.S | Attr.Code | Attr.Writable)) !==
      (Attr.S | Attr.Writable)
  ) faultCode(cpu, Vector.TS, error);
  if ((stack.attr & Attr.Present) === 0) faultCode(cpu, Vector.SS, error);
}

function taskGate(cpu: Cpu, selector: number, error: number): void {
  const code = selectorError(selector);
  if ((selector & 4) !== 0) faultCode(cpu, Vector.GP, code);
  readDescriptor(cpu, TASK, selector, Vector.GP);
  const type = TASK.attr & (Attr.S | Attr.TypeMask);
  if (type !== SystemType.Tss32 && type !== SystemType.Tss16) {
    faultCode(cpu, Vector.GP, code);
  }
  if ((TASK.attr & Attr.Present) === 0) faultCode(cpu, Vector.NP, code);
  switchTask(cpu, TASK, TaskSwitch.Call, error);
}

/** What throwing and delivering a fault takes, in instructions. */
const FAULT_COST = 64;

/** Contributory exceptions (SDM volume 3A, table 6-5). */
function contributory(vector: number): boolean {
  return vector === Vector.DE || (vector >= Vector.TS && vector <= Vector.GP);
}

/** Stops the vCPU after a third fault. */
function tripleFault(cpu: Cpu): void {
  cpu.i32[ACTIVITY] = Activity.Shutdown;
  cpu.i32[EVENTS] = cpu.i32[EVENTS]! | Event.Stopped;
}

/**
 * Delivers the exception in the FAULT words; RIP is at the instruction that raised it.
 * Faults on the way become double and triple faults.
 */
export function raise(cpu: Cpu): void {
  const i = cpu.i32;
  cpu.spent += FAULT_COST;
  // The instruction was not completed: what it triggered is triggered again when it is restarted.
  i[PENDING_DB] = 0;
  i[EVENTS] = i[EVENTS]! & ~Event.Debug;
  let previous = -1;
  for (;;) {
    cpu.newTask = false;
    let vector = i[FAULT_VECTOR]!;
    let error = i[FAULT_HAS_ERROR] === 1 ? i[FAULT_ERROR]! : -1;
    if (previous === Vector.DF) return tripleFault(cpu);
    if (
      (contributory(previous) && contributory(vector)) ||
      (previous === Vector.PF &&
        (contributory(vector) || vector === Vector.PF))
    ) {
      vector = Vector.DF;
      error = 0;
    }
    if ((i[MODE]! & Mode.Protected) === 0) error = -1;
    try {
      deliver(cpu, vector, Source.Exception, error, vector !== Vector.DB);
      // A step ends at the handler.
      if (cpu.hostStep) pendSingleStep(cpu);
      return;
    } catch (thrown) {
      if (thrown !== FAULT) throw thrown;
      previous = vector;
    }
  }
}

/** Delivers an event that is not a fault of the current instruction. A step of the host ends at its handler. */
function deliverEvent(cpu: Cpu, vector: number, source: number): void {
  try {
    deliver(cpu, vector, source, -1, false);
    if (cpu.hostStep) stopForHost(cpu, SINGLE_STEP);
  } catch (thrown) {
    if (thrown !== FAULT) throw thrown;
    // External interrupts, NMI and #DB are benign: no double fault.
    raise(cpu);
  }
}

/** Delivers #DB as a trap with the given conditions, or stops for the host. */
function debugTrap(cpu: Cpu, conditions: number): void {
  const i = cpu.i32;
  // With the host's registers in force, none of the conditions but the trap flag is the guest's.
  const host = cpu.hostStep ||
    (cpu.hostDebugRegisters !== undefined && (conditions & 15) !== 0);
  if (host) {
    stopForHost(cpu, conditions);
    return;
  }
  i[PENDING_DB] = 0;
  setDebugStatus(cpu, conditions);
  wake(cpu);
  deliverEvent(cpu, Vector.DB, Source.Exception);
}

/** Leaves the loop with a debug event of the host; `conditions` 0 is a breakpoint instruction. */
export function stopForHost(cpu: Cpu, conditions: number): void {
  const i = cpu.i32;
  i[PENDING_DB] = conditions;
  i[RESUME_ACTIVITY] = i[ACTIVITY]!;
  i[ACTIVITY] = Activity.GuestDebug;
  i[EVENTS] = (i[EVENTS]! | Event.Stopped) & ~Event.Debug;
}

/** DR6.BS. */
const SINGLE_STEP = 0x4000;
/** DR7.GD: every #DB clears it, so that its handler may use the debug registers. */
const DR7_GD = 0x2000;

/**
 * Before the one instruction of a block in single mode: instruction breakpoints, which
 * are faults.
 */
export function beforeSingle(cpu: Cpu): void {
  const i = cpu.i32;
  cpu.trapDone = false;
  if ((i[EFLAGS]! & Flag.RF) !== 0) {
    // It lasts for this instruction; a fault of it sets it again.
    i[EFLAGS] = i[EFLAGS]! & ~Flag.RF;
    return;
  }
  const long = (i[MODE]! & Mode.Long) !== 0;
  const low = long ? i[RIP]! : (i[RIP]! + i[CS + SEG_BASE]!) | 0;
  const hit = watchFetch(cpu, low, long ? i[RIP + 1]! : 0);
  if (hit === 0) return;
  if (cpu.hostDebugRegisters !== undefined) {
    stopForHost(cpu, hit);
    return;
  }
  setDebugStatus(cpu, hit);
  i[FAULT_VECTOR] = Vector.DB;
  i[FAULT_HAS_ERROR] = 0;
  throw FAULT;
}

/** Lets a single-step trap follow the current instruction. */
export function pendSingleStep(cpu: Cpu): void {
  const i = cpu.i32;
  i[PENDING_DB] = i[PENDING_DB]! | SINGLE_STEP;
  i[EVENTS] = i[EVENTS]! | Event.Debug;
}

/**
 * After the one instruction of a block in single mode.
 *
 * @param trap TF was set when it began.
 * @param shadowed An interrupt shadow covered it.
 */
export function afterSingle(
  cpu: Cpu,
  trap: boolean,
  shadowed: boolean,
): void {
  const i = cpu.i32;
  if (shadowed) i[SHADOW] = 0;
  // A shadow made by MOV SS holds #DB back until after the next instruction. INT3 that stopped for
  // the host was not executed.
  const trapped = trap && !cpu.trapDone && i[SHADOW] !== MOV_SS_SHADOW;
  if (i[ACTIVITY] !== Activity.GuestDebug && (trapped || cpu.hostStep)) {
    pendSingleStep(cpu);
  }
  updateMode(cpu);
}

/**
 * Looks at events between blocks, in the order of SDM volume 3A, 6.9.
 *
 * @returns Whether the loop has to be left.
 */
export function takeEvents(cpu: Cpu): boolean {
  const i = cpu.i32;
  i[EVENTS] = i[EVENTS]! & ~Event.LeaveBlock;
  let events = i[EVENTS]!;
  if ((events & Event.Stopped) !== 0 && i[ACTIVITY] !== Activity.Halted) {
    return true;
  }
  if ((events & Event.Debug) !== 0 && i[SHADOW] !== MOV_SS_SHADOW) {
    const conditions = i[PENDING_DB]!;
    i[EVENTS] = events & ~Event.Debug;
    if (conditions !== 0) debugTrap(cpu, conditions);
    events = i[EVENTS]!;
    if ((events & Event.Stopped) !== 0) return true;
  }
  if (i[SHADOW] === 0) {
    if (
      (events & Event.Nmi) !== 0 && (events & Event.NmiBlocked) === 0
    ) {
      wake(cpu);
      i[EVENTS] = (i[EVENTS]! & ~Event.Nmi) | Event.NmiBlocked;
      deliverEvent(cpu, Vector.NMI, Source.External);
    } else if (
      (events & Event.Interrupt) !== 0 && (i[EFLAGS]! & Flag.IF) !== 0 &&
      !(cpu.hostBlocksInterrupts && i[ACTIVITY] !== Activity.Halted)
    ) {
      const vector = cpu.host.acknowledgeInterrupt(cpu.vcpu);
      if (vector >= 0) {
        wake(cpu);
        deliverEvent(cpu, vector & 255, Source.External);
      } else i[EVENTS] = i[EVENTS]! & ~Event.Interrupt;
    }
  }
  events = i[EVENTS]!;
  return (events & (Event.Kick | Event.Stopped)) !== 0;
}

/** Value of the shadow word after MOV SS and POP SS; after STI it is 1. */
export const MOV_SS_SHADOW = 2;

function wake(cpu: Cpu): void {
  const i = cpu.i32;
  if (i[ACTIVITY] !== Activity.Halted) return;
  i[ACTIVITY] = Activity.Running;
  i[EVENTS] = i[EVENTS]! & ~Event.Stopped;
}
