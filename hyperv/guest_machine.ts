import type { Backend, CpuidEntry, Vm } from "../core/backend.ts";
import { GuestMemory } from "../core/guest_memory.ts";
import { Machine, type MachineOptions } from "../core/machine.ts";
import type { KernelHyperv } from "./defs/kernel_exits.ts";
import { HvMsr } from "./defs/msr.ts";
import { withoutApics } from "./leaves.ts";
import { Partition, type PartitionOptions } from "./partition.ts";

/** IA32_TIME_STAMP_COUNTER (SDM volume 4, table 2-2). */
const MSR_TSC = 0x10;
/** Bit 31 of leaf 1 ECX: there is a hypervisor (SDM volume 2A, CPUID). */
const HYPERVISOR_PRESENT = 0x8000_0000;
/** Bit 8 of leaf 0x80000007 EDX (APM volume 3, CPUID). */
const INVARIANT_TSC = 0x100;

/** SINTx at power-on: masked (TLFS 11.8.4). */
const SINT_MASKED = 0x1_0000n;
/** MSRs that are 0 at power-on, but for SINTs and timers. */
const KERNEL_MSRS = [
  HvMsr.Hypercall,
  HvMsr.GuestOsId,
  HvMsr.ReferenceTsc,
  HvMsr.VpAssistPage,
  HvMsr.Scontrol,
  HvMsr.Siefp,
  HvMsr.Simp,
  HvMsr.SyndbgStatus,
  HvMsr.SyndbgSendBuffer,
  HvMsr.SyndbgRecvBuffer,
  HvMsr.SyndbgPendingBuffer,
  HvMsr.ReenlightenmentControl,
  HvMsr.TscEmulationControl,
  HvMsr.TscEmulationStatus,
];

/** How {@linkcode createGuestMachine} makes a machine. */
export interface GuestMachineOptions
  extends
    Omit<MachineOptions, "memory" | "guestInterface">,
    Omit<
      PartitionOptions,
      | "memory"
      | "clock"
      | "vcpus"
      | "apics"
      | "onTlbFlush"
      | "onSpinWait"
      | "onTscInvariant"
      | "onCleared"
    > {
  /** Executes the guest. */
  backend: Backend;
  /** Bytes of RAM, a multiple of 64 KiB. Default 64 MiB. */
  memorySize?: number;
}

/** A machine with its RAM and its partition. */
export interface GuestMachine {
  /** Runs the guest. */
  machine: Machine;
  /** Guest RAM. */
  memory: GuestMemory;
  /** What the guest takes for Hyper-V. */
  partition: Partition;
  /**
   * Gives the vCPUs the backend's leaves and the partition's. Done at the start; to be done
   * again after {@linkcode Partition.setCpuid}.
   */
  applyCpuid: () => void;
}

/**
 * The CPU's leaves and the partition's, the bit of leaf 1 that says so, and the invariant TSC only
 * where the guest has asked for it by its MSR (Linux arch/x86/kvm/cpuid.c).
 */
function mergeCpuid(
  processor: readonly CpuidEntry[],
  partition: Partition,
  showsInvariantTsc: boolean,
): CpuidEntry[] {
  const merged = processor.map((entry) => {
    if (entry.leaf === 1) {
      return { ...entry, ecx: (entry.ecx | HYPERVISOR_PRESENT) >>> 0 };
    }
    return entry.leaf === 0x8000_0007 && !showsInvariantTsc
      ? { ...entry, edx: (entry.edx & ~INVARIANT_TSC) >>> 0 }
      : entry;
  });
  return [...merged, ...partition.cpuidEntries()];
}

/** Whether a VM's kernel is Hyper-V to the guest, and keeps the synthetic MSRs. */
function isKernelHyperv(vm: Vm): vm is Vm & KernelHyperv {
  return (vm as Partial<KernelHyperv>).kernelHyperv === true;
}

/** Tells a kernel that is Hyper-V what the user chose. */
function setKernelOptions(machine: Machine, partition: Partition): void {
  const options = partition.hostReadMsr(0, HvMsr.SyndbgOptions)!;
  machine.vcpus[0]!.setMsr(HvMsr.SyndbgOptions, options);
}

/** Puts the MSRs that a kernel keeps back to their values at power-on; those that it lacks it refuses. */
function clearKernel(machine: Machine, partition: Partition): void {
  for (const vcpu of machine.vcpus) {
    for (let msr = HvMsr.Sint0; msr <= HvMsr.Sint15; msr++) {
      vcpu.setMsr(msr, SINT_MASKED);
    }
    for (let msr = HvMsr.Stimer0Config; msr <= HvMsr.Stimer3Count; msr++) {
      vcpu.setMsr(msr, 0n);
    }
    for (const msr of KERNEL_MSRS) vcpu.setMsr(msr, 0n);
  }
  setKernelOptions(machine, partition);
}

/**
 * Makes a machine whose guest finds itself in a Hyper-V partition, on any backend.
 *
 * @throws {RangeError} If the RAM cannot be had.
 */
export function createGuestMachine(options: GuestMachineOptions): GuestMachine {
  const memory = new GuestMemory(options.memorySize ?? 64 * 2 ** 20);
  // The partition asks for the machine that is made around it.
  const made: { machine?: Machine } = {};
  const applyCpuid = (): void => {
    const { machine } = made;
    if (machine === undefined) return;
    const leaves = mergeCpuid(
      options.backend.supportedCpuid(),
      partition,
      // A kernel that has the MSR hides the bit itself.
      isKernelHyperv(machine.vm) || partition.showsInvariantTsc,
    );
    machine.setCpuid(leaves);
  };
  const partition: Partition = new Partition({
    hypercallCode: options.backend.hypercallCode,
    ...options,
    memory,
    vcpus: options.cpus ?? 1,
    clock: {
      tscFrequency: options.backend.tscFrequency,
      readTsc: () => made.machine?.vcpus[0]?.getMsr(MSR_TSC) ?? 0n,
    },
    apics: {
      interrupt: (vcpu, vector, autoEoi) =>
        made.machine?.interrupt(vcpu, vector, autoEoi),
      endOfInterrupt: (vcpu) => made.machine?.apic(vcpu).endOfInterrupt(),
      read: (vcpu, offset) =>
        made.machine?.apic(vcpu).readRegister(offset) ?? 0,
      write: (vcpu, offset, value) =>
        made.machine?.apic(vcpu).writeRegister(offset, value),
    },
    onTlbFlush: (vcpu) => made.machine?.vcpus[vcpu]?.flushTlb(),
    // Others get their turn.
    onSpinWait: (vcpu) => made.machine?.vcpus[vcpu]?.kick(),
    onReset: () => {
      options.onReset?.();
      made.machine?.stop({ kind: "reset" });
    },
    onTscInvariant: applyCpuid,
    onCleared: () => {
      const { machine } = made;
      if (machine !== undefined && isKernelHyperv(machine.vm)) {
        clearKernel(machine, partition);
      }
    },
  });
  const machine = new Machine({
    ...options,
    memory,
    guestInterface: partition,
  });
  made.machine = machine;
  if (isKernelHyperv(machine.vm)) {
    partition.setCpuid(withoutApics(partition.cpuidEntries()));
    machine.vm.hypervHandler = partition.kernelHandler();
    setKernelOptions(machine, partition);
  }
  applyCpuid();
  return { machine, memory, partition, applyCpuid };
}
