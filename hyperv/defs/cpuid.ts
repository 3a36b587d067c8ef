/**
 * Hypervisor CPUID leaves (TLFS chapter 2; Linux include/hyperv/hvgdk_mini.h and
 * arch/x86/kvm/hyperv.h for 0x40000080 to 82).
 *
 * @module
 */

/** Leaf numbers. */
export const HvLeaf = {
  Vendor: 0x4000_0000,
  Interface: 0x4000_0001,
  Version: 0x4000_0002,
  Features: 0x4000_0003,
  Recommendations: 0x4000_0004,
  Limits: 0x4000_0005,
  Hardware: 0x4000_0006,
  CpuManagement: 0x4000_0007,
  SharedVirtualMemory: 0x4000_0008,
  NestedFeatures: 0x4000_0009,
  NestedOptimizations: 0x4000_000a,
  StackVendor: 0x4000_0080,
  StackInterface: 0x4000_0081,
  StackProperties: 0x4000_0082,
} as const;

/** "Hv#1". */
export const HV_INTERFACE = 0x3123_7648;
/** "VS#1". */
export const VS_INTERFACE = 0x3123_5356;

/** Bits of leaf 0x40000003 EAX: access to MSRs. */
export const HvAccess = {
  VpRuntime: 1 << 0,
  TimeRefCount: 1 << 1,
  SynIc: 1 << 2,
  SynTimers: 1 << 3,
  Apic: 1 << 4,
  Hypercall: 1 << 5,
  VpIndex: 1 << 6,
  Reset: 1 << 7,
  ReferenceTsc: 1 << 9,
  Frequency: 1 << 11,
  Reenlightenment: 1 << 13,
  TscInvariant: 1 << 15,
} as const;

/** Bits of leaf 0x40000003 EBX: partition privileges. */
export const HvPrivilege = {
  PostMessages: 1 << 4,
  SignalEvents: 1 << 5,
  /** The debug hypercalls. QEMU's constant of that name is one bit off. */
  Debugging: 1 << 11,
  ExtendedHypercalls: 1 << 20,
} as const;

/** Bits of leaf 0x40000003 EDX: further features. */
export const HvFeature = {
  GuestDebugging: 1 << 1,
  XmmInput: 1 << 4,
  Frequency: 1 << 8,
  CrashMsrs: 1 << 10,
  DebugMsrs: 1 << 11,
  /** Lists of addresses to flush may hold ranges of large pages. */
  ExtendedGvaRanges: 1 << 14,
  StimerDirect: 1 << 19,
} as const;

/** Bits of leaf 0x40000004 EAX: what a guest does well to use. Some open hypercalls. */
export const HvRecommend = {
  RemoteTlbFlush: 1 << 2,
  /** MSRs for EOI, ICR and TPR. */
  ApicMsrs: 1 << 3,
  /** No watchdogs: the machine may stand still. */
  RelaxedTiming: 1 << 5,
  /** No auto-EOI. */
  DeprecateAutoEoi: 1 << 9,
  ClusterIpi: 1 << 10,
  ExProcessorMasks: 1 << 11,
} as const;

/** Bit of leaf 0x40000082 EAX: there is a synthetic debug device. */
export const STACK_DEBUGGING = 1 << 1;
