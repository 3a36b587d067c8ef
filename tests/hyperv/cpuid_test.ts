import { assert, assertEquals } from "@std/assert";
import type { CpuidEntry } from "../../core/backend.ts";
import type { Partition } from "../../hyperv/partition.ts";
import { bench } from "./_partition.ts";

function leaf(partition: Partition, number: number): CpuidEntry | undefined {
  return partition.cpuidEntries().find((entry) => entry.leaf === number);
}

/** The registers of a leaf that are text. */
function text(entry: CpuidEntry | undefined): string {
  const words = new Uint32Array([entry!.ebx, entry!.ecx, entry!.edx]);
  return new TextDecoder().decode(words);
}

for (const profile of ["hyperv", "kvm"] as const) {
  Deno.test(`${profile}: the leaves with SynDbg`, () => {
    const { partition } = bench({ profile });
    const entries = partition.cpuidEntries();
    assertEquals(
      entries.map((entry) => entry.leaf - 0x40000000),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0x80, 0x81, 0x82],
    );
    for (const entry of entries) {
      for (const n of [entry.eax, entry.ebx, entry.ecx, entry.edx]) {
        assert(Number.isInteger(n) && n >= 0 && n <= 0xffff_ffff, "unsigned");
      }
    }
    assertEquals(leaf(partition, 0x40000000)!.eax, 0x40000082);
    assertEquals(text(leaf(partition, 0x40000000)), "Microsoft Hv");
    assertEquals(leaf(partition, 0x40000001)!.eax, 0x31237648);
    assertEquals(leaf(partition, 0x40000002)!.ebx, 0x000a0000);
    const features = leaf(partition, 0x40000003)!;
    assertEquals(features.ebx & 1 << 11, 1 << 11, "EBX 11");
    assertEquals(features.edx & (1 << 1 | 1 << 11), 1 << 1 | 1 << 11);
    assertEquals(features.eax & 1 << 5, 1 << 5, "hypercall MSRs");
    assertEquals(
      leaf(partition, 0x40000080)!.eax,
      profile === "kvm" ? 0 : 0x40000082,
    );
    assertEquals(text(leaf(partition, 0x40000080)), "Microsoft VS");
    assertEquals(leaf(partition, 0x40000081), {
      leaf: 0x40000081,
      eax: 0x31235356,
      ebx: 0,
      ecx: 0,
      edx: 0,
    });
    assertEquals(leaf(partition, 0x40000082)!.eax, 2);
  });

  Deno.test(`${profile}: the leaves without SynDbg show nothing of it`, () => {
    const { partition } = bench({ profile, mode: "none" });
    assertEquals(leaf(partition, 0x40000000)!.eax, 0x4000000a);
    for (const number of [0x40000080, 0x40000081, 0x40000082]) {
      assertEquals(leaf(partition, number), undefined);
    }
    const features = leaf(partition, 0x40000003)!;
    assertEquals(features.ebx & 1 << 11, 0);
    assertEquals(features.edx & (1 << 1 | 1 << 11), 0);
  });
}

Deno.test("KVM's build number", () => {
  const { partition } = bench({ profile: "kvm" });
  assertEquals(leaf(partition, 0x40000002)!.eax, 0x3839);
});

Deno.test("the vendor can be chosen, and is cut or filled to twelve characters", () => {
  for (
    const [vendor, shown] of [
      ["KVMKVMKVM", "KVMKVMKVM\0\0\0"],
      ["Linux KVM Hv", "Linux KVM Hv"],
      ["far too long a name", "far too long"],
    ]
  ) {
    const { partition } = bench({ vendor: vendor! });
    assertEquals(text(leaf(partition, 0x40000000)), shown);
  }
});

Deno.test("what is handed out is a copy", () => {
  const { partition } = bench();
  partition.cpuidEntries()[3]!.eax = 0;
  assert(leaf(partition, 0x40000003)!.eax !== 0);
});

Deno.test("setCpuid takes hypervisor leaves only", () => {
  const { partition } = bench();
  partition.setCpuid([
    { leaf: 1, eax: 1, ebx: 0, ecx: 0, edx: 0 },
    { leaf: 0x40000001, eax: 0x31237648, ebx: 0, ecx: 0, edx: 0 },
    { leaf: 0x80000001, eax: 1, ebx: 0, ecx: 0, edx: 0 },
  ]);
  assertEquals(partition.cpuidEntries().map((entry) => entry.leaf), [
    0x40000001,
  ]);
});

Deno.test("the leaf of limits tells the number of processors", () => {
  const { partition } = bench({ vcpus: 4 });
  assertEquals(leaf(partition, 0x40000005)!.eax, 4);
});

Deno.test("the leaves offer what needs local APICs where there are some", () => {
  const offered = (options: Parameters<typeof bench>[0]): number[] => {
    const { partition } = bench({ mode: "none", ...options });
    const features = leaf(partition, 0x40000003)!;
    const hints = leaf(partition, 0x40000004)!;
    return [features.eax, features.ebx, features.edx, hints.eax];
  };
  // Timers with direct mode, the SynIC, and APIC registers by MSR.
  assertEquals(offered({}), [0x2aff, 0x10_0030, 0x8_4510, 0xe2c]);
  assertEquals(offered({ synic: false }), [0x2af3, 0x10_0000, 0x4510, 0xc2c]);
  assertEquals(
    offered({ withApics: false }),
    [0xae3, 0x10_0000, 0x4510, 0x824],
  );
  assertEquals(
    offered({ withApics: false, synic: true }),
    offered({ withApics: false }),
  );
});

Deno.test("the invariant TSC is offered where it is wanted", () => {
  const offered = (tscInvariant: boolean): number =>
    leaf(bench({ tscInvariant }).partition, 0x40000003)!.eax & 1 << 15;
  assertEquals(offered(false), 0);
  assertEquals(offered(true), 1 << 15);
});

Deno.test("the leaf of recommendations limits spinning where others run", () => {
  const spins = (vcpus: number): number =>
    leaf(bench({ vcpus }).partition, 0x40000004)!.ebx;
  assertEquals(spins(1), 0xffff_ffff);
  assertEquals(spins(2), 0xfff);
});
