/**
 * The hypervisor CPUID leaves that a partition shows.
 *
 * @module
 */
import type { CpuidEntry } from "../core/backend.ts";
import {
  HV_INTERFACE,
  HvAccess,
  HvFeature,
  HvLeaf,
  HvPrivilege,
  HvRecommend,
  STACK_DEBUGGING,
  VS_INTERFACE,
} from "./defs/cpuid.ts";
import type { Profile } from "./syndbg.ts";

/** What the leaves depend on. */
export interface LeafOptions {
  /** Whose version is shown. */
  profile: Profile;
  /** 12 characters. */
  vendor: string;
  /** Whether there is a debug device. */
  syndbg: boolean;
  /** Virtual processors in the partition. */
  vcpus: number;
  /** Whether there are local APICs. */
  apics: boolean;
  /** Whether there is a SynIC with timers, which needs APICs. */
  synic: boolean;
  /** Whether the guest may ask for the invariant TSC. */
  tscInvariant: boolean;
}

function word(text: string, at: number): number {
  let value = 0;
  for (let n = 3; n >= 0; n--) value = value * 256 + text.charCodeAt(at + n);
  return value;
}

function vendorLeaf(leaf: number, max: number, vendor: string): CpuidEntry {
  const text = vendor.padEnd(12, "\0").slice(0, 12);
  return {
    leaf,
    eax: max,
    ebx: word(text, 0),
    ecx: word(text, 4),
    edx: word(text, 8),
  };
}

/** MSRs of every partition. */
const ACCESS = HvAccess.VpRuntime | HvAccess.TimeRefCount |
  HvAccess.Hypercall | HvAccess.VpIndex | HvAccess.Reset |
  HvAccess.ReferenceTsc | HvAccess.Frequency;
/** Those that need an APIC to interrupt or to reach. */
const APIC_ACCESS = HvAccess.Apic | HvAccess.Reenlightenment;
const SYNIC_ACCESS = HvAccess.SynIc | HvAccess.SynTimers;
const SYNIC_PRIVILEGES = HvPrivilege.PostMessages | HvPrivilege.SignalEvents;
const APIC_HINTS = HvRecommend.ApicMsrs | HvRecommend.ClusterIpi;
const DEBUG_FEATURES = HvFeature.GuestDebugging | HvFeature.DebugMsrs;
/** Retries of a lock before the guest says that it waits long, as KVM has it. */
const SPIN_RETRIES = 0xfff;

/**
 * The leaves. Those of the virtualization stack (0x40000080 to 82) and the debugging bits
 * are only there with SynDbg: a machine that was not asked for it shows nothing of it. Bits are set only for
 * what is complete.
 *
 * Linux (arch/x86/kernel/cpu/mshyperv.c) asks for the vendor "Microsoft Hv" and the hypercall and VP index
 * MSRs, or it sees no Hyper-V at all; it takes the TSC's and the APIC timer's frequency from their MSRs if both bits
 * of them are set, the reference TSC page as its best clock unless the TSC is offered as invariant, and
 * timer 0 for its ticks with the bits for timers and direct mode (drivers/clocksource/hyperv_timer.c).
 */
export function hypervisorLeaves(options: LeafOptions): CpuidEntry[] {
  const { syndbg, profile, apics, synic } = options;
  const zero = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  const last = syndbg ? HvLeaf.StackProperties : HvLeaf.NestedOptimizations;
  // KVM reports build 14393; the other profile a current Windows Server.
  const version = profile === "kvm"
    ? { eax: 14_393, ebx: 0x000a_0000, ecx: 0, edx: 0 }
    : { eax: 20_348, ebx: 0x000a_0000, ecx: 0, edx: 0 };
  const leaves: CpuidEntry[] = [
    vendorLeaf(HvLeaf.Vendor, last, options.vendor),
    { leaf: HvLeaf.Interface, ...zero, eax: HV_INTERFACE },
    { leaf: HvLeaf.Version, ...version },
    {
      leaf: HvLeaf.Features,
      eax: ACCESS | (apics ? APIC_ACCESS : 0) | (synic ? SYNIC_ACCESS : 0) |
        (options.tscInvariant ? HvAccess.TscInvariant : 0),
      ebx: HvPrivilege.ExtendedHypercalls | (synic ? SYNIC_PRIVILEGES : 0) |
        (syndbg ? HvPrivilege.Debugging : 0),
      ecx: 0,
      edx: HvFeature.XmmInput | HvFeature.Frequency |
        HvFeature.CrashMsrs |
        HvFeature.ExtendedGvaRanges | (synic ? HvFeature.StimerDirect : 0) |
        (syndbg ? DEBUG_FEATURES : 0),
    },
    {
      leaf: HvLeaf.Recommendations,
      ...zero,
      eax: HvRecommend.RemoteTlbFlush | HvRecommend.RelaxedTiming |
        HvRecommend.ExProcessorMasks |
        (apics ? APIC_HINTS : 0) |
        (synic ? HvRecommend.DeprecateAutoEoi : 0),
      // A lone processor spins without limit: nobody could use the hint.
      ebx: options.vcpus > 1 ? SPIN_RETRIES : 0xffff_ffff,
    },
    { leaf: HvLeaf.Limits, ...zero, eax: options.vcpus, ebx: 64 },
    { leaf: HvLeaf.Hardware, ...zero },
    { leaf: HvLeaf.CpuManagement, ...zero },
    { leaf: HvLeaf.SharedVirtualMemory, ...zero },
    { leaf: HvLeaf.NestedFeatures, ...zero },
    { leaf: HvLeaf.NestedOptimizations, ...zero },
  ];
  if (!syndbg) return leaves;
  // KVM, QEMU and VirtualBox give 0 for the highest leaf of this range, OpenVMM its number.
  const stackMax = profile === "kvm" ? 0 : HvLeaf.StackProperties;
  return [
    ...leaves,
    vendorLeaf(HvLeaf.StackVendor, stackMax, "Microsoft VS"),
    { leaf: HvLeaf.StackInterface, ...zero, eax: VS_INTERFACE },
    { leaf: HvLeaf.StackProperties, ...zero, eax: STACK_DEBUGGING },
  ];
}

/**
 * The same leaves for a guest whose interrupts are not the partition's: without what needs a local APIC.
 * A kernel that is Hyper-V itself has those MSRs only with local APICs of its own.
 */
export function withoutApics(leaves: readonly CpuidEntry[]): CpuidEntry[] {
  const less = (word: number, bits: number): number => (word & ~bits) >>> 0;
  return leaves.map((entry) => {
    const { leaf, eax, ebx, edx } = entry;
    switch (leaf) {
      case HvLeaf.Features:
        return {
          ...entry,
          eax: less(eax, APIC_ACCESS | SYNIC_ACCESS),
          ebx: less(ebx, SYNIC_PRIVILEGES),
          edx: less(edx, HvFeature.StimerDirect),
        };
      case HvLeaf.Recommendations:
        return {
          ...entry,
          eax: less(eax, APIC_HINTS | HvRecommend.DeprecateAutoEoi),
        };
      default:
        return entry;
    }
  });
}
