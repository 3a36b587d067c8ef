/**
 * Numbers and struct offsets of the KVM interface on x86-64: `<linux/kvm.h>` and `<asm/kvm.h>`
 * (Linux include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/kvm.h). Names are the header's, in
 * camel case; a test compares every one with what a C compiler says.
 *
 * @module
 */

/** Requests of `ioctl`: `KVM_…`. */
export const Ioctl = {
  GetApiVersion: 0xae00,
  CreateVm: 0xae01,
  GetMsrIndexList: 0xc004_ae02,
  CheckExtension: 0xae03,
  GetVcpuMmapSize: 0xae04,
  GetSupportedCpuid: 0xc008_ae05,
  CreateVcpu: 0xae41,
  SetUserMemoryRegion: 0x4020_ae46,
  SetTssAddr: 0xae47,
  SetIdentityMapAddr: 0x4008_ae48,
  Run: 0xae80,
  GetRegs: 0x8090_ae81,
  SetRegs: 0x4090_ae82,
  GetSregs: 0x8138_ae83,
  SetSregs: 0x4138_ae84,
  Translate: 0xc018_ae85,
  Interrupt: 0x4004_ae86,
  GetMsrs: 0xc008_ae88,
  SetMsrs: 0x4008_ae89,
  SetCpuid2: 0x4008_ae90,
  GetMpState: 0x8004_ae98,
  SetMpState: 0x4004_ae99,
  Nmi: 0xae9a,
  SetGuestDebug: 0x4048_ae9b,
  GetVcpuEvents: 0x8040_ae9f,
  SetVcpuEvents: 0x4040_aea0,
  GetDebugregs: 0x8080_aea1,
  SetDebugregs: 0x4080_aea2,
  EnableCap: 0x4068_aea3,
  GetTscKhz: 0xaea3,
  GetXsave: 0x9000_aea4,
  SetXsave: 0x5000_aea5,
  GetXcrs: 0x8188_aea6,
  SetXcrs: 0x4188_aea7,
  GetSupportedHvCpuid: 0xc008_aec1,
  X86SetMsrFilter: 0x4188_aec6,
} as const;

/** Capabilities: `KVM_CAP_…`. */
export const Cap = {
  UserMemory: 3,
  SetTssAddr: 4,
  ExtCpuid: 7,
  MpState: 14,
  SetIdentityMapAddr: 37,
  VcpuEvents: 41,
  Hyperv: 44,
  Debugregs: 50,
  Xsave: 55,
  Xcrs: 56,
  GetTscKhz: 61,
  ImmediateExit: 136,
  X86UserSpaceMsr: 188,
  X86MsrFilter: 189,
  EnforcePvFeatureCpuid: 190,
  SysHypervCpuid: 191,
  HypervEnforceCpuid: 199,
} as const;

/** Exit reasons: `KVM_EXIT_…`. */
export const Exit = {
  Unknown: 0,
  Io: 2,
  Debug: 4,
  Hlt: 5,
  Mmio: 6,
  IrqWindowOpen: 7,
  Shutdown: 8,
  FailEntry: 9,
  Intr: 10,
  SetTpr: 11,
  Nmi: 16,
  InternalError: 17,
  SystemEvent: 24,
  Hyperv: 27,
  X86Rdmsr: 29,
  X86Wrmsr: 30,
} as const;

/** `struct kvm_run`, of which the kernel and we share a page. */
export const Run = {
  requestInterruptWindow: 0,
  immediateExit: 1,
  exitReason: 8,
  readyForInterruptInjection: 12,
  ifFlag: 13,
  cr8: 16,
} as const;
/** `kvm_run.io`. */
export const RunIo = {
  direction: 32,
  size: 33,
  port: 34,
  count: 36,
  dataOffset: 40,
} as const;
/** `kvm_run.mmio`. */
export const RunMmio = {
  physAddr: 32,
  data: 40,
  len: 48,
  isWrite: 52,
} as const;
/** `kvm_run.msr`. */
export const RunMsr = { error: 32, reason: 40, index: 44, data: 48 } as const;
/** `kvm_run.debug.arch`. */
export const RunDebug = { exception: 32, pc: 40, dr6: 48, dr7: 56 } as const;
/** `kvm_run.internal`. */
export const RunInternal = { suberror: 32, ndata: 36, data: 40 } as const;
/** `kvm_run.fail_entry`. */
export const RunFailEntry = { hardwareEntryFailureReason: 32 } as const;
/** `kvm_run.system_event`. */
export const RunSystemEvent = { type: 32 } as const;
/** `kvm_run.hyperv`. */
export const RunHyperv = { type: 32 } as const;
/** `kvm_run.hyperv.u.hcall`. */
export const RunHcall = { input: 40, result: 48, params: 56 } as const;
/** `kvm_run.hyperv.u.syndbg`. */
export const RunSyndbg = {
  msr: 40,
  control: 48,
  status: 56,
  sendPage: 64,
  recvPage: 72,
  pendingPage: 80,
} as const;

/** Values of `kvm_run.io.direction`: `KVM_EXIT_IO_…`. */
export const IoDirection = { In: 0, Out: 1 } as const;
/** Values of `kvm_run.hyperv.type`: `KVM_EXIT_HYPERV_…`. */
export const HypervExit = { Synic: 1, Hcall: 2, Syndbg: 3 } as const;
/** Bits of KVM_CAP_X86_USER_SPACE_MSR: `KVM_MSR_EXIT_REASON_…`. */
export const MsrExitReason = { Unknown: 2, Filter: 4 } as const;
/** Values of `kvm_run.system_event.type`: `KVM_SYSTEM_EVENT_…`. */
export const SystemEvent = { Shutdown: 1, Reset: 2, Crash: 3 } as const;

/** `struct kvm_regs`. */
export const Regs = {
  rax: 0,
  rbx: 8,
  rcx: 16,
  rdx: 24,
  rsi: 32,
  rdi: 40,
  rsp: 48,
  rbp: 56,
  r8: 64,
  r9: 72,
  r10: 80,
  r11: 88,
  r12: 96,
  r13: 104,
  r14: 112,
  r15: 120,
  rip: 128,
  rflags: 136,
} as const;

/** `struct kvm_sregs`. */
export const Sregs = {
  cs: 0,
  ds: 24,
  es: 48,
  fs: 72,
  gs: 96,
  ss: 120,
  tr: 144,
  ldt: 168,
  gdt: 192,
  idt: 208,
  cr0: 224,
  cr2: 232,
  cr3: 240,
  cr4: 248,
  cr8: 256,
  efer: 264,
  apicBase: 272,
} as const;

/** `struct kvm_segment`. */
export const SegmentField = {
  base: 0,
  limit: 8,
  selector: 12,
  type: 14,
  present: 15,
  dpl: 16,
  db: 17,
  s: 18,
  l: 19,
  g: 20,
  avl: 21,
  unusable: 22,
} as const;

/** `struct kvm_dtable`. */
export const DtableField = { base: 0, limit: 8 } as const;

/** `struct kvm_translation`. */
export const Translation = {
  linearAddress: 0,
  physicalAddress: 8,
  valid: 16,
} as const;

/** `struct kvm_userspace_memory_region`. */
export const MemoryRegion = {
  slot: 0,
  flags: 4,
  guestPhysAddr: 8,
  memorySize: 16,
  userspaceAddr: 24,
} as const;

/** `struct kvm_enable_cap`. */
export const EnableCap = { cap: 0, flags: 4, args: 8 } as const;

/** `struct kvm_msrs`, and `struct kvm_msr_entry` in it. */
export const Msrs = { nmsrs: 0, entries: 8 } as const;
/** `struct kvm_msr_entry`. */
export const MsrEntry = { index: 0, data: 8 } as const;
/** `struct kvm_msr_list`. */
export const MsrList = { nmsrs: 0, indices: 4 } as const;

/** `struct kvm_msr_filter`. */
export const MsrFilter = { flags: 0, ranges: 8 } as const;
/** `struct kvm_msr_filter_range`. */
export const MsrFilterRange = {
  flags: 0,
  nmsrs: 4,
  base: 8,
  bitmap: 16,
} as const;
/** Bits of `kvm_msr_filter_range.flags`: `KVM_MSR_FILTER_…`. */
export const MsrFilterFlag = { Read: 1, Write: 2 } as const;

/** `struct kvm_cpuid2`. */
export const Cpuid2 = { nent: 0, entries: 8 } as const;
/** `struct kvm_cpuid_entry2`. */
export const CpuidEntry2 = {
  function: 0,
  index: 4,
  flags: 8,
  eax: 12,
  ebx: 16,
  ecx: 20,
  edx: 24,
} as const;
/** Bits of `kvm_cpuid_entry2.flags`: `KVM_CPUID_FLAG_…`. */
export const CpuidFlag = { SignifcantIndex: 1 } as const;

/** `struct kvm_vcpu_events`. */
export const VcpuEvents = {
  "exception.injected": 0,
  "exception.nr": 1,
  "exception.hasErrorCode": 2,
  "interrupt.injected": 8,
  "nmi.injected": 12,
  "nmi.pending": 13,
  flags: 20,
} as const;

/** `struct kvm_guest_debug`. */
export const GuestDebugField = { control: 0, "arch.debugreg": 8 } as const;
/** Bits of `kvm_guest_debug.control`: `KVM_GUESTDBG_…`. */
export const GuestDebugBit = {
  Enable: 1,
  Singlestep: 2,
  UseSwBp: 0x1_0000,
  UseHwBp: 0x2_0000,
  InjectBp: 0x8_0000,
} as const;

/** Sizes of structs in bytes; of the open-ended ones the fixed part. */
export const Size = {
  regs: 144,
  sregs: 312,
  segment: 24,
  translation: 24,
  interrupt: 4,
  userspaceMemoryRegion: 32,
  enableCap: 104,
  msrs: 8,
  msrEntry: 16,
  msrList: 4,
  msrFilter: 392,
  msrFilterRange: 24,
  cpuid2: 8,
  cpuidEntry2: 40,
  vcpuEvents: 64,
  debugregs: 128,
  xsave: 4096,
  xcrs: 392,
  mpState: 4,
  guestDebug: 72,
} as const;

/** The API version that all kernels since 2.6.22 have. */
export const API_VERSION = 12;
