import type { CpuidEntry } from "../../core/backend.ts";
import type { LeafBit } from "../hyperv/_partition.ts";
import type { ProbeGuest } from "./_probe.ts";

const NONE = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
/** Leaves whose bits open MSRs and hypercalls. */
const GATES = [0x4000_0003, 0x4000_0004, 0x4000_0082];

/**
 * Gives a guest the partition's leaves with nothing but the given bits in 0x40000003, 0x40000004
 * and 0x40000082, as the kernel's own tests have it.
 */
export function setLeafBits(
  guest: ProbeGuest,
  bits: readonly LeafBit[],
): void {
  const leaves: CpuidEntry[] = guest.partition.cpuidEntries().filter((entry) =>
    !GATES.includes(entry.leaf)
  );
  const gates = GATES.map((leaf) => ({ leaf, ...NONE }));
  for (const bit of bits) {
    const [leaf, register, number] = bit.split(".");
    const entry = gates.find((gate) =>
      gate.leaf === 0x4000_0000 + parseInt(leaf!, 16)
    )!;
    const name = register!.toLowerCase() as "eax" | "ebx" | "edx";
    entry[name] = (entry[name] | (1 << Number(number))) >>> 0;
  }
  guest.partition.setCpuid([...leaves, ...gates]);
  guest.applyCpuid();
}
