import { type CallInput, CallResult } from "./call_input.ts";
import { traceEvent, type TraceSink } from "./trace.ts";

/** Fills in the one event object and hands it to the sink. */
export class Tracer {
  readonly #event = traceEvent();
  /** Receives the trace points; undefined turns tracing off. */
  sink: TraceSink | undefined;

  /** An access to an MSR of the debugger. */
  msr(
    name: "kvm_hv_syndbg_get_msr" | "kvm_hv_syndbg_set_msr",
    vcpu: number,
    msr: number,
    low: number,
    high: number,
    fault: boolean,
  ): void {
    const event = this.#event;
    event.name = name;
    event.vcpu = vcpu;
    event.vpIndex = vcpu;
    event.msr = msr;
    event.low = low;
    event.high = high;
    event.fault = fault;
    this.sink?.(event);
  }

  /** A hypercall begins. */
  call(call: CallInput): void {
    const event = this.#event;
    event.name = "kvm_hv_hypercall";
    event.vcpu = call.vcpu;
    event.vpIndex = call.vcpu;
    event.code = call.code;
    event.fast = call.fast;
    event.varCount = call.variable;
    event.repCount = call.repCount;
    event.repIndex = call.repStart;
    event.inLow = call.firstLow;
    event.inHigh = call.firstHigh;
    event.outLow = call.secondLow;
    event.outHigh = call.secondHigh;
    this.sink?.(event);
  }

  /** It is done. */
  done(vcpu: number, status: number, reps: number): void {
    const event = this.#event;
    event.name = "kvm_hv_hypercall_done";
    event.vcpu = vcpu;
    event.low = status < 0 ? 0 : status;
    event.high = reps;
    event.fault = status === CallResult.InvalidOpcode;
    this.sink?.(event);
  }
}
