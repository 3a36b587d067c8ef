import type { Backend, CpuidEntry, Vm } from "../core/backend.ts";
import type { KernelHyperv } from "../hyperv/defs/kernel_exits.ts";

/**
 * Who is Hyper-V to the guest: `user`, the VM's host alone, or `kernel`, KVM's own emulation, which
 * hands debug commands on.
 */
export type HypervMode = "user" | "kernel";

/** How KVM is used. */
export interface KvmOptions {
  /** Path of the C library, if it is not at one of its usual places. */
  libc?: string;
  /** How the guest's Hyper-V is made. */
  hyperv?: {
    /** Default `auto`: `kernel` where KVM has it with the synthetic debugger, else `user`. */
    mode?: HypervMode | "auto";
    /** For mode `kernel`: MSRs and calls that no CPUID bit offers are refused. */
    enforceCpuid?: boolean;
  };
}

/** KVM as a backend. */
export interface KvmBackend extends Backend {
  /** Who is Hyper-V. */
  readonly hyperv: HypervMode;
  /**
   * What a hypercall page has to hold so that its calls come to the VM's host (mode `user`, where VMCALL and VMMCALL do
   * not trap); undefined where the kernel fills the page. See {@linkcode HYPERCALL_CODE}.
   */
  readonly hypercallCode: Uint8Array<ArrayBuffer> | undefined;
  createVm(...parameters: Parameters<Backend["createVm"]>): KvmVm;
}

/** A VM of KVM. */
export type KvmVm = Vm & KernelHyperv;

/** What is known of the kernel's KVM, asked once. */
export interface KvmFacts {
  /** Bytes to map for each vCPU. */
  readonly runSize: number;
  /** MSRs that make up a vCPU's state. */
  readonly msrs: readonly number[];
  /** Leaves for the guest. */
  readonly cpuid: readonly CpuidEntry[];
  /** Leaves of KVM's own Hyper-V in mode `kernel`. */
  readonly hypervCpuid: readonly CpuidEntry[] | undefined;
  /** The guest's TSC frequency in Hz. */
  readonly tscFrequency: number;
  /** The kernel can be told to refuse its own paravirtual MSRs. */
  readonly enforcesPvCpuid: boolean;
  /** KVM's own Hyper-V can refuse what its CPUID does not offer. */
  readonly enforcesHypervCpuid: boolean;
  /** The kernel wants the addresses of its own pages for VMX. */
  readonly wantsTssAddress: boolean;
}
