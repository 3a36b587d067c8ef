/**
 * The machine's parts as their user sees them: a {@linkcode Backend} makes a
 * {@linkcode Vm} over guest RAM, the VM makes vCPUs, and a vCPU runs guest code
 * until something ends the run. What the guest asks for on the way (an MSR, a
 * port, a hypercall) goes to the VM's {@linkcode VmHost}; it is the same
 * interface whatever executes the guest.
 *
 * @module
 */
import type { GuestMemory } from "./guest_memory.ts";

/** What became of an MSR access: handled, nobody's, or somebody's who says no. */
export const MsrResult = {
  /** The access is done; on a read the value is set. */
  Handled: 0,
  /** Not an MSR of the one who was asked; another may know it. */
  Unknown: 1,
  /** A known MSR, and the access is not allowed: #GP(0). */
  Refused: 2,
} as const;
/** A value of {@linkcode MsrResult}. */
export type MsrResult = typeof MsrResult[keyof typeof MsrResult];

/** What became of a VMCALL or VMMCALL. */
export const HypercallResult = {
  /** Done, result registers are set; the guest goes on after the instruction. */
  Handled: 0,
  /** Nobody's hypercall: the guest gets #UD. */
  Unknown: 1,
  /** Not allowed from here (CPL, mode, feature): the guest gets #UD. */
  InvalidOpcode: 2,
  /** Not finished: the instruction is executed again after pending events. */
  Retry: 3,
} as const;
/** A value of {@linkcode HypercallResult}. */
export type HypercallResult =
  typeof HypercallResult[keyof typeof HypercallResult];

/** One CPUID leaf, in the form of `struct kvm_cpuid_entry2` (linux/kvm.h). */
export interface CpuidEntry {
  /** EAX on input. */
  leaf: number;
  /** ECX on input where the leaf has subleaves; absent: any ECX. */
  subleaf?: number;
  /** EAX on output, as an unsigned 32-bit number. */
  eax: number;
  /** EBX on output. */
  ebx: number;
  /** ECX on output. */
  ecx: number;
  /** EDX on output. */
  edx: number;
}

/** The registers of a vCPU at a VMCALL or VMMCALL. One object is reused. */
export interface HypercallFrame {
  /** Which vCPU calls. */
  readonly vcpu: number;
  /** Long mode with CS.L set: 64-bit register conventions. */
  readonly longMode: boolean;
  /** CR0.PE set and EFLAGS.VM clear. */
  readonly protectedMode: boolean;
  /** Current privilege level, 0 to 3. */
  readonly cpl: number;
  /**
   * The 16 general registers as pairs of low and high word, in the order RAX,
   * RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15. The handler writes results here.
   */
  readonly gpr: Uint32Array;
  /** XMM0 to XMM5 as 16 bytes each, little-endian; absent if the vCPU has none. */
  readonly xmm?: Uint8Array;
}

/**
 * What the guest can ask the rest of the machine. All calls are made on the
 * vCPU's thread while the guest is stopped at the instruction in question. None may throw:
 * the guest is hostile, and an exception would be the host's.
 *
 * The local APIC is the host's. So its page is outside RAM, and guest writes of IA32_APIC_BASE (0x1B),
 * which the vCPU keeps a copy of, and all accesses of IA32_TSC_DEADLINE (0x6E0) and of the x2APIC's MSRs
 * (0x800 to 0x8FF) come here, as far as {@linkcode Backend.apicMsrs} says. A host that has none answers
 * {@linkcode MsrResult.Unknown}.
 */
export interface VmHost {
  /** RDMSR of an MSR that is not the CPU's own. `value[0]` is EAX, `value[1]` EDX. */
  readMsr(vcpu: number, index: number, value: Uint32Array): MsrResult;
  /** WRMSR of an MSR that is not the CPU's own; `low` and `high` are unsigned. */
  writeMsr(vcpu: number, index: number, low: number, high: number): MsrResult;
  /** IN of `size` bytes (1, 2, 4): the value, unsigned. A free port reads all ones. */
  readPort(vcpu: number, port: number, size: number): number;
  /** OUT of `size` bytes (1, 2, 4). */
  writePort(vcpu: number, port: number, size: number, value: number): void;
  /** Read outside RAM: fills `data` (1 to 8 bytes), which is reused. Free space reads all ones. */
  readMmio(vcpu: number, gpa: number, data: Uint8Array): void;
  /** Write outside RAM of `data` (1 to 8 bytes), which is reused. */
  writeMmio(vcpu: number, gpa: number, data: Uint8Array): void;
  /** VMCALL or VMMCALL. */
  hypercall(frame: HypercallFrame): HypercallResult;
  /**
   * The vCPU takes the external interrupt that {@linkcode Vcpu.setInterruptRequest}
   * announced: the vector (0 to 255), or -1 if it has gone (nothing is delivered).
   */
  acknowledgeInterrupt(vcpu: number): number;
  /**
   * The guest has changed CR8, which is the upper half of the local APIC's task priority: its value, 0
   * to 15. Told before the next call of any other method for that vCPU, and before its run comes
   * back. A host without a local APIC does without.
   */
  setTaskPriority?(vcpu: number, priority: number): void;
}

/** Why {@linkcode Vcpu.run} came back. One object per vCPU is reused. */
export type VcpuExit =
  /** The time slice is over or {@linkcode Vcpu.kick} was called: run again. */
  | { reason: "interrupted" }
  /** The guest executed HLT and no event is there to wake it. */
  | { reason: "hlt" }
  /** Triple fault: the vCPU must be reset. */
  | { reason: "shutdown" }
  /** A debug event that the host asked for with {@linkcode Vcpu.setGuestDebug}. */
  | { reason: "debug"; rip: bigint; dr6: bigint; breakpoint: boolean }
  /** The backend cannot go on; `message` says why. */
  | { reason: "internal-error"; message: string };

/** General registers, all unsigned 64-bit. */
export interface Registers {
  /** RAX. */
  rax: bigint;
  /** RCX. */
  rcx: bigint;
  /** RDX. */
  rdx: bigint;
  /** RBX. */
  rbx: bigint;
  /** RSP. */
  rsp: bigint;
  /** RBP. */
  rbp: bigint;
  /** RSI. */
  rsi: bigint;
  /** RDI. */
  rdi: bigint;
  /** R8. */
  r8: bigint;
  /** R9. */
  r9: bigint;
  /** R10. */
  r10: bigint;
  /** R11. */
  r11: bigint;
  /** R12. */
  r12: bigint;
  /** R13. */
  r13: bigint;
  /** R14. */
  r14: bigint;
  /** R15. */
  r15: bigint;
  /** Instruction pointer. */
  rip: bigint;
  /** Flags. */
  rflags: bigint;
}

/** A segment register with its hidden part (SDM volume 3A, 3.4.3). */
export interface Segment {
  /** Visible part. */
  selector: number;
  /** Linear base address. */
  base: bigint;
  /** Limit in bytes, granularity already applied. */
  limit: number;
  /** Descriptor type, 4 bits. */
  type: number;
  /** Code or data (true) or system (false) descriptor. */
  s: boolean;
  /** Descriptor privilege level, 0 to 3. */
  dpl: number;
  /** Present. */
  present: boolean;
  /** Bit for system software. */
  avl: boolean;
  /** 64-bit code segment. */
  l: boolean;
  /** Default operation size or stack size is 32 bits. */
  db: boolean;
  /** Limit was given in pages. */
  g: boolean;
  /** A null selector, or one that was made unusable. */
  unusable: boolean;
}

/** GDTR or IDTR. */
export interface DescriptorTable {
  /** Linear address of the table. */
  base: bigint;
  /** Its last byte. */
  limit: number;
}

/** System registers, as `struct kvm_sregs` groups them. */
export interface SystemRegisters {
  /** Code segment. */
  cs: Segment;
  /** Data segment. */
  ds: Segment;
  /** Extra segment. */
  es: Segment;
  /** FS, with its base. */
  fs: Segment;
  /** GS, with its base. */
  gs: Segment;
  /** Stack segment. */
  ss: Segment;
  /** Task register. */
  tr: Segment;
  /** Local descriptor table register. */
  ldt: Segment;
  /** Global descriptor table register. */
  gdt: DescriptorTable;
  /** Interrupt descriptor table register. */
  idt: DescriptorTable;
  /** Mode and paging. */
  cr0: bigint;
  /** Linear address of the last page fault. */
  cr2: bigint;
  /** Page table base and PCID. */
  cr3: bigint;
  /** Extensions. */
  cr4: bigint;
  /** Task priority. */
  cr8: bigint;
  /** MSR IA32_EFER. */
  efer: bigint;
  /** MSR IA32_APIC_BASE. */
  apicBase: bigint;
}

/** What of the guest stops in {@linkcode Vcpu.run} with reason `debug`. */
export interface GuestDebug {
  /** Stop after each instruction. */
  singleStep?: boolean;
  /** External interrupts wait, unless the guest is halted. */
  blockInterrupts?: boolean;
  /** Stop at INT3 instead of delivering #BP. */
  softwareBreakpoints?: boolean;
  /** DR0 to DR3 and DR7 of the host; the guest's own are hidden meanwhile. */
  hardwareBreakpoints?: {
    /** Linear addresses, as in DR0 to DR3. */
    addresses: readonly [bigint, bigint, bigint, bigint];
    /** Which of them, and what they stop at (SDM volume 3B, 19.2.4). */
    dr7: bigint;
  };
}

/** All state of a vCPU as plain data: numbers, bigints, strings, arrays, bytes. */
export interface VcpuState {
  /** The backend's name, and the version of its layout. */
  format: string;
  /** The state. */
  data: Record<string, unknown>;
}

/**
 * One virtual processor. Not safe for use from two threads at once. While another vCPU of the same
 * VM runs on this thread (so that its {@linkcode VmHost} is being asked), only {@linkcode Vcpu.kick},
 * {@linkcode Vcpu.setInterruptRequest}, {@linkcode Vcpu.injectNmi}, {@linkcode Vcpu.flushTlb},
 * {@linkcode Vcpu.setCpuid} and reading the TSC by {@linkcode Vcpu.getMsr} are allowed.
 */
export interface Vcpu {
  /** Number of the vCPU in its VM, from 0. */
  readonly id: number;
  /**
   * Runs the guest.
   *
   * @param slice About how many milliseconds to run at most. 0: a turn among vCPUs that share a thread,
   * which the interpreter counts in instructions, so that their order is the same every time.
   */
  run(slice?: number): VcpuExit;
  /**
   * Runs the guest elsewhere than on this thread, where a backend can and it pays. The host is asked on this thread all
   * the same. Until it is settled only {@linkcode Vcpu.kick}, {@linkcode Vcpu.setInterruptRequest},
   * {@linkcode Vcpu.injectNmi}, {@linkcode Vcpu.flushTlb} and reading the TSC by {@linkcode Vcpu.getMsr} are allowed.
   */
  runAsync?: ((slice?: number) => Promise<VcpuExit>) | undefined;
  /** Makes a running or the next {@linkcode Vcpu.run} return soon with `interrupted`. */
  kick(): void;
  /** Sets the state of the INTR line. */
  setInterruptRequest(asserted: boolean): void;
  /** Raises a non-maskable interrupt. */
  injectNmi(): void;
  /** The local APIC's task priority was written: CR8 is to be this, 0 to 15. */
  setTaskPriority(priority: number): void;
  /** Forgets what it has cached of the guest's page tables. */
  flushTlb(): void;
  /** Puts the vCPU into its state after RESET (SDM volume 3A, 9.1.1). */
  reset(): void;
  /**
   * Puts the vCPU into its state after INIT (SDM volume 3A, table 9-1): as after RESET, but FPU and
   * vector registers, the TSC, the MSRs but EFER, and CR0.CD and NW stay. Whether it then waits for a
   * startup IPI is the machine's affair.
   */
  init(): void;
  /** Startup IPI: lets it start in real mode at `vector` * 4 KiB (SDM volume 3A, 9.4.3). */
  startup(vector: number): void;
  /** Sets the CPUID leaves that the guest sees; others read as the SDM says for absent leaves. */
  setCpuid(entries: readonly CpuidEntry[]): void;
  /** Reads the general registers. */
  getRegisters(): Registers;
  /** Sets the given general registers, others stay. */
  setRegisters(values: Partial<Registers>): void;
  /** Reads the system registers. */
  getSystemRegisters(): SystemRegisters;
  /** Sets the given system registers, others stay. */
  setSystemRegisters(values: Partial<SystemRegisters>): void;
  /** Reads one of the CPU's own MSRs as the host: undefined if it has none such. */
  getMsr(index: number): bigint | undefined;
  /** Sets one of the CPU's own MSRs as the host: false if it has none such. */
  setMsr(index: number, value: bigint): boolean;
  /** Turns debugging by the host on or off (undefined). */
  setGuestDebug(debug: GuestDebug | undefined): void;
  /**
   * After an exit for a breakpoint instruction: the guest gets the #BP that
   * {@linkcode GuestDebug.softwareBreakpoints} kept from it.
   */
  passBreakpoint(): void;
  /**
   * Translates a linear address as a supervisor data read would, without side effects: the
   * guest-physical address, or undefined where nothing is mapped.
   */
  translate(linear: bigint): bigint | undefined;
  /** Copies all state out. */
  save(): VcpuState;
  /** Takes state back that {@linkcode Vcpu.save} of the same backend gave. */
  restore(state: VcpuState): void;
}

/** A virtual machine: RAM and vCPUs. */
export interface Vm {
  /** Its RAM. */
  readonly memory: GuestMemory;
  /** Makes the next vCPU, in reset state. */
  createVcpu(): Vcpu;
  /** Frees what the VM holds; no vCPU may run any more. */
  close(): void;
}

/** A way of executing guests. */
export interface Backend {
  /** Short name, such as `interp` or `kvm`. */
  readonly name: string;
  /** The CPUID leaves that this backend can honour, hypervisor leaves not included. */
  supportedCpuid(): CpuidEntry[];
  /** The guest's TSC frequency in Hz. */
  readonly tscFrequency: number;
  /**
   * Where the guest's VMCALL and VMMCALL do not come to the {@linkcode VmHost}: machine code, the same for all modes, of a
   * function whose call does.
   */
  readonly hypercallCode?: Uint8Array<ArrayBuffer> | undefined;
  /**
   * Whether guest accesses of a local APIC's MSRs reach the {@linkcode VmHost}. If not, its guests are
   * shown neither x2APIC mode nor the TSC deadline.
   */
  readonly apicMsrs: boolean;
  /** Makes a VM over `memory`, whose guest talks to `host`. */
  createVm(memory: GuestMemory, host: VmHost): Vm;
}
