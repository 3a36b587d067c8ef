import type { CpuidEntry } from "./backend.ts";

// Leaf 1 (SDM volume 2A, CPUID).
const APIC_EDX = 1 << 9;
const HTT_EDX = 1 << 28;
const X2APIC_ECX = 1 << 21;
const TSC_DEADLINE_ECX = 1 << 24;
/** "Auth" of AuthenticAMD, in EBX of leaf 0. */
const AMD = 0x6874_7541;
/** Bit of leaf 0x80000001 ECX: cores are counted in leaf 0x80000008 (APM volume 3, appendix E). */
const CORES_ECX = 2;

const LEVEL_THREAD = 1;
const LEVEL_CORE = 2;

/**
 * A vCPU's leaves in a machine with local APICs: the processor's own, and what follows from the local APIC and
 * from how many there are. Every vCPU is a core of its own in one package.
 *
 * @param entries The leaves of the backend, which know nothing of local APICs.
 * @param id The vCPU's APIC ID.
 * @param count How many vCPUs there are.
 * @param msrs Whether the guest can reach the local APIC by MSRs.
 */
export function platformCpuid(
  entries: readonly CpuidEntry[],
  id: number,
  count: number,
  msrs: boolean,
): CpuidEntry[] {
  const basic = entries.find(({ leaf }) => leaf === 0);
  const amd = basic?.ebx === AMD;
  const bits = 32 - Math.clz32(count - 1);
  const several = count > 1;
  const own = entries.filter(({ leaf }) => leaf !== 0xb && leaf !== 0x1f)
    .map((entry): CpuidEntry => {
      const { eax, ebx, ecx, edx } = entry;
      switch (entry.leaf) {
        case 1:
          return {
            ...entry,
            ebx: ((ebx & 0xffff) | (several ? 2 ** bits << 16 : 0) |
              (id << 24)) >>> 0,
            ecx: (msrs ? ecx | X2APIC_ECX | TSC_DEADLINE_ECX : ecx) >>> 0,
            edx: (edx | APIC_EDX | (several ? HTT_EDX : 0)) >>> 0,
          };
        case 4:
          // Bits 31:26: cores in the package, less 1; 25:14: threads that share the cache, less 1.
          return (eax & 31) === 0 ? entry : {
            ...entry,
            eax: ((eax & 0x3fff) | (Math.min(63, 2 ** bits - 1) << 26)) >>> 0,
          };
        case 0x8000_0001:
          return amd
            ? {
              ...entry,
              ecx: (ecx | (several ? CORES_ECX : 0)) >>> 0,
              edx: (edx | APIC_EDX) >>> 0,
            }
            : entry;
        case 0x8000_0008:
          return amd
            ? {
              ...entry,
              ecx: ((ecx & 0xffff_0f00) | (bits << 12) | (count - 1)) >>> 0,
            }
            : entry;
        default:
          return entry;
      }
    });
  if ((basic?.eax ?? 0) < 0xb) return own;
  const topology = (
    subleaf: number,
    shift: number,
    processors: number,
    level: number,
  ): CpuidEntry => ({
    leaf: 0xb,
    subleaf,
    eax: shift,
    ebx: processors,
    ecx: subleaf | (level << 8),
    edx: id,
  });
  return [
    ...own,
    topology(0, 0, 1, LEVEL_THREAD),
    topology(1, bits, count, LEVEL_CORE),
    topology(2, 0, 0, 0),
  ];
}
