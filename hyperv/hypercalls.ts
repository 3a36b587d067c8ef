/**
 * The hypercall dispatcher: gates, checks in the order of Linux arch/x86/kvm/hyperv.c
 * (kvm_hv_hypercall), and the calls that need no state.
 *
 * @module
 */
import { type CallInput, CallResult } from "./call_input.ts";
import { HvFeature, HvPrivilege, HvRecommend } from "./defs/cpuid.ts";
import { ConnectionId, HvCall, HvInput, HvStatus } from "./defs/hypercall.ts";
import type { Gates } from "./gates.ts";
import {
  flush,
  type ProcessorCallContext,
  sendIpi,
} from "./processor_calls.ts";
import type { SynDbg } from "./syndbg.ts";

/** What hypercalls act on. */
export interface CallContext extends ProcessorCallContext {
  gates: Gates;
  syndbg: SynDbg | undefined;
  /** OPTIONS lets the debug calls through. */
  useHypercalls: () => boolean;
  /** There is a SynIC. */
  synic: boolean;
  /** A processor has nothing to do but wait for others. */
  onSpinWait: ((vcpu: number) => void) | undefined;
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
  const { rep } = call;
  const header = call.variable !== 0;
  switch (call.code) {
    case HvCall.NotifyLongSpinWait:
      if (rep || header) return HvStatus.InvalidHypercallInput;
      context.onSpinWait?.(call.vcpu);
      return HvStatus.Success;
    case HvCall.PostMessage:
      if (rep || header || call.fast || !context.synic) {
        return HvStatus.InvalidHypercallInput;
      }
      // At or above this code kdnet gives VMBus up and takes SynDbg.
      return HvStatus.NotAcknowledged;
    case HvCall.SignalEvent:
      return rep || header
        ? HvStatus.InvalidHypercallInput
        : signalEvent(call, context);
    case HvCall.FlushVaSpace:
      return rep || header
        ? HvStatus.InvalidHypercallInput
        : flush(call, context);
    case HvCall.FlushVaSpaceEx:
      return rep ? HvStatus.InvalidHypercallInput : flush(call, context);
    case HvCall.FlushVaList:
      return call.repCount === 0 || call.repStart !== 0 || header
        ? HvStatus.InvalidHypercallInput
        : flush(call, context);
    case HvCall.FlushVaListEx:
      return call.repCount === 0 || call.repStart !== 0
        ? HvStatus.InvalidHypercallInput
        : flush(call, context);
    case HvCall.SendIpi:
      return rep || header
        ? HvStatus.InvalidHypercallInput
        : sendIpi(call, context);
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

/**
 * HvSignalEvent: nobody has an event port here. The checks come in the order of Linux
 * arch/x86/kvm/hyperv.c (kvm_hvcall_signal_event), which asks for a SynIC last.
 */
function signalEvent(call: CallInput, context: CallContext): number {
  let low = call.firstLow, high = call.firstHigh;
  if (!call.fast) {
    const { memory } = context;
    if (call.first % 8 !== 0 || !memory.contains(call.first, 8)) {
      return HvStatus.InvalidAlignment;
    }
    low = memory.view.getUint32(call.first, true);
    high = memory.view.getUint32(call.first + 4, true);
  }
  const known = (high & ConnectionId.FlagNumberMask) === 0;
  if (known && (high !== 0 || (low & ~ConnectionId.Mask) !== 0)) {
    return HvStatus.InvalidHypercallInput;
  }
  return context.synic
    ? HvStatus.InvalidConnectionId
    : HvStatus.InvalidHypercallInput;
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
