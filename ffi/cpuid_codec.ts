/**
 * CPUID leaves as KVM takes and gives them.
 *
 * @module
 */
import type { CpuidEntry } from "../core/backend.ts";
import type { KvmFile } from "./kvm_file.ts";
import { Cpuid2, CpuidEntry2, CpuidFlag, Size } from "./kvm_layout.ts";
import { Struct } from "./struct.ts";

/** More than any processor has; KVM takes 256. */
const CAPACITY = 256;

/** Whether a leaf is one of a hypervisor's. */
export function isHypervisorLeaf(leaf: number): boolean {
  return leaf >>> 16 === 0x4000;
}

/** Leaves as `struct kvm_cpuid2`. */
export function encodeCpuid(
  entries: readonly CpuidEntry[],
): Uint8Array<ArrayBuffer> {
  const { bytes, view } = new Struct(
    Size.cpuid2 + entries.length * Size.cpuidEntry2,
  );
  view.setUint32(Cpuid2.nent, entries.length, true);
  entries.forEach((entry, n) => {
    const set = (field: number, value: number): void =>
      view.setUint32(
        Cpuid2.entries + n * Size.cpuidEntry2 + field,
        value,
        true,
      );
    set(CpuidEntry2.function, entry.leaf);
    set(CpuidEntry2.index, entry.subleaf ?? 0);
    set(
      CpuidEntry2.flags,
      entry.subleaf === undefined ? 0 : CpuidFlag.SignifcantIndex,
    );
    set(CpuidEntry2.eax, entry.eax);
    set(CpuidEntry2.ebx, entry.ebx);
    set(CpuidEntry2.ecx, entry.ecx);
    set(CpuidEntry2.edx, entry.edx);
  });
  return bytes;
}

/**
 * Asks the kernel for leaves.
 *
 * @throws {Error} If it does not give them.
 */
export function readCpuid(
  file: KvmFile,
  request: "GetSupportedCpuid" | "GetSupportedHvCpuid",
): CpuidEntry[] {
  const { bytes, view } = new Struct(
    Size.cpuid2 + CAPACITY * Size.cpuidEntry2,
  );
  view.setUint32(Cpuid2.nent, CAPACITY, true);
  file.pass("read CPUID", request, bytes);
  const count = Math.min(CAPACITY, view.getUint32(Cpuid2.nent, true));
  const entries: CpuidEntry[] = [];
  for (let n = 0; n < count; n++) {
    const get = (field: number): number =>
      view.getUint32(Cpuid2.entries + n * Size.cpuidEntry2 + field, true);
    const indexed = (get(CpuidEntry2.flags) & CpuidFlag.SignifcantIndex) !== 0;
    entries.push({
      leaf: get(CpuidEntry2.function),
      ...(indexed && { subleaf: get(CpuidEntry2.index) }),
      eax: get(CpuidEntry2.eax),
      ebx: get(CpuidEntry2.ebx),
      ecx: get(CpuidEntry2.ecx),
      edx: get(CpuidEntry2.edx),
    });
  }
  return entries;
}

// Leaf 1 (SDM volume 2A, CPUID; APM volume 3, appendix E).
const APIC_EDX = 1 << 9;
const VMX_ECX = 1 << 5;
const X2APIC_ECX = 1 << 21;
const TSC_DEADLINE_ECX = 1 << 24;
const CLFLUSH_EBX = 0xff00;
// Leaf 0x80000001.
const SVM_ECX = 1 << 2;
const EXTENDED_APIC_ECX = 1 << 3;
/** Leaves about APIC numbers and nested virtualization. */
const DROPPED = new Set([0xb, 0x1f, 0x8000_000a, 0x8000_001e]);

/**
 * What the kernel's leaves are for a vCPU of ours: no local APIC, for the interrupt controllers are the
 * machine's; no nested virtualization, whose state is not saved; no hypervisor leaves.
 */
export function ownCpuid(entries: readonly CpuidEntry[]): CpuidEntry[] {
  return entries
    .filter(({ leaf }) => !isHypervisorLeaf(leaf) && !DROPPED.has(leaf))
    .map((entry) => {
      if (entry.leaf === 1) {
        return {
          ...entry,
          ebx: entry.ebx & CLFLUSH_EBX,
          ecx: (entry.ecx & ~(VMX_ECX | X2APIC_ECX | TSC_DEADLINE_ECX)) >>> 0,
          edx: (entry.edx & ~APIC_EDX) >>> 0,
        };
      }
      return entry.leaf === 0x8000_0001
        ? {
          ...entry,
          ecx: (entry.ecx & ~(SVM_ECX | EXTENDED_APIC_ECX)) >>> 0,
          edx: (entry.edx & ~APIC_EDX) >>> 0,
        }
        : entry;
    });
}

/** Leaves of Hyper-V whose registers are sets of features: TLFS 2.4. */
const FEATURE_LEAVES = new Set([0x4000_0003, 0x4000_0082]);
/** Of this one EAX is such a set, EBX a number. */
const RECOMMENDATIONS = 0x4000_0004;

/**
 * The partition's hypervisor leaves, with no feature in them that the kernel's Hyper-V does not have.
 *
 * @param kernel What KVM_GET_SUPPORTED_HV_CPUID gave.
 */
export function mergeHypervisorLeaves(
  entries: readonly CpuidEntry[],
  kernel: readonly CpuidEntry[],
): CpuidEntry[] {
  return entries.map((entry) => {
    const both = (name: "eax" | "ebx" | "ecx" | "edx"): number => {
      const offered = kernel.find(({ leaf }) => leaf === entry.leaf);
      return (entry[name] & (offered?.[name] ?? 0)) >>> 0;
    };
    if (FEATURE_LEAVES.has(entry.leaf)) {
      return {
        ...entry,
        eax: both("eax"),
        ebx: both("ebx"),
        ecx: both("ecx"),
        edx: both("edx"),
      };
    }
    return entry.leaf === RECOMMENDATIONS
      ? { ...entry, eax: both("eax") }
      : entry;
  });
}
