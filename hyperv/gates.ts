import type { CpuidEntry } from "../core/backend.ts";
import { HV_INTERFACE, HvLeaf, STACK_DEBUGGING } from "./defs/cpuid.ts";

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

  constructor(entries: readonly CpuidEntry[], enforce: boolean) {
    const find = (leaf: number): CpuidEntry | undefined =>
      entries.find((entry) => entry.leaf === leaf);
    const features = find(HvLeaf.Features);
    const hints = find(HvLeaf.Recommendations);
    this.enabled = ((find(HvLeaf.Interface)?.eax ?? 0) >>> 0) === HV_INTERFACE;
    this.syndbg =
      ((find(HvLeaf.StackProperties)?.eax ?? 0) & STACK_DEBUGGING) !== 0;
    this.access = enforce ? (features?.eax ?? 0) | 0 : -1;
    this.privileges = enforce ? (features?.ebx ?? 0) | 0 : -1;
    this.features = enforce ? (features?.edx ?? 0) | 0 : -1;
    this.recommendations = enforce ? (hints?.eax ?? 0) | 0 : -1;
    const spin = (hints?.ebx ?? 0) | 0;
    this.spinNotify = !enforce || (spin !== 0 && spin !== -1);
  }
}
