/**
 * The MSR table of Linux tools/testing/selftests/kvm/x86/hyperv_features.c: CPUID bits are added
 * one after the other and each MSR opens with its own.
 */
import { assert, assertEquals } from "@std/assert";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import { MSR_ROWS } from "./_msr_table.ts";
import {
  bareLeaves,
  type Bench,
  bench,
  type LeafBit,
  rdmsr,
  setBits,
  wrmsr,
} from "./_partition.ts";

/** A partition in the state that stages 0 to `last` build up, but for the last access. */
function upTo(last: number): Bench {
  const stages = MSR_ROWS.slice(0, last + 1);
  const synic = stages.some((stage) => stage.synic);
  const b = bench({ enforceCpuid: true, synic });
  const bits = stages.flatMap(({ add }) => add ?? []);
  b.partition.setCpuid(setBits(bareLeaves(b.partition), bits));
  return b;
}

const hex = (n: number | bigint): string => `0x${n.toString(16)}`;

for (const [number, stage] of MSR_ROWS.entries()) {
  const { msr, write, ok } = stage;
  const what = write === undefined
    ? `read of ${hex(msr)}`
    : `write of ${hex(write)} to ${hex(msr)}`;
  Deno.test(`MSR stage ${number}: ${what} ${ok ? "works" : "is #GP"}`, () => {
    const { partition } = upTo(number);
    if (write === undefined) {
      assertEquals(rdmsr(partition, msr) !== undefined, ok);
      return;
    }
    assertEquals(wrmsr(partition, msr, write), ok);
    if (ok && !stage.writeOnly) {
      assert(rdmsr(partition, msr) !== undefined, "read back");
    }
  });
}

Deno.test("invariant TSC shows with 03.EAX.15 exactly when the MSR's bit is set", () => {
  const { partition } = upTo(44);
  assert(partition.showsInvariantTsc, "not offered: not suppressed");
  const later = upTo(45).partition;
  assert(!later.showsInvariantTsc);
  wrmsr(later, HvMsr.TscInvariantControl, 1n);
  assert(later.showsInvariantTsc);
  assert(!wrmsr(later, HvMsr.TscInvariantControl, 0n), "cannot be taken back");
});

Deno.test("the VMM is told whenever the invariant TSC may show or vanish", () => {
  let told = 0;
  const { partition } = bench({
    tscInvariant: true,
    onTscInvariant: () => told++,
  });
  wrmsr(partition, HvMsr.TscInvariantControl, 1n);
  assertEquals(told, 1);
  partition.reset();
  assertEquals(told, 2);
  assert(!partition.showsInvariantTsc);
});

// Which bit opens which MSR; the stages above touch one of each group only.
const range = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, n) => first + n);
const ENFORCED: [LeafBit, number[]][] = [
  ["03.EAX.0", [0x40000010]],
  ["03.EAX.1", [0x40000020]],
  ["03.EAX.2", [
    ...range(0x40000080, 0x40000084),
    ...range(0x40000090, 0x4000009f),
  ]],
  ["03.EAX.3", range(0x400000b0, 0x400000b7)],
  ["03.EAX.4", [0x40000071, 0x40000072, 0x40000073]],
  ["03.EAX.5", [0x40000000, 0x40000001]],
  ["03.EAX.6", [0x40000002]],
  ["03.EAX.7", [0x40000003]],
  ["03.EAX.9", [0x40000021]],
  ["03.EAX.11", [0x40000022, 0x40000023]],
  ["03.EAX.13", [0x40000106, 0x40000107, 0x40000108]],
  ["03.EAX.15", [0x40000118]],
  ["03.EDX.10", range(0x40000100, 0x40000105)],
  ["03.EDX.11", [...range(0x400000f1, 0x400000f5), 0x400000ff]],
];

for (const [bit, open] of ENFORCED) {
  Deno.test(`with CPUID enforced ${bit} opens its MSRs and no others`, () => {
    const { partition } = bench({ enforceCpuid: true });
    partition.setCpuid(setBits(bareLeaves(partition), [bit, "82.EAX.1"]));
    for (const msr of range(0x40000000, 0x400001ff)) {
      assertEquals(
        rdmsr(partition, msr) !== undefined,
        open.includes(msr),
        hex(msr),
      );
    }
  });
}

Deno.test("without enforcement all MSRs are open but SynDbg's without 82.EAX.1", () => {
  const { partition } = bench();
  const bare = bareLeaves(partition);
  partition.setCpuid(bare);
  for (const [bit, msrs] of ENFORCED) {
    for (const msr of msrs) {
      assertEquals(
        rdmsr(partition, msr) !== undefined,
        bit !== "03.EDX.11",
        hex(msr),
      );
    }
  }
  partition.setCpuid(setBits(bare, ["82.EAX.1"]));
  for (const msr of ENFORCED.at(-1)![1]) {
    assert(rdmsr(partition, msr) !== undefined, hex(msr));
    assert(wrmsr(partition, msr, 0n), hex(msr));
  }
});

Deno.test("without Hv#1 in leaf 0x40000001 every synthetic MSR is #GP", () => {
  const { partition } = bench();
  partition.setCpuid(
    partition.cpuidEntries().filter((entry) => entry.leaf !== 0x40000001),
  );
  for (const msr of range(0x40000000, 0x400001ff)) {
    assertEquals(rdmsr(partition, msr), undefined, hex(msr));
    assert(!wrmsr(partition, msr, 0n), hex(msr));
  }
});

Deno.test("a partition without SynDbg refuses its MSRs whatever CPUID says", () => {
  const { partition } = bench({ mode: "none" });
  partition.setCpuid(
    setBits([
      ...partition.cpuidEntries(),
      { leaf: 0x40000082, eax: 0, ebx: 0, ecx: 0, edx: 0 },
    ], ["82.EAX.1", "03.EDX.11"]),
  );
  for (const msr of ENFORCED.at(-1)![1]) {
    assertEquals(rdmsr(partition, msr), undefined, hex(msr));
    assert(!wrmsr(partition, msr, 1n), hex(msr));
  }
});

Deno.test("MSRs of other rooms are unknown, not refused", () => {
  const { partition } = bench();
  const value = new Uint32Array(2);
  for (
    const msr of [0x10, 0x3fff_ffff, 0x4000_0200, 0x4b56_4d00, 0xc000_0080]
  ) {
    assertEquals(partition.readMsr(0, msr, value), 1, hex(msr));
    assertEquals(partition.writeMsr(0, msr, 0, 0), 1, hex(msr));
  }
});

Deno.test("without local APICs their MSRs and those of the SynIC and its timers are #GP", () => {
  const { partition } = bench({ withApics: false });
  const msrs = [
    HvMsr.Eoi,
    HvMsr.Icr,
    HvMsr.Tpr,
    HvMsr.Eom,
    HvMsr.Simp,
    HvMsr.Sint0,
    HvMsr.Stimer0Config,
    HvMsr.Stimer3Count,
  ];
  for (const msr of msrs) {
    assertEquals(rdmsr(partition, msr), undefined, hex(msr));
    assert(!wrmsr(partition, msr, 0n), hex(msr));
  }
  assert(wrmsr(partition, HvMsr.VpAssistPage, 0n));
});
