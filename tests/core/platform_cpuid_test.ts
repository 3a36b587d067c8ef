import { assertEquals } from "@std/assert";
import type { CpuidEntry } from "../../core/backend.ts";
import { platformCpuid } from "../../core/platform_cpuid.ts";

const NONE = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
/** A processor of Intel's, as KVM shows the host's. */
const INTEL: CpuidEntry[] = [
  { leaf: 0, ...NONE, eax: 0x1f, ebx: 0x756e_6547 },
  { leaf: 1, ...NONE, ebx: 0x3320_0800, ecx: 1, edx: 2 },
  { leaf: 4, subleaf: 0, ...NONE, eax: 0x7c00_4121 },
  { leaf: 4, subleaf: 3, ...NONE, eax: 0x7c0f_c163 },
  { leaf: 4, subleaf: 4, ...NONE },
  { leaf: 0xb, subleaf: 0, ...NONE, eax: 9 },
  { leaf: 0x1f, subleaf: 0, ...NONE, eax: 9 },
  { leaf: 0x8000_0001, ...NONE },
  { leaf: 0x8000_0008, ...NONE, eax: 0x302e },
];

function find(
  entries: readonly CpuidEntry[],
  leaf: number,
  subleaf?: number,
): CpuidEntry | undefined {
  return entries.find((entry) =>
    entry.leaf === leaf && entry.subleaf === subleaf
  );
}

Deno.test("platformCpuid() replaces the host's topology by the machine's", () => {
  const entries = platformCpuid(INTEL, 5, 6, true);
  assertEquals(find(entries, 1), {
    leaf: 1,
    eax: 0,
    ebx: 0x0508_0800,
    ecx: 0x0120_0001,
    edx: 0x1000_0202,
  });
  // Caches of one core each, eight cores to a package.
  assertEquals(find(entries, 4, 0)!.eax, 0x1c00_0121);
  assertEquals(find(entries, 4, 3)!.eax, 0x1c00_0163);
  assertEquals(find(entries, 4, 4)!.eax, 0);
  assertEquals(find(entries, 0x1f, 0), undefined);
  assertEquals(
    [0, 1, 2].map((subleaf) => {
      const { eax, ebx, ecx, edx } = find(entries, 0xb, subleaf)!;
      return [eax, ebx, ecx, edx];
    }),
    [[0, 1, 0x100, 5], [3, 6, 0x201, 5], [0, 0, 2, 5]],
  );
  // Leaves that are AMD's stay as they are.
  assertEquals(find(entries, 0x8000_0001), INTEL[7]);
  assertEquals(find(entries, 0x8000_0008), INTEL[8]);
});

Deno.test("platformCpuid() shows one vCPU as a processor without hyper-threads", () => {
  const entries = platformCpuid(INTEL, 0, 1, false);
  const { ebx, ecx, edx } = find(entries, 1)!;
  assertEquals([ebx, ecx, edx], [0x0800, 1, 0x202]);
  assertEquals(find(entries, 0xb, 1)!.eax, 0);
});

Deno.test("platformCpuid() adds no leaf beyond the highest", () => {
  const old = [{ leaf: 0, ...NONE, eax: 1 }, { leaf: 1, ...NONE }];
  assertEquals(platformCpuid(old, 0, 2, true).length, 2);
  assertEquals(platformCpuid([], 0, 2, true), []);
});
