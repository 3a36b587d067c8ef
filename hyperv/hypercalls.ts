/**
 * The hypercall dispatcher: gates, checks in the order of Linux arch/x86/kvm/hyperv.c
 * (kvm_hv_hypercall), and the calls that need no state.
 *
 * @module
 */
import type { GuestMemory } from "../core/guest_memory.ts";
import { HvFeature, HvPrivilege, HvRecommend } from "./defs/cpuid.ts";
import { HvCall, HvInput, HvStatus } from "./defs/hypercall.ts";
import type { Gates } from "./gates.ts";
import type { SynDbg } from "./syndbg.ts";

/** A hypercall taken apart. One object is reused. */
export interface CallInput {
  code: number;
  fast: boolean;
  variable: number;
  repCount: number;
  repStart: number;
  low: number;
  high: number;
  /** Input list's GPA, or the first parameter of a fast call: a number and its words. */
  first: number;
  firstLow: number;
  firstHigh: number;
  /** Output list's GPA, or the second parameter of a fast call. */
  second: number;
  secondLow: number;
  secondHigh: number;
  vcpu: number;
  /** A kernel passed the call on: it has looked at OPTIONS, and the call must end now. */
  forwarded: boolean;
}

/** What hypercalls act on. */
export interface CallContext {
  memory: GuestMemory;
  gates: Gates;
  syndbg: SynDbg | undefined;
  /** OPTIONS lets the debug calls through. */
  useHypercalls: () => boolean;
  /** There is a SynIC. */
  synic: () => boolean;
  /** An inter-processor interrupt is asked for: a vector and the processors as bits, or all. */
  onIpi: ((vector: number, processors: bigint | "all") => void) | undefined;
  /** Remote TLB flushes are asked for. */
  onTlbFlush: (() => void) | undefined;
}

/** Results beside status codes. */
export const CallResult = {
  /** The guest gets #UD. */
  InvalidOpcode: -1,
  /** The guest executes the call again. */
  Retry: -2,
} as const;

/** Takes the input value and parameters apart. */
export function decodeCall(
  call: CallInput,
  vcpu: number,
  low: number,
  high: number,
  firstLow: number,
  firstHigh: number,
  secondLow: number,
  secondHigh: number,
): void {
  call.vcpu = vcpu;
  call.low = low;
  call.high = high;
  call.code = low & HvInput.CodeMask;
  call.fast = (low & HvInput.Fast) !== 0;
  call.variable = (low >>> HvInput.VariableShift) & HvInput.VariableMask;
  call.repCount = high & HvInput.RepCountMask;
  call.repStart = (high >>> HvInput.RepStartShift) & HvInput.RepCountMask;
  call.firstLow = firstLow >>> 0;
  call.firstHigh = firstHigh >>> 0;
  call.first = (firstHigh >>> 0) * 0x1_0000_0000 + (firstLow >>> 0);
  call.secondLow = secondLow >>> 0;
  call.secondHigh = secondHigh >>> 0;
  call.second = (secondHigh >>> 0) * 0x1_0000_0000 + (secondLow >>> 0);
}

/** A fresh {@linkcode CallInput}. */
export function callInput(): CallInput {
  return {
    code: 0,
    fast: false,
    variable: 0,
    repCount: 0,
    repStart: 0,
    low: 0,
    high: 0,
    first: 0,
    firstLow: 0,
    firstHigh: 0,
    second: 0,
    secondLow: 0,
    secondHigh: 0,
    vcpu: 0,
    forwarded: false,
  };
}

function isDebug(code: number): boolean {
  return code >= HvCall.PostDebugData && code <= HvCall.ResetDebugSession;
}

function isExtended(code: number): boolean {
  return code >= HvCall.ExtQueryCapabilities && code <= HvCall.ExtEnd;
}

/** Whether the guest's CPUID gives the right to a call. */
function permitted(call: CallInput, gates: Gates): boolean {
  const { privileges, recommendations } = gates;
  switch (call.code) {
    case HvCall.NotifyLongSpinWait:
      return gates.spinNotify;
    case HvCall.PostMessage:
      return (privileges & HvPrivilege.PostMessages) !== 0;
    case HvCall.SignalEvent:
      return (privileges & HvPrivilege.SignalEvents) !== 0;
    case HvCall.PostDebugData:
    case HvCall.RetrieveDebugData:
    case HvCall.ResetDebugSession:
      // Without a debug device the code does not exist, which is told further on.
      return !gates.syndbg || (privileges & HvPrivilege.Debugging) !== 0;
    case HvCall.FlushVaSpaceEx:
    case HvCall.FlushVaListEx:
      return (recommendations & HvRecommend.ExProcessorMasks) !== 0 &&
        (recommendations & HvRecommend.RemoteTlbFlush) !== 0;
    case HvCall.FlushVaSpace:
    case HvCall.FlushVaList:
      return (recommendations & HvRecommend.RemoteTlbFlush) !== 0;
    case HvCall.SendIpiEx:
      return (recommendations & HvRecommend.ExProcessorMasks) !== 0 &&
        (recommendations & HvRecommend.ClusterIpi) !== 0;
    case HvCall.SendIpi:
      return (recommendations & HvRecommend.ClusterIpi) !== 0;
    default:
      return !isExtended(call.code) ||
        (privileges & HvPrivilege.ExtendedHypercalls) !== 0;
  }
}

/** Calls whose fast form may use XMM registers. */
function usesXmm(code: number): boolean {
  return (code >= HvCall.FlushVaSpace && code <= HvCall.FlushVaList) ||
    (code >= HvCall.FlushVaSpaceEx && code <= HvCall.SendIpiEx);
}

/**
 * Carries out a call of a kernel in protected mode: a status code, or a value of
 * {@linkcode CallResult}. A call with reps that succeeds has done them all.
 */
export function dispatchCall(call: CallInput, context: CallContext): number {
  const { gates } = context;
  if (!permitted(call, gates)) return HvStatus.AccessDenied;
  if (
    (call.low & HvInput.ReservedLow) !== 0 ||
    (call.high & HvInput.ReservedHigh) !== 0
  ) return HvStatus.InvalidHypercallInput;
  if (
    call.fast && usesXmm(call.code) &&
    (gates.features & HvFeature.XmmInput) === 0
  ) return CallResult.InvalidOpcode;
  if (isDebug(call.code)) return debugCall(call, context);
  const rep = call.repCount !== 0 || call.repStart !== 0;
  switch (call.code) {
    case HvCall.NotifyLongSpinWait:
      return rep || call.variable !== 0
        ? HvStatus.InvalidHypercallInput
        : HvStatus.Success;
    case HvCall.PostMessage:
      if (rep || call.variable !== 0 || call.fast || !context.synic()) {
        return HvStatus.InvalidHypercallInput;
      }
      // At or above this code kdnet gives VMBus up and takes SynDbg.
      return HvStatus.NotAcknowledged;
    case HvCall.SignalEvent:
      if (rep || call.variable !== 0 || !context.synic()) {
        return HvStatus.InvalidHypercallInput;
      }
      return HvStatus.InvalidConnectionId;
    case HvCall.FlushVaSpace:
    case HvCall.FlushVaSpaceEx:
      return rep ? HvStatus.InvalidHypercallInput : flush(call, context);
    case HvCall.FlushVaList:
    case HvCall.FlushVaListEx:
      return call.repCount === 0 || call.repStart !== 0
        ? HvStatus.InvalidHypercallInput
        : flush(call, context);
    case HvCall.SendIpi:
    case HvCall.SendIpiEx:
      return rep ? HvStatus.InvalidHypercallInput : sendIpi(call, context);
    case HvCall.ExtQueryCapabilities:
      return extendedCapabilities(call, context);
    default:
      return call.fast && isExtended(call.code)
        ? HvStatus.InvalidParameter
        : HvStatus.InvalidHypercallCode;
  }
}

function debugCall(call: CallInput, context: CallContext): number {
  const { syndbg, gates } = context;
  if (call.fast && call.code !== HvCall.ResetDebugSession) {
    return HvStatus.InvalidParameter;
  }
  if (!gates.syndbg || syndbg === undefined) {
    return HvStatus.InvalidHypercallCode;
  }
  if (!call.forwarded && !context.useHypercalls()) {
    return HvStatus.OperationDenied;
  }
  switch (call.code) {
    case HvCall.PostDebugData:
      return syndbg.post(call.first, call.second);
    case HvCall.RetrieveDebugData: {
      const status = syndbg.retrieve(
        call.vcpu,
        call.first,
        call.second,
        !call.forwarded,
      );
      return status < 0 ? CallResult.Retry : status;
    }
    default:
      return call.fast
        ? syndbg.resetSession(call.firstLow, call.second)
        : syndbg.resetSessionSlow(call.first, call.second);
  }
}

const SPARSE_BANKS = 0;

function countBits(value: bigint): number {
  let count = 0;
  for (let rest = value; rest !== 0n; rest &= rest - 1n) count++;
  return count;
}

/**
 * The four flush calls (TLFS 9.4): every processor's TLB is flushed whole, which is allowed to
 * do more than was asked for. Of fast calls only what is in general registers is looked at.
 */
function flush(call: CallInput, context: CallContext): number {
  const { memory } = context;
  const extended = call.code >= HvCall.FlushVaSpaceEx;
  if (!extended && call.variable !== 0) return HvStatus.InvalidHypercallInput;
  if (!call.fast) {
    // Address space, flags, and a mask of processors or the head of a set.
    const head = extended ? 32 : 24;
    if (!memory.contains(call.first, head)) {
      return HvStatus.InvalidHypercallInput;
    }
    const listed = 8 * call.repCount;
    if (extended) {
      const format = memory.view.getBigUint64(call.first + 16, true);
      const valid = memory.view.getBigUint64(call.first + 24, true);
      if (call.variable !== countBits(valid)) {
        return HvStatus.InvalidHypercallInput;
      }
      // The empty set.
      if (format === BigInt(SPARSE_BANKS) && call.variable === 0) {
        return HvStatus.Success;
      }
    }
    if (!memory.contains(call.first, head + 8 * call.variable + listed)) {
      return HvStatus.InvalidHypercallInput;
    }
  }
  context.onTlbFlush?.();
  return HvStatus.Success;
}

const VECTOR_MIN = 16;
const SPARSE_ALL = 1;

/** HvCallSendSyntheticClusterIpi and its form with processor sets (TLFS 10.5). */
function sendIpi(call: CallInput, context: CallContext): number {
  const { memory } = context;
  const extended = call.code === HvCall.SendIpiEx;
  let vector: number;
  let processors: bigint | "all";
  if (!extended) {
    if (call.variable !== 0) return HvStatus.InvalidHypercallInput;
    if (call.fast) {
      if (call.firstHigh !== 0) return HvStatus.InvalidHypercallInput;
      vector = call.firstLow;
      processors = BigInt(call.secondHigh) << 32n | BigInt(call.secondLow);
    } else {
      if (!memory.contains(call.first, 16)) {
        return HvStatus.InvalidHypercallInput;
      }
      vector = memory.view.getUint32(call.first, true);
      processors = memory.view.getBigUint64(call.first + 8, true);
    }
    if (vector < VECTOR_MIN || vector > 255) {
      return HvStatus.InvalidHypercallInput;
    }
  } else {
    if (call.fast || !memory.contains(call.first, 24)) {
      return HvStatus.InvalidHypercallInput;
    }
    vector = memory.view.getUint32(call.first, true);
    const format = memory.view.getBigUint64(call.first + 8, true);
    const valid = memory.view.getBigUint64(call.first + 16, true);
    if (call.variable !== countBits(valid)) {
      return HvStatus.InvalidHypercallInput;
    }
    if (format === BigInt(SPARSE_ALL)) processors = "all";
    else {
      // Only the first bank of 64 processors can exist here.
      const bank = (valid & 1n) !== 0n && memory.contains(call.first + 24, 8);
      processors = bank ? memory.view.getBigUint64(call.first + 24, true) : 0n;
      // KVM says success to an empty set whatever the vector.
      if (processors === 0n) return HvStatus.Success;
    }
    if (vector < VECTOR_MIN || vector > 255) {
      return HvStatus.InvalidHypercallInput;
    }
  }
  context.onIpi?.(vector, processors);
  return HvStatus.Success;
}

/** HvExtCallQueryCapabilities (TLFS 3.14): none. */
function extendedCapabilities(call: CallInput, context: CallContext): number {
  if (call.fast) return HvStatus.InvalidParameter;
  if (call.second % 8 !== 0) return HvStatus.InvalidAlignment;
  if (!context.memory.contains(call.second, 8)) {
    return HvStatus.InvalidParameter;
  }
  context.memory.writeU64(call.second, 0n);
  return HvStatus.Success;
}
