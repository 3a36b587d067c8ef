import {
  type CpuidEntry,
  type HypercallFrame,
  HypercallResult,
  MsrResult,
} from "../core/backend.ts";
import type { GuestMemory } from "../core/guest_memory.ts";
import { CallInput, CallResult } from "./call_input.ts";
import type { CrashReport } from "./crash.ts";
import type { DebugTransport } from "./debug_transport.ts";
import { HvFeature } from "./defs/cpuid.ts";
import { HvStatus } from "./defs/hypercall.ts";
import type { HypervHandler } from "./defs/kernel_exits.ts";
import { HV_MSR_END, HvMsr } from "./defs/msr.ts";
import { SYNDBG_USE_HYPERCALLS } from "./defs/syndbg.ts";
import { Gates } from "./gates.ts";
import { type CallContext, dispatchCall } from "./hypercalls.ts";
import { hypervisorLeaves } from "./leaves.ts";
import type { LocalApics } from "./local_apics.ts";
import { PartitionMsrs, SyndbgWord } from "./partition_msrs.ts";
import { checkState, FORMAT, type PartitionState } from "./partition_state.ts";
import { type ReferenceClock, ReferenceTime } from "./reference_time.ts";
import { type Profile, SynDbg } from "./syndbg.ts";
import type { TraceSink } from "./trace.ts";
import { Tracer } from "./tracer.ts";
import {
  type ProcessorSurroundings,
  VirtualProcessor,
} from "./virtual_processor.ts";
import { highWord, lowWord, pair } from "./words.ts";

/** How a {@linkcode Partition} is made. */
export interface PartitionOptions {
  /** The guest's RAM. */
  memory: GuestMemory;
  /** The guest's TSC. */
  clock: ReferenceClock;
  /** Virtual processors. Default 1. */
  vcpus?: number;
  /** Default `hyperv`. */
  profile?: Profile;
  /** Twelve characters of leaf 0x40000000. Default "Microsoft Hv", which Windows' debugger needs. */
  vendor?: string;
  /** MSRs and calls that no CPUID bit offers are refused, as with KVM_CAP_HYPERV_ENFORCE_CPUID. */
  enforceCpuid?: boolean;
  /** The debug device. Without it the guest sees nothing of SynDbg. */
  syndbg?: {
    transport: DebugTransport;
    /** `hypercall` sets OPTIONS bit 2. Default `msr`. */
    mode?: "msr" | "hypercall";
  };
  /** The processors' local APICs. Without them there are no interrupts: no SynIC, no timers, no IPIs. */
  apics?: LocalApics;
  /** Whether there is a SynIC with timers, as with KVM_CAP_HYPERV_SYNIC2. Default where there are APICs. */
  synic?: boolean;
  /**
   * The guest may ask to see that its TSC is invariant. Default false: Linux prefers such a TSC to
   * the partition's reference time.
   */
  tscInvariant?: boolean;
  /** Instruction in the hypercall page. Default `vmmcall`. */
  hypercallInstruction?: "vmcall" | "vmmcall";
  /** What the page holds instead, for a backend in which neither traps. */
  hypercallCode?: Uint8Array<ArrayBuffer> | undefined;
  /** APIC timer frequency in Hz that the guest is told. Default 1 GHz. */
  apicFrequency?: number;
  /** How long a processor has run, in units of 100 ns. Default all time: nothing else runs. */
  runTime?: (vcpu: number) => bigint;
  /** Receives trace points. */
  trace?: TraceSink;
  /** The guest wrote the RESET MSR. */
  onReset?: () => void;
  /** The guest reported a crash. */
  onCrash?: (report: CrashReport) => void;
  /** The guest asked for a processor's TLB to be flushed. */
  onTlbFlush?: (vcpu: number) => void;
  /** A processor waits for another in a loop. */
  onSpinWait?: (vcpu: number) => void;
  /** The guest is done with a SINT's message or interrupt: its slot may be free. */
  onSintEnd?: (vcpu: number, sint: number) => void;
  /** A system reset has put all registers back: for whoever keeps some of them. */
  onCleared?: () => void;
  /** Whether the guest sees the invariant-TSC bit of leaf 0x80000007 may have changed. */
  onTscInvariant?: () => void;
}

/**
 * A Hyper-V partition as its guest sees it: CPUID leaves, synthetic MSRs, hypercalls, interrupts and
 * timers, and the synthetic debugger. It knows nothing of what executes the guest. Methods named `host…` are the
 * VMM's own access: always allowed, without commands and traces.
 */
export class Partition {
  readonly #o: PartitionOptions;
  readonly #time: ReferenceTime;
  readonly #msrs: PartitionMsrs;
  /** The registers of {@linkcode PartitionMsrs}, for the debugger's. */
  readonly #words: Int32Array;
  readonly #around: ProcessorSurroundings;
  readonly #vps: readonly VirtualProcessor[];
  readonly #syndbg: SynDbg | undefined;
  readonly #call = new CallInput();
  readonly #context: CallContext;
  readonly #tracer = new Tracer();
  #tracing: boolean;
  #gates: Gates;
  #cpuid: CpuidEntry[];
  /** The guest's TSC runs at another rate, which it has not been told yet. */
  #tscChanged = false;

  /** Makes the partition in its state at power-on. */
  constructor(options: PartitionOptions) {
    const { memory, clock, apics, profile = "hyperv", vcpus = 1 } = options;
    const synic = apics !== undefined && (options.synic ?? true);
    this.#o = options;
    this.#tracer.sink = options.trace;
    this.#tracing = options.trace !== undefined;
    this.#cpuid = hypervisorLeaves({
      profile,
      vendor: options.vendor ?? "Microsoft Hv",
      syndbg: options.syndbg !== undefined,
      vcpus,
      apics: apics !== undefined,
      synic,
      tscInvariant: options.tscInvariant ?? false,
    });
    this.#gates = new Gates(this.#cpuid, options.enforceCpuid ?? false);
    this.#time = new ReferenceTime(clock);
    const now = (): bigint => this.#time.now();
    this.#msrs = new PartitionMsrs({
      memory,
      time: this.#time,
      tscFrequency: clock.tscFrequency,
      apicFrequency: options.apicFrequency ?? 1_000_000_000,
      hypercallCode: options.hypercallCode ??
        (options.hypercallInstruction === "vmcall" ? VMCALL_RET : VMMCALL_RET),
      onReset: () => options.onReset?.(),
      onCrash: (report) => options.onCrash?.(report),
      onTscInvariant: () => options.onTscInvariant?.(),
    });
    this.#words = this.#msrs.words;
    this.#around = {
      memory,
      gates: this.#gates,
      apics,
      synic,
      now,
      runTime: options.runTime ?? now,
      onSintEnd: options.onSintEnd,
    };
    this.#vps = Array.from(
      { length: vcpus },
      (_, n) => new VirtualProcessor(n, this.#around),
    );
    this.#syndbg = options.syndbg && new SynDbg(
      memory,
      options.syndbg.transport,
      profile,
      () => Number(this.referenceTime()),
    );
    this.#context = {
      memory,
      vcpus,
      gates: this.#gates,
      syndbg: this.#syndbg,
      useHypercalls: () =>
        (this.#words[SyndbgWord.Options]! & SYNDBG_USE_HYPERCALLS) !== 0,
      synic,
      flushTlb: (vcpu) => options.onTlbFlush?.(vcpu),
      interrupt: apics &&
        ((vcpu, vector) => apics.interrupt(vcpu, vector, false)),
      onSpinWait: options.onSpinWait,
    };
    this.#setDefaults();
  }

  /** The hypervisor leaves that the guest is to see. */
  cpuidEntries(): CpuidEntry[] {
    return this.#cpuid.map((entry) => ({ ...entry }));
  }

  /** Replaces the leaves, on which MSRs and calls depend. The VMM hands them to its vCPUs. */
  setCpuid(entries: readonly CpuidEntry[]): void {
    this.#cpuid = entries.filter((entry) => (entry.leaf >>> 8) === 0x40_0000)
      .map((entry) => ({ ...entry }));
    this.#gates = new Gates(this.#cpuid, this.#o.enforceCpuid ?? false);
    this.#context.gates = this.#gates;
    this.#around.gates = this.#gates;
  }

  /** Turns tracing on (a sink) or off (undefined). */
  setTrace(sink: TraceSink | undefined): void {
    this.#tracer.sink = sink;
    this.#tracing = sink !== undefined;
  }

  /**
   * Whether the guest is to see the invariant-TSC bit of CPUID 0x80000007: where the MSR is offered,
   * when the guest has set it; elsewhere always.
   */
  get showsInvariantTsc(): boolean {
    return !this.#gates.tscInvariant || this.#msrs.tscInvariant;
  }

  /** Time since the partition was made, in units of 100 ns (TLFS 12.4). */
  referenceTime(): bigint {
    return this.#time.now();
  }

  // MSRs. ------------------------------------------------------------------------

  /** RDMSR by the guest. */
  readMsr(vcpu: number, index: number, value: Uint32Array): MsrResult {
    switch (index) {
      case HvMsr.SyndbgStatus:
      case HvMsr.SyndbgControl:
      case HvMsr.SyndbgSendBuffer:
      case HvMsr.SyndbgRecvBuffer:
      case HvMsr.SyndbgPendingBuffer:
      case HvMsr.SyndbgOptions: {
        const open = this.#debugMsrs();
        const at = syndbgWord(index);
        if (open) {
          value[0] = this.#words[at]!;
          value[1] = this.#words[at + 1]!;
        }
        if (this.#tracing) {
          this.#tracer.msr(
            "kvm_hv_syndbg_get_msr",
            vcpu,
            index,
            open ? value[0]! : 0,
            open ? value[1]! : 0,
            !open,
          );
        }
        return open ? MsrResult.Handled : MsrResult.Refused;
      }
    }
    if (index < HvMsr.GuestOsId || index >= HV_MSR_END) {
      return MsrResult.Unknown;
    }
    if (!this.#gates.enabled) return MsrResult.Refused;
    return this.#read(vcpu, index, value, false);
  }

  /** WRMSR by the guest. */
  writeMsr(
    vcpu: number,
    index: number,
    low: number,
    high: number,
  ): MsrResult {
    switch (index) {
      case HvMsr.SyndbgStatus:
      case HvMsr.SyndbgControl:
      case HvMsr.SyndbgSendBuffer:
      case HvMsr.SyndbgRecvBuffer:
      case HvMsr.SyndbgPendingBuffer:
      case HvMsr.SyndbgOptions: {
        const open = this.#debugMsrs();
        if (this.#tracing) {
          this.#tracer.msr(
            "kvm_hv_syndbg_set_msr",
            vcpu,
            index,
            low,
            high,
            !open,
          );
        }
        if (!open) return MsrResult.Refused;
        const words = this.#words;
        const at = syndbgWord(index);
        words[at] = low;
        words[at + 1] = high;
        if (index === HvMsr.SyndbgControl) {
          words[SyndbgWord.Status] = this.#syndbg!.command(
            low,
            gpaOf(words, SyndbgWord.Send),
            gpaOf(words, SyndbgWord.Recv),
          );
          words[SyndbgWord.Status + 1] = 0;
        } else if (index === HvMsr.SyndbgPendingBuffer) {
          this.#syndbg!.setPendingPage(gpaOf(words, SyndbgWord.Pending));
        }
        return MsrResult.Handled;
      }
    }
    if (index < HvMsr.GuestOsId || index >= HV_MSR_END) {
      return MsrResult.Unknown;
    }
    if (!this.#gates.enabled) return MsrResult.Refused;
    return this.#write(vcpu, index, low, high, false);
  }

  /** Reads an MSR as the VMM: undefined if there is none of that number. */
  hostReadMsr(vcpu: number, index: number): bigint | undefined {
    if (isDebugMsr(index)) {
      const at = syndbgWord(index);
      return pair(this.#words[at]!, this.#words[at + 1]!);
    }
    const value = new Uint32Array(2);
    return this.#read(vcpu, index, value, true) === MsrResult.Handled
      ? pair(value[0]!, value[1]!)
      : undefined;
  }

  /** Writes an MSR as the VMM: false if there is none of that number. Never a command. */
  hostWriteMsr(vcpu: number, index: number, value: bigint): boolean {
    const low = lowWord(value);
    const high = highWord(value);
    if (isDebugMsr(index)) {
      const at = syndbgWord(index);
      this.#words[at] = low;
      this.#words[at + 1] = high;
      if (index === HvMsr.SyndbgPendingBuffer) {
        this.#syndbg?.setPendingPage(gpaOf(this.#words, SyndbgWord.Pending));
      }
      return true;
    }
    return this.#write(vcpu, index, low, high, true) === MsrResult.Handled;
  }

  /** Whether a guest may use the SynDbg MSRs: CPUID says so, and there is one. */
  #debugMsrs(): boolean {
    const gates = this.#gates;
    return gates.enabled && (gates.features & HvFeature.DebugMsrs) !== 0 &&
      gates.syndbg && this.#syndbg !== undefined;
  }

  #read(
    vcpu: number,
    index: number,
    value: Uint32Array,
    host: boolean,
  ): MsrResult {
    if (!host && !this.#gates.opens(index)) return MsrResult.Refused;
    const result = this.#msrs.read(index, value);
    return result === MsrResult.Unknown
      ? this.#vps[vcpu]!.read(index, value, host)
      : result;
  }

  #write(
    vcpu: number,
    index: number,
    low: number,
    high: number,
    host: boolean,
  ): MsrResult {
    if (!host && !this.#gates.opens(index)) return MsrResult.Refused;
    const result = this.#msrs.write(index, low, high, host);
    return result === MsrResult.Unknown
      ? this.#vps[vcpu]!.write(index, low, high, host)
      : result;
  }

  // Hypercalls. ------------------------------------------------------------------

  /** VMCALL or VMMCALL by the guest. */
  hypercall(frame: HypercallFrame): HypercallResult {
    if (!this.#gates.enabled || !this.#msrs.identified) {
      return HypercallResult.Unknown;
    }
    if (frame.cpl !== 0 || !frame.protectedMode) {
      return HypercallResult.InvalidOpcode;
    }
    const g = frame.gpr;
    const call = this.#call;
    if (frame.longMode) {
      // RCX; RDX; R8.
      call.decode(frame.vcpu, g[2]!, g[3]!, g[4]!, g[5]!, g[16]!, g[17]!);
    } else {
      // EDX:EAX; EBX:ECX; EDI:ESI.
      call.decode(frame.vcpu, g[0]!, g[4]!, g[2]!, g[6]!, g[12]!, g[14]!);
    }
    // It may cost something to have them.
    call.xmm = call.fast ? frame.xmm : undefined;
    if (this.#tracing) this.#tracer.call(call);
    const status = dispatchCall(call, this.#context);
    if (status === CallResult.Retry) return HypercallResult.Retry;
    // The high word of the result has the reps that are done: on success all of them.
    const reps = status === HvStatus.Success ? call.repCount : 0;
    if (this.#tracing) this.#tracer.done(frame.vcpu, status, reps);
    if (status === CallResult.InvalidOpcode) {
      return HypercallResult.InvalidOpcode;
    }
    g[0] = status;
    if (frame.longMode) g[1] = reps;
    else {
      g[1] = 0;
      g[4] = reps;
      g[5] = 0;
    }
    return HypercallResult.Handled;
  }

  /**
   * Serves KVM_EXIT_HYPERV of type SYNDBG, where the kernel keeps the MSRs and has done the
   * gates (Documentation/virt/kvm/api.rst).
   *
   * @returns What the VMM has to write back as STATUS.
   */
  serveSyndbgExit(
    vcpu: number,
    index: number,
    control: bigint,
    sendGpa: bigint,
    receiveGpa: bigint,
    pendingGpa: bigint,
  ): bigint {
    if (this.#syndbg === undefined) return 0n;
    if (this.#tracing) {
      const value = index === HvMsr.SyndbgControl ? control : pendingGpa;
      this.#tracer.msr(
        "kvm_hv_syndbg_set_msr",
        vcpu,
        index,
        lowWord(value),
        highWord(value),
        false,
      );
    }
    if (index === HvMsr.SyndbgPendingBuffer) {
      this.#syndbg.setPendingPage(Number(pendingGpa));
      return 0n;
    }
    const status = this.#syndbg.command(
      Number(BigInt.asUintN(32, control)),
      Number(sendGpa),
      Number(receiveGpa),
    );
    return BigInt(status >>> 0);
  }

  /**
   * Serves KVM_EXIT_HYPERV of type HCALL: the kernel forwards debug calls with their gates done.
   *
   * @returns The hypercall result value.
   */
  serveHypercallExit(
    vcpu: number,
    input: bigint,
    first: bigint,
    second: bigint,
  ): bigint {
    this.#call.decode(
      vcpu,
      lowWord(input),
      highWord(input),
      lowWord(first),
      highWord(first),
      lowWord(second),
      highWord(second),
    );
    this.#call.xmm = undefined;
    if (this.#tracing) this.#tracer.call(this.#call);
    // The exit has no "again", and no #UD either.
    this.#call.forwarded = true;
    const result = dispatchCall(this.#call, this.#context);
    this.#call.forwarded = false;
    const status = result < 0 ? HvStatus.InvalidHypercallCode : result;
    if (this.#tracing) this.#tracer.done(vcpu, status, 0);
    return BigInt(status);
  }

  /** What a kernel that is Hyper-V itself hands on, with its gates done, is served by this. */
  kernelHandler(): HypervHandler {
    return {
      syndbg: (...values) => this.serveSyndbgExit(...values),
      hypercall: (...values) => this.serveHypercallExit(...values),
      reset: () => this.#o.onReset?.(),
      // The kernel does not tell whether P3 and P4 name a message.
      crash: (parameters) =>
        this.#o.onCrash?.({ parameters, message: undefined }),
    };
  }

  // Interrupts and timers. ---------------------------------------------------------

  /** Does what has become due: timers that have expired, and news of the TSC. */
  update(): void {
    if (this.#tscChanged && this.#o.apics !== undefined) {
      this.#tscChanged = false;
      this.#msrs.notifyTscChange(this.#o.apics, this.#vps.length);
    }
    let now: bigint | undefined;
    for (const vp of this.#vps) {
      if (vp.timers.next !== undefined) {
        vp.timers.update(now ??= this.#time.now());
      }
    }
  }

  /** Whether a debugger's packet may come any moment. */
  expectsEvents(): boolean {
    return this.#syndbg?.busy ?? false;
  }

  /** Nanoseconds until {@linkcode Partition.update} has something to do: 0 or more, Infinity for nothing. */
  untilNext(): number {
    let next: bigint | undefined;
    for (const vp of this.#vps) {
      const timer = vp.timers.next;
      if (timer !== undefined && (next === undefined || timer < next)) {
        next = timer;
      }
    }
    if (this.#tscChanged) return 0;
    return next === undefined
      ? Infinity
      : Math.max(0, 100 * Number(next - this.#time.now()));
  }

  /** The guest has ended an interrupt at a processor's local APIC. */
  endOfInterrupt(vcpu: number, vector: number): void {
    this.#vps[vcpu]!.interruptEnded(vector);
  }

  /**
   * Writes a message into the slot of a processor's SINT and interrupts (TLFS 11.8.2).
   *
   * @param type Not 0.
   * @param payload At most 240 bytes.
   * @returns False if the slot is taken, or there is none. The guest is told that a message waits;
   * `onSintEnd` says when to try again.
   */
  postMessage(
    vcpu: number,
    sint: number,
    type: number,
    sender: bigint,
    payload: Uint8Array,
  ): boolean {
    return this.#vps[vcpu]!.synic.post(sint, type, sender, payload, true);
  }

  /**
   * Sets one of the 2048 event flags of a processor's SINT and interrupts if it was clear (TLFS
   * 11.10).
   *
   * @returns False if the guest has given no page for them.
   */
  signalEvent(vcpu: number, sint: number, flag: number): boolean {
    return this.#vps[vcpu]!.synic.signalEvent(sint, flag);
  }

  /**
   * To be called when the guest's TSC runs at another rate than it was told, as on another host:
   * the next {@linkcode Partition.update} interrupts a guest that asked for it.
   */
  tscChanged(): void {
    this.#tscChanged = true;
    this.#msrs.fillReferencePage();
  }

  // Life. --------------------------------------------------------------------------

  /** System reset: every register back to its value at power-on, the debug session too. */
  reset(): void {
    this.#words.fill(0);
    this.#time.set(0n);
    this.#tscChanged = false;
    for (const vp of this.#vps) vp.reset();
    this.#syndbg?.reset();
    this.#setDefaults();
    this.#o.onTscInvariant?.();
    this.#o.onCleared?.();
  }

  /** Reset of one virtual processor. */
  resetVcpu(vcpu: number): void {
    this.#vps[vcpu]!.reset();
    this.#syndbg?.stopWaiting(vcpu);
  }

  #setDefaults(): void {
    if (this.#o.syndbg?.mode === "hypercall") {
      this.#words[SyndbgWord.Options] = SYNDBG_USE_HYPERCALLS;
    }
  }

  /** Copies all state out as plain data. */
  save(): PartitionState {
    return {
      format: FORMAT,
      words: [...this.#words],
      processors: this.#vps.map((vp) => vp.save()),
      referenceTime: this.referenceTime(),
      tscFrequency: this.#o.clock.tscFrequency,
      syndbg: this.#syndbg?.save(),
    };
  }

  /**
   * Takes state back. The debug session begins anew (TLFS 2.0a, 20.1). A guest whose TSC had another
   * frequency is told so if it asked for it, by the next {@linkcode Partition.update}.
   *
   * @throws {TypeError} If it is not this kind of state; then nothing is changed.
   */
  restore(state: PartitionState): void {
    checkState(state, this.#vps.length);
    this.#words.set(state.words);
    this.#time.set(state.referenceTime);
    this.#vps.forEach((vp, n) => vp.restore(state.processors[n]!));
    if (state.syndbg !== undefined) this.#syndbg?.restore(state.syndbg);
    this.#msrs.fillReferencePage();
    this.#tscChanged = state.tscFrequency !== this.#o.clock.tscFrequency;
    this.#o.onTscInvariant?.();
  }
}

const VMCALL_RET = new Uint8Array([0x0f, 0x01, 0xc1, 0xc3]);
const VMMCALL_RET = new Uint8Array([0x0f, 0x01, 0xd9, 0xc3]);

/** Where a register of the debugger is kept. */
function syndbgWord(index: number): number {
  switch (index) {
    case HvMsr.SyndbgStatus:
      return SyndbgWord.Status;
    case HvMsr.SyndbgControl:
      return SyndbgWord.Control;
    case HvMsr.SyndbgSendBuffer:
      return SyndbgWord.Send;
    case HvMsr.SyndbgRecvBuffer:
      return SyndbgWord.Recv;
    case HvMsr.SyndbgPendingBuffer:
      return SyndbgWord.Pending;
    default:
      return SyndbgWord.Options;
  }
}

function isDebugMsr(index: number): boolean {
  return (index >= HvMsr.SyndbgControl &&
    index <= HvMsr.SyndbgPendingBuffer) || index === HvMsr.SyndbgOptions;
}

function gpaOf(words: Int32Array, at: number): number {
  return (words[at + 1]! >>> 0) * 0x1_0000_0000 + (words[at]! >>> 0);
}
