/**
 * What a kernel that is Hyper-V to its guest hands on to the VMM (Documentation/virt/kvm/api.rst,
 * KVM_EXIT_HYPERV and KVM_EXIT_SYSTEM_EVENT).
 *
 * @module
 */

/** Serves such a kernel. None of its methods may throw. */
export interface HypervHandler {
  /**
   * The guest wrote CONTROL or PENDING of the debugger's MSRs; the gates are done.
   *
   * @param vcpu Which vCPU.
   * @param msr Which: 0x400000F1 or 0x400000F5.
   * @param control Value of CONTROL.
   * @param sendGpa Address of the send buffer.
   * @param receiveGpa Address of the receive buffer.
   * @param pendingGpa Address of the pending byte.
   * @returns STATUS, which the kernel takes after CONTROL only.
   */
  syndbg(
    vcpu: number,
    msr: number,
    control: bigint,
    sendGpa: bigint,
    receiveGpa: bigint,
    pendingGpa: bigint,
  ): bigint;
  /**
   * A hypercall that the kernel does not do itself.
   *
   * @param vcpu Which vCPU calls.
   * @param input The hypercall input value (TLFS 3.7).
   * @param first GPA of the input, or the first parameter of a fast call.
   * @param second GPA of the output, or the second parameter of a fast call.
   * @returns The hypercall result value (TLFS 3.8).
   */
  hypercall(
    vcpu: number,
    input: bigint,
    first: bigint,
    second: bigint,
  ): bigint;
  /** The guest wrote the RESET MSR. */
  reset(): void;
  /** The guest reported a crash: CRASH_P0 to P4. */
  crash(parameters: readonly [bigint, bigint, bigint, bigint, bigint]): void;
}

/** A VM whose kernel can be Hyper-V to its guest. */
export interface KernelHyperv {
  /** Whether it is: the kernel then keeps the synthetic MSRs. */
  readonly kernelHyperv: boolean;
  /** Serves what it hands on. */
  hypervHandler: HypervHandler | undefined;
}
