import type { CpuidEntry } from "../core/backend.ts";
import {
  HV_INTERFACE,
  HvAccess,
  HvFeature,
  HvLeaf,
  STACK_DEBUGGING,
} from "./defs/cpuid.ts";
import { HvMsr } from "./defs/msr.ts";

/**
 * What the guest's CPUID opens. Computed when the leaves change, so that an MSR access
 * tests one word.
 */
export class Gates {
  /** Leaf 0x40000001 says "Hv#1". */
  readonly enabled: boolean;
  /** Leaf 0x40000082 says that there is a debug device. */
  readonly syndbg: boolean;
  /** Access bits (leaf 3 EAX); all ones where CPUID is not enforced. */
  readonly access: number;
  /** Privileges (leaf 3 EBX). */
  readonly privileges: number;
  /** Features (leaf 3 EDX). */
  readonly features: number;
  /** Recommendations (leaf 4 EAX). */
  readonly recommendations: number;
  /** Retries before a long spin is notified (leaf 4 EBX); 0 and all ones mean never. */
  readonly spinNotify: boolean;
  /** The guest can ask for the invariant TSC, enforced or not. */
  readonly tscInvariant: boolean;

  constructor(entries: readonly CpuidEntry[], enforce: boolean) {
    const find = (leaf: number): CpuidEntry | undefined =>
      entries.find((entry) => entry.leaf === leaf);
    const features = find(HvLeaf.Features);
    const hints = find(HvLeaf.Recommendations);
    const access = (features?.eax ?? 0) | 0;
    this.enabled = ((find(HvLeaf.Interface)?.eax ?? 0) >>> 0) === HV_INTERFACE;
    this.syndbg =
      ((find(HvLeaf.StackProperties)?.eax ?? 0) & STACK_DEBUGGING) !== 0;
    this.access = enforce ? access : -1;
    this.privileges = enforce ? (features?.ebx ?? 0) | 0 : -1;
    this.features = enforce ? (features?.edx ?? 0) | 0 : -1;
    this.recommendations = enforce ? (hints?.eax ?? 0) | 0 : -1;
    const spin = (hints?.ebx ?? 0) | 0;
    this.spinNotify = !enforce || (spin !== 0 && spin !== -1);
    this.tscInvariant = (access & HvAccess.TscInvariant) !== 0;
  }

  /** Whether a guest may use an MSR, other than the debugger's, that there is. */
  opens(index: number): boolean {
    return (index >= HvMsr.CrashP0 && index <= HvMsr.CrashCtl)
      ? (this.features & HvFeature.CrashMsrs) !== 0
      : (this.access & accessNeeded(index)) !== 0;
  }
}

/** Access bit (leaf 3 EAX) that opens an MSR; any for numbers that are none. */
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
    case HvMsr.Eoi:
    case HvMsr.Icr:
    case HvMsr.Tpr:
    case HvMsr.VpAssistPage:
      return HvAccess.Apic;
    case HvMsr.Scontrol:
    case HvMsr.Sversion:
    case HvMsr.Siefp:
    case HvMsr.Simp:
    case HvMsr.Eom:
      return HvAccess.SynIc;
    case HvMsr.ReenlightenmentControl:
    case HvMsr.TscEmulationControl:
    case HvMsr.TscEmulationStatus:
      return HvAccess.Reenlightenment;
    case HvMsr.TscInvariantControl:
      return HvAccess.TscInvariant;
  }
  if (index >= HvMsr.Sint0 && index <= HvMsr.Sint15) return HvAccess.SynIc;
  return index >= HvMsr.Stimer0Config && index <= HvMsr.Stimer3Count
    ? HvAccess.SynTimers
    : -1;
}
