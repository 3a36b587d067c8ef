/**
 * Synthetic MSRs (TLFS appendix F; Linux arch/x86/kvm/hyperv.h and include/hyperv/hvgdk_mini.h).
 *
 * @module
 */

/** MSR numbers. */
export const HvMsr = {
  GuestOsId: 0x4000_0000,
  Hypercall: 0x4000_0001,
  VpIndex: 0x4000_0002,
  Reset: 0x4000_0003,
  VpRuntime: 0x4000_0010,
  TimeRefCount: 0x4000_0020,
  ReferenceTsc: 0x4000_0021,
  TscFrequency: 0x4000_0022,
  ApicFrequency: 0x4000_0023,
  Eoi: 0x4000_0070,
  Icr: 0x4000_0071,
  Tpr: 0x4000_0072,
  VpAssistPage: 0x4000_0073,
  Scontrol: 0x4000_0080,
  Sversion: 0x4000_0081,
  Siefp: 0x4000_0082,
  Simp: 0x4000_0083,
  Eom: 0x4000_0084,
  Sint0: 0x4000_0090,
  Sint15: 0x4000_009f,
  Stimer0Config: 0x4000_00b0,
  Stimer3Count: 0x4000_00b7,
  SyndbgControl: 0x4000_00f1,
  SyndbgStatus: 0x4000_00f2,
  SyndbgSendBuffer: 0x4000_00f3,
  SyndbgRecvBuffer: 0x4000_00f4,
  SyndbgPendingBuffer: 0x4000_00f5,
  SyndbgOptions: 0x4000_00ff,
  CrashP0: 0x4000_0100,
  CrashP4: 0x4000_0104,
  CrashCtl: 0x4000_0105,
  ReenlightenmentControl: 0x4000_0106,
  TscEmulationControl: 0x4000_0107,
  TscEmulationStatus: 0x4000_0108,
  TscInvariantControl: 0x4000_0118,
} as const;

/** First number that is not a synthetic MSR any more; the first one is 0x40000000. */
export const HV_MSR_END = 0x4000_0200;
