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
    const syndbg = partition.hostReadMsr(0, HvMsr.SyndbgOptions)!;
    machine.vcpus[0]!.setMsr(HvMsr.SyndbgOptions, syndbg);
  }
  applyCpuid();
  return { machine, memory, partition, applyCpuid };
}
