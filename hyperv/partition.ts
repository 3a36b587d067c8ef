import {
  type CpuidEntry,
  type HypercallFrame,
  HypercallResult,
  MsrResult,
} from "../core/backend.ts";
import type { GuestMemory } from "../core/guest_memory.ts";
import type { DebugTransport } from "./debug_transport.ts";
import { HvAccess, HvFeature, HvLeaf } from "./defs/cpuid.ts";
import { HvStatus } from "./defs/hypercall.ts";
import type { HypervHandler } from "./defs/kernel_exits.ts";
import { HV_MSR_END, HvMsr } from "./defs/msr.ts";
import { SYNDBG_USE_HYPERCALLS } from "./defs/syndbg.ts";
import { Gates } from "./gates.ts";
import {
  type CallContext,
  callInput,
  CallResult,
  decodeCall,
  dispatchCall,
} from "./hypercalls.ts";
import { hypervisorLeaves } from "./leaves.ts";
import { type Profile, SynDbg, type SynDbgState } from "./syndbg.ts";
import { traceEvent, type TraceSink } from "./trace.ts";
import { VpRegisters } from "./vp_registers.ts";

/** The guest's time stamp counter, which all of the partition's clocks follow. */
export interface ReferenceClock {
  /** TSC ticks a second. */
  readonly tscFrequency: number;
  /** The TSC now, as the guest would read it. */
  readTsc(): bigint;
}

/** What the guest reports when it crashes (TLFS 2.4, guest crash MSRs). */
export interface CrashReport {
  /** P0 to P4. */
  parameters: readonly [bigint, bigint, bigint, bigint, bigint];
  /** Text that the guest left in memory, if it said so. */
  message: string | undefined;
}

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
  /** Instruction in the hypercall page. Default `vmmcall`. */
  hypercallInstruction?: "vmcall" | "vmmcall";
  /** What the page holds instead, for a backend in which neither traps. */
  hypercallCode?: Uint8Array<ArrayBuffer> | undefined;
  /** APIC timer frequency in Hz that the guest is told. Default 1 GHz. */
  apicFrequency?: number;
  /** Receives trace points. */
  trace?: TraceSink;
  /** The guest wrote the RESET MSR. */
  onReset?: () => void;
  /** The guest reported a crash. */
  onCrash?: (report: CrashReport) => void;
  /** The guest asked for an inter-processor interrupt. */
  onIpi?: (vector: number, processors: bigint | "all") => void;
  /** The guest asked for TLBs to be flushed. */
  onTlbFlush?: () => void;
  /** Whether the guest sees the invariant-TSC bit of leaf 0x80000007 may have changed. */
  onTscInvariant?: () => void;
}

/** A partition's state as plain data. */
export interface PartitionState {
  /** Name and version of the layout. */
  format: string;
  /** Partition-wide registers, low and high words. */
  words: number[];
  /** Registers of each virtual processor, low and high words. */
  processors: number[];
  /** Reference time in units of 100 ns. */
  referenceTime: bigint;
  /** The debug device, where there is one. */
  syndbg: SynDbgState | undefined;
}

const FORMAT = "syndbg-partition-1";

// Partition-wide registers, two words each.
const OS_ID = 0;
const HYPERCALL = 2;
const REF_TSC = 4;
const CONTROL = 6;
const STATUS = 8;
const SEND = 10;
const RECV = 12;
const PENDING = 14;
const OPTIONS = 16;
const CRASH = 18;
const REENLIGHTENMENT = 28;
const TSC_EMULATION = 30;
const TSC_EMULATION_STATUS = 32;
const TSC_INVARIANT = 34;
const WORDS = 36;

const CRASH_NOTIFY_HIGH = 0x8000_0000;
const CRASH_MESSAGE_HIGH = 0x4000_0000;
const CRASH_MESSAGE_MAX = 4096;

/** Registers in {@linkcode Partition} that nothing but their gate and storage is to. */
function storedDebug(index: number): number {
  switch (index) {
    case HvMsr.SyndbgStatus:
      return STATUS;
    case HvMsr.SyndbgControl:
      return CONTROL;
    case HvMsr.SyndbgSendBuffer:
      return SEND;
    case HvMsr.SyndbgRecvBuffer:
      return RECV;
    case HvMsr.SyndbgPendingBuffer:
      return PENDING;
    default:
      return OPTIONS;
  }
}

function gpaOf(words: Int32Array, at: number): number {
  return (words[at + 1]! >>> 0) * 0x1_0000_0000 + (words[at]! >>> 0);
}

/**
 * A Hyper-V partition as its guest sees it: CPUID leaves, synthetic MSRs, hypercalls, and
 * the synthetic debugger. It knows nothing of what executes the guest. Methods named `host…` are the
 * VMM's own access: always allowed, without commands and traces.
 */
export class Partition {
  readonly #o: PartitionOptions;
  readonly #memory: GuestMemory;
  readonly #words = new Int32Array(WORDS);
  readonly #vps: VpRegisters;
  readonly #vcpus: number;
  readonly #syndbg: SynDbg | undefined;
  readonly #call = callInput();
  readonly #context: CallContext;
  readonly #event = traceEvent();
  #trace: TraceSink | undefined;
  #gates: Gates;
  #cpuid: CpuidEntry[];
  /** Reference time (100 ns) at TSC 0. */
  #timeOffset = 0n;

  /** Makes the partition in its state at power-on. */
  constructor(options: PartitionOptions) {
    this.#o = options;
    this.#memory = options.memory;
    this.#vcpus = options.vcpus ?? 1;
    this.#vps = new VpRegisters(options.memory, this.#vcpus);
    this.#trace = options.trace;
    const profile = options.profile ?? "hyperv";
    this.#cpuid = hypervisorLeaves({
      profile,
      vendor: options.vendor ?? "Microsoft Hv",
      syndbg: options.syndbg !== undefined,
      vcpus: this.#vcpus,
    });
    this.#gates = new Gates(this.#cpuid, options.enforceCpuid ?? false);
    this.#timeOffset = -this.#ticks();
    this.#syndbg = options.syndbg && new SynDbg(
      options.memory,
      options.syndbg.transport,
      profile,
      () => Number(this.referenceTime()),
    );
    this.#context = {
      memory: options.memory,
      gates: this.#gates,
      syndbg: this.#syndbg,
      useHypercalls: () =>
        (this.#words[OPTIONS]! & SYNDBG_USE_HYPERCALLS) !== 0,
      synic: () => this.#vps.synic,
      onIpi: options.onIpi,
      onTlbFlush: options.onTlbFlush,
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
  }

  /** Gives the partition a SynIC, as KVM_CAP_HYPERV_SYNIC2 does. */
  enableSynic(): void {
    this.#vps.synic = true;
  }

  /** Turns tracing on (a sink) or off (undefined). */
  setTrace(sink: TraceSink | undefined): void {
    this.#trace = sink;
  }

  /**
   * Whether the guest is to see the invariant-TSC bit of CPUID 0x80000007: where the MSR is offered,
   * when the guest has set it; elsewhere always.
   */
  get showsInvariantTsc(): boolean {
    const offered = this.#cpuid.some((entry) =>
      entry.leaf === HvLeaf.Features &&
      (entry.eax & HvAccess.TscInvariant) !== 0
    );
    return !offered || (this.#words[TSC_INVARIANT]! & 1) !== 0;
  }

  /** Time since the partition was made, in units of 100 ns (TLFS 12.4). */
  referenceTime(): bigint {
    return this.#ticks() + this.#timeOffset;
  }

  #ticks(): bigint {
    const { clock } = this.#o;
    return clock.readTsc() * 10_000_000n / BigInt(clock.tscFrequency);
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
        const at = storedDebug(index);
        if (open) {
          value[0] = this.#words[at]!;
          value[1] = this.#words[at + 1]!;
        }
        if (this.#trace !== undefined) {
          this.#traceMsr(
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
        if (this.#trace !== undefined) {
          this.#traceMsr(
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
        const at = storedDebug(index);
        words[at] = low;
        words[at + 1] = high;
        if (index === HvMsr.SyndbgControl) {
          words[STATUS] = this.#syndbg!.command(
            low,
            gpaOf(words, SEND),
            gpaOf(words, RECV),
          );
          words[STATUS + 1] = 0;
        } else if (index === HvMsr.SyndbgPendingBuffer) {
          this.#syndbg!.setPendingPage(gpaOf(words, PENDING));
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
      const at = storedDebug(index);
      return pair(this.#words[at]!, this.#words[at + 1]!);
    }
    const value = new Uint32Array(2);
    return this.#read(vcpu, index, value, true) === MsrResult.Handled
      ? pair(value[0]!, value[1]!)
      : undefined;
  }

  /** Writes an MSR as the VMM: false if there is none of that number. Never a command. */
  hostWriteMsr(vcpu: number, index: number, value: bigint): boolean {
    const low = Number(BigInt.asUintN(32, value));
    const high = Number(BigInt.asUintN(32, value >> 32n));
    if (isDebugMsr(index)) {
      const at = storedDebug(index);
      this.#words[at] = low;
      this.#words[at + 1] = high;
      if (index === HvMsr.SyndbgPendingBuffer) {
        this.#syndbg?.setPendingPage(gpaOf(this.#words, PENDING));
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
    const need = accessNeeded(index);
    if (!host && !this.#allowed(need)) return MsrResult.Refused;
    switch (index) {
      case HvMsr.GuestOsId:
        return this.#stored(OS_ID, value);
      case HvMsr.Hypercall:
        return this.#stored(HYPERCALL, value);
      case HvMsr.VpIndex:
        return put(value, BigInt(vcpu));
      case HvMsr.Reset:
        return put(value, 0n);
      case HvMsr.VpRuntime:
      case HvMsr.TimeRefCount:
        // One processor is never kept from running by another: its run time is all time.
        return put(value, this.referenceTime());
      case HvMsr.ReferenceTsc:
        return this.#stored(REF_TSC, value);
      case HvMsr.TscFrequency:
        return put(value, BigInt(this.#o.clock.tscFrequency));
      case HvMsr.ApicFrequency:
        return put(value, BigInt(this.#o.apicFrequency ?? 1_000_000_000));
      case HvMsr.CrashCtl:
        value[0] = 0;
        value[1] = CRASH_NOTIFY_HIGH | CRASH_MESSAGE_HIGH;
        return MsrResult.Handled;
      case HvMsr.ReenlightenmentControl:
        return this.#stored(REENLIGHTENMENT, value);
      case HvMsr.TscEmulationControl:
        return this.#stored(TSC_EMULATION, value);
      case HvMsr.TscEmulationStatus:
        return this.#stored(TSC_EMULATION_STATUS, value);
      case HvMsr.TscInvariantControl:
        return this.#stored(TSC_INVARIANT, value);
    }
    if (index >= HvMsr.CrashP0 && index <= HvMsr.CrashP4) {
      return this.#stored(CRASH + 2 * (index - HvMsr.CrashP0), value);
    }
    return this.#vps.read(vcpu, index, value, this.#gates, host);
  }

  #write(
    vcpu: number,
    index: number,
    low: number,
    high: number,
    host: boolean,
  ): MsrResult {
    const need = accessNeeded(index);
    if (!host && !this.#allowed(need)) return MsrResult.Refused;
    switch (index) {
      case HvMsr.GuestOsId:
        this.#store(OS_ID, low, high);
        // Hypercalls end with the guest's identity (TLFS 3.13).
        if ((low | high) === 0) this.#words[HYPERCALL]! &= ~1;
        return MsrResult.Handled;
      case HvMsr.Hypercall:
        return this.#setHypercallPage(low, high, host);
      case HvMsr.VpIndex:
      case HvMsr.VpRuntime:
      case HvMsr.TimeRefCount:
      case HvMsr.TscFrequency:
      case HvMsr.ApicFrequency:
        return host ? MsrResult.Handled : MsrResult.Refused;
      case HvMsr.Reset:
        if ((low & 1) !== 0 && !host) this.#o.onReset?.();
        return MsrResult.Handled;
      case HvMsr.ReferenceTsc:
        this.#store(REF_TSC, low, high);
        this.#fillReferencePage();
        return MsrResult.Handled;
      case HvMsr.CrashCtl:
        if (!host && (high & CRASH_NOTIFY_HIGH) !== 0) this.#crash(high);
        return MsrResult.Handled;
      case HvMsr.ReenlightenmentControl:
        return this.#store(REENLIGHTENMENT, low, high);
      case HvMsr.TscEmulationControl:
        return this.#store(TSC_EMULATION, low, high);
      case HvMsr.TscEmulationStatus:
        if (!host && (low | high) !== 0) return MsrResult.Refused;
        return this.#store(TSC_EMULATION_STATUS, low, high);
      case HvMsr.TscInvariantControl:
        if ((low & ~1) !== 0 || high !== 0) return MsrResult.Refused;
        // Once in use it stays.
        if (!host && low === 0 && (this.#words[TSC_INVARIANT]! & 1) !== 0) {
          return MsrResult.Refused;
        }
        this.#store(TSC_INVARIANT, low, high);
        if (low === 1) this.#o.onTscInvariant?.();
        return MsrResult.Handled;
    }
    if (index >= HvMsr.CrashP0 && index <= HvMsr.CrashP4) {
      return this.#store(CRASH + 2 * (index - HvMsr.CrashP0), low, high);
    }
    return this.#vps.write(vcpu, index, low, high, this.#gates, host);
  }

  #allowed(need: number): boolean {
    if (need === NEEDS_CRASH) {
      return (this.#gates.features & HvFeature.CrashMsrs) !== 0;
    }
    // The per-processor registers look at their own bits.
    return need === 0 || (this.#gates.access & need) !== 0;
  }

  #stored(at: number, value: Uint32Array): MsrResult {
    value[0] = this.#words[at]!;
    value[1] = this.#words[at + 1]!;
    return MsrResult.Handled;
  }

  #store(at: number, low: number, high: number): MsrResult {
    this.#words[at] = low;
    this.#words[at + 1] = high;
    return MsrResult.Handled;
  }

  /** HYPERCALL: with bit 0 the page gets the instruction and a return. */
  #setHypercallPage(low: number, high: number, host: boolean): MsrResult {
    const words = this.#words;
    if ((words[OS_ID]! | words[OS_ID + 1]!) === 0) return MsrResult.Handled;
    if ((low & 1) !== 0 && !host) {
      const gpa = (high >>> 0) * 0x1_0000_0000 + ((low & -4096) >>> 0);
      const code = this.#o.hypercallCode ??
        (this.#o.hypercallInstruction === "vmcall" ? VMCALL_RET : VMMCALL_RET);
      if (!this.#memory.contains(gpa, code.length)) return MsrResult.Refused;
      this.#memory.write(gpa, code);
    }
    return this.#store(HYPERCALL, low, high);
  }

  /** The reference TSC page (TLFS 12.7): time = (TSC * scale >> 64) + offset. */
  #fillReferencePage(): void {
    const low = this.#words[REF_TSC]!;
    if ((low & 1) === 0) return;
    const gpa = gpaOf(this.#words, REF_TSC) - ((low & 4095) >>> 0);
    if (!this.#memory.contains(gpa, 24)) return;
    const frequency = BigInt(this.#o.clock.tscFrequency);
    this.#memory.writeU32(gpa, 0);
    this.#memory.writeU64(gpa + 8, (10_000_000n << 64n) / frequency);
    this.#memory.writeU64(gpa + 16, BigInt.asUintN(64, this.#timeOffset));
    // A sequence that is not 0 says that the rest is valid.
    this.#memory.writeU32(gpa, 1);
  }

  #crash(high: number): void {
    const words = this.#words;
    const p = [0, 1, 2, 3, 4].map((n) =>
      pair(words[CRASH + 2 * n]!, words[CRASH + 2 * n + 1]!)
    ) as [bigint, bigint, bigint, bigint, bigint];
    let message: string | undefined;
    if ((high & CRASH_MESSAGE_HIGH) !== 0) {
      // P3 and P4 are the message's address and length.
      const length = Number(
        p[4] < BigInt(CRASH_MESSAGE_MAX) ? p[4] : BigInt(CRASH_MESSAGE_MAX),
      );
      const gpa = Number(p[3]);
      if (this.#memory.contains(gpa, length)) {
        message = new TextDecoder().decode(this.#memory.read(gpa, length));
      }
    }
    this.#o.onCrash?.({ parameters: p, message });
  }

  // Hypercalls. ------------------------------------------------------------------

  /** VMCALL or VMMCALL by the guest. */
  hypercall(frame: HypercallFrame): HypercallResult {
    const words = this.#words;
    if (
      !this.#gates.enabled || (words[OS_ID]! | words[OS_ID + 1]!) === 0
    ) return HypercallResult.Unknown;
    if (frame.cpl !== 0 || !frame.protectedMode) {
      return HypercallResult.InvalidOpcode;
    }
    const g = frame.gpr;
    const call = this.#call;
    if (frame.longMode) {
      // RCX; RDX; R8.
      decodeCall(call, frame.vcpu, g[2]!, g[3]!, g[4]!, g[5]!, g[16]!, g[17]!);
    } else {
      // EDX:EAX; EBX:ECX; EDI:ESI.
      decodeCall(call, frame.vcpu, g[0]!, g[4]!, g[2]!, g[6]!, g[12]!, g[14]!);
    }
    if (this.#trace !== undefined) this.#traceCall();
    const status = dispatchCall(call, this.#context);
    if (status === CallResult.Retry) return HypercallResult.Retry;
    // The high word of the result has the reps that are done: on success all of them.
    const reps = status === HvStatus.Success ? call.repCount : 0;
    if (this.#trace !== undefined) this.#traceDone(frame.vcpu, status, reps);
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
    if (this.#trace !== undefined) {
      const value = index === HvMsr.SyndbgControl ? control : pendingGpa;
      const [low, high] = split(value);
      this.#traceMsr("kvm_hv_syndbg_set_msr", vcpu, index, low, high, false);
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
    decodeCall(
      this.#call,
      vcpu,
      ...split(input),
      ...split(first),
      ...split(second),
    );
    if (this.#trace !== undefined) this.#traceCall();
    // The exit has no "again", and no #UD either.
    this.#call.forwarded = true;
    const result = dispatchCall(this.#call, this.#context);
    this.#call.forwarded = false;
    const status = result < 0 ? HvStatus.InvalidHypercallCode : result;
    if (this.#trace !== undefined) this.#traceDone(vcpu, status, 0);
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

  // Life. --------------------------------------------------------------------------

  /** System reset: every register back to its value at power-on, the debug session too. */
  reset(): void {
    this.#words.fill(0);
    this.#vps.reset();
    this.#syndbg?.reset();
    this.#timeOffset = -this.#ticks();
    this.#setDefaults();
    this.#o.onTscInvariant?.();
  }

  /** Reset of one virtual processor. */
  resetVcpu(vcpu: number): void {
    this.#vps.resetVcpu(vcpu);
    this.#syndbg?.stopWaiting(vcpu);
  }

  #setDefaults(): void {
    if (this.#o.syndbg?.mode === "hypercall") {
      this.#words[OPTIONS] = SYNDBG_USE_HYPERCALLS;
    }
  }

  /** Copies all state out as plain data. */
  save(): PartitionState {
    return {
      format: FORMAT,
      words: [...this.#words],
      processors: this.#vps.save(),
      referenceTime: this.referenceTime(),
      syndbg: this.#syndbg?.save(),
    };
  }

  /**
   * Takes state back. The debug session begins anew (TLFS 2.0a, 20.1).
   *
   * @throws {TypeError} If it is not this kind of state.
   */
  restore(state: PartitionState): void {
    if (
      state.format !== FORMAT || state.words.length !== WORDS ||
      typeof state.referenceTime !== "bigint"
    ) throw new TypeError(`Cannot restore partition: not of format ${FORMAT}`);
    this.#words.set(state.words);
    this.#vps.restore(state.processors);
    this.#timeOffset = state.referenceTime - this.#ticks();
    if (state.syndbg !== undefined) this.#syndbg?.restore(state.syndbg);
    this.#fillReferencePage();
    this.#o.onTscInvariant?.();
  }

  // Traces. ------------------------------------------------------------------------

  #traceMsr(
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
    this.#trace?.(event);
  }

  #traceCall(): void {
    const event = this.#event;
    const call = this.#call;
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
    this.#trace?.(event);
  }

  #traceDone(vcpu: number, status: number, reps: number): void {
    const event = this.#event;
    event.name = "kvm_hv_hypercall_done";
    event.vcpu = vcpu;
    event.low = status < 0 ? 0 : status;
    event.high = reps;
    event.fault = status === CallResult.InvalidOpcode;
    this.#trace?.(event);
  }
}

const VMCALL_RET = new Uint8Array([0x0f, 0x01, 0xc1, 0xc3]);
const VMMCALL_RET = new Uint8Array([0x0f, 0x01, 0xd9, 0xc3]);

const NEEDS_CRASH = -1;

/** Access bit (leaf 3 EAX) that opens a partition-wide MSR, 0 where the register's own file knows. */
function accessNeeded(index: number): number {
  switch (index) {
    case HvMsr.GuestOsId:
    case HvMsr.Hypercall:
      return HvAccess.Hypercall;
    case HvMsr.VpRuntime:
      return HvAccess.VpRuntime;
    case HvMsr.TimeRefCount:
      return HvAccess.TimeRefCount;
    case HvMsr.VpIndex:
      return HvAccess.VpIndex;
    case HvMsr.Reset:
      return HvAccess.Reset;
    case HvMsr.ReferenceTsc:
      return HvAccess.ReferenceTsc;
    case HvMsr.TscFrequency:
    case HvMsr.ApicFrequency:
      return HvAccess.Frequency;
    case HvMsr.ReenlightenmentControl:
    case HvMsr.TscEmulationControl:
    case HvMsr.TscEmulationStatus:
      return HvAccess.Reenlightenment;
    case HvMsr.TscInvariantControl:
      return HvAccess.TscInvariant;
  }
  return index >= HvMsr.CrashP0 && index <= HvMsr.CrashCtl ? NEEDS_CRASH : 0;
}

function isDebugMsr(index: number): boolean {
  return (index >= HvMsr.SyndbgControl &&
    index <= HvMsr.SyndbgPendingBuffer) || index === HvMsr.SyndbgOptions;
}

function pair(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

function split(value: bigint): [low: number, high: number] {
  return [
    Number(BigInt.asUintN(32, value)),
    Number(BigInt.asUintN(32, value >> 32n)),
  ];
}

function put(value: Uint32Array, number: bigint): MsrResult {
  value[0] = Number(BigInt.asUintN(32, number));
  value[1] = Number(BigInt.asUintN(32, number >> 32n));
  return MsrResult.Handled;
}
