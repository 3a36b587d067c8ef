/** One trace point. Numbers are unsigned; 64-bit data is two words. */
export interface TraceEvent {
  /** Name of the kernel's trace point (Linux arch/x86/kvm/trace.h). */
  name:
    | "kvm_hv_syndbg_get_msr"
    | "kvm_hv_syndbg_set_msr"
    | "kvm_hv_hypercall"
    | "kvm_hv_hypercall_done";
  /** Number of the vCPU. */
  vcpu: number;
  /** Its VP index. */
  vpIndex: number;
  /** MSR number, of the MSR points. */
  msr: number;
  /** Low word of the MSR data or the call result. */
  low: number;
  /** High word of it. */
  high: number;
  /** The access raised #GP or the call #UD. */
  fault: boolean;
  /** Call code, of a hypercall. */
  code: number;
  /** Parameters are in registers. */
  fast: boolean;
  /** Size of the variable header in 8-byte words. */
  varCount: number;
  /** Elements of a rep call. */
  repCount: number;
  /** First element to process. */
  repIndex: number;
  /** GPAs, or values of a fast call, as two words. */
  inLow: number;
  /** High word of it. */
  inHigh: number;
  /** Second parameter, low word. */
  outLow: number;
  /** High word of it. */
  outHigh: number;
}

/** Receives trace points. The object is reused: copy what is to be kept. */
export type TraceSink = (event: Readonly<TraceEvent>) => void;

/** An event with all fields 0. */
export function traceEvent(): TraceEvent {
  return {
    name: "kvm_hv_syndbg_get_msr",
    vcpu: 0,
    vpIndex: 0,
    msr: 0,
    low: 0,
    high: 0,
    fault: false,
    code: 0,
    fast: false,
    varCount: 0,
    repCount: 0,
    repIndex: 0,
    inLow: 0,
    inHigh: 0,
    outLow: 0,
    outHigh: 0,
  };
}

function hex(low: number, high = 0): string {
  return (BigInt(high >>> 0) << 32n | BigInt(low >>> 0)).toString(16);
}

/** An event as the kernel's trace prints it, with `#GP` or `#UD` behind what faulted. */
export function formatTrace(event: Readonly<TraceEvent>): string {
  switch (event.name) {
    case "kvm_hv_syndbg_get_msr":
    case "kvm_hv_syndbg_set_msr":
      return `${event.name}: vcpu_id ${event.vcpu} vp_index ${event.vpIndex} ` +
        `msr 0x${hex(event.msr)} data 0x${hex(event.low, event.high)}` +
        (event.fault ? " #GP" : "");
    case "kvm_hv_hypercall":
      return `${event.name}: code 0x${hex(event.code)} ` +
        `${event.fast ? "fast" : "slow"} var_cnt 0x${hex(event.varCount)} ` +
        `rep_cnt 0x${hex(event.repCount)} idx 0x${hex(event.repIndex)} ` +
        `in 0x${hex(event.inLow, event.inHigh)} ` +
        `out 0x${hex(event.outLow, event.outHigh)}`;
    default:
      return `${event.name}: result 0x${hex(event.low, event.high)}` +
        (event.fault ? " #UD" : "");
  }
}

/** An event as one line of JSON; 64-bit values are hexadecimal text. */
export function traceJson(event: Readonly<TraceEvent>): string {
  switch (event.name) {
    case "kvm_hv_syndbg_get_msr":
    case "kvm_hv_syndbg_set_msr":
      return JSON.stringify({
        event: event.name,
        vcpu_id: event.vcpu,
        vp_index: event.vpIndex,
        msr: `0x${hex(event.msr)}`,
        data: `0x${hex(event.low, event.high)}`,
        fault: event.fault,
      });
    case "kvm_hv_hypercall":
      return JSON.stringify({
        event: event.name,
        vcpu_id: event.vcpu,
        code: event.code,
        fast: event.fast,
        var_cnt: event.varCount,
        rep_cnt: event.repCount,
        idx: event.repIndex,
        in: `0x${hex(event.inLow, event.inHigh)}`,
        out: `0x${hex(event.outLow, event.outHigh)}`,
      });
    default:
      return JSON.stringify({
        event: event.name,
        vcpu_id: event.vcpu,
        result: `0x${hex(event.low, event.high)}`,
        fault: event.fault,
      });
  }
}
