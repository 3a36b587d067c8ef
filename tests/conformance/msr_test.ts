/**
 * The MSR table of Linux tools/testing/selftests/kvm/x86/hyperv_features.c, each row a guest of its
 * own: CPUID bits are added one after the other, and each MSR opens with its own.
 */
import { assertEquals } from "@std/assert";
import type { LeafBit } from "../hyperv/_partition.ts";
import { MSR_ROWS } from "../hyperv/_msr_table.ts";
import { backends, type ConformanceBackend } from "./backends.ts";
import { setLeafBits } from "./_leaves.ts";
import {
  cpuid,
  FILL,
  guestTest,
  hex,
  type Mode,
  rdmsr,
  wrmsr,
} from "./_probe.ts";

/** Why a backend cannot show the bit. */
function lacksInvariantTsc(backend: ConformanceBackend): string | undefined {
  const leaf = backend.create().supportedCpuid().find((entry) =>
    entry.leaf === 0x8000_0007
  );
  return leaf !== undefined && (leaf.edx & Number(INVARIANT_TSC)) !== 0
    ? undefined
    : "this processor has no invariant TSC";
}

/** First row in which the guest also looks at the invariant TSC bit. */
const TSC_INVARIANT_ROW = 45;
const INVARIANT_TSC = 0x100n;
const PROFILES = ["hyperv", "kvm"] as const;

/** All six, and what opens them. */
const DEBUG_MSRS = [0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xff].map((n) =>
  0x4000_0000 + n
);
const DEBUG_BITS: readonly LeafBit[] = ["03.EDX.11", "82.EAX.1"];

/** KVM has the SynIC, its timers and the APIC's shortcuts with an APIC in the kernel only. */
function needsApic(msr: number): boolean {
  return msr >= 0x4000_0070 && msr <= 0x4000_00b7;
}

/** What else a bit opens, for MSRs that the stages leave out. */
const OPENED: readonly [LeafBit, readonly number[]][] = [
  ["03.EAX.2", [0x80, 0x81, 0x82, 0x83, 0x90, 0x9f]],
  ["03.EAX.3", [0xb1, 0xb2, 0xb7]],
  ["03.EAX.4", [0x71, 0x72, 0x73]],
  ["03.EAX.11", [0x23]],
  ["03.EAX.13", [0x107]],
  ["03.EDX.10", [0x101, 0x104, 0x105]],
];

for (const backend of backends) {
  for (const profile of PROFILES) {
    for (const [number, row] of MSR_ROWS.entries()) {
      const { msr, write, ok, writeOnly } = row;
      const what = write === undefined
        ? `read of ${hex(msr)}`
        : `write of ${hex(write)} to ${hex(msr)}`;
      guestTest(
        backend,
        `MSR stage ${number}, ${profile}: ${what} ${ok ? "works" : "is #GP"}`,
        {
          profile,
          enforceCpuid: true,
          partition: ok && needsApic(msr),
          synic: MSR_ROWS.slice(0, number + 1).some((before) => before.synic),
        },
        async (guest) => {
          const before = MSR_ROWS.slice(0, number + 1);
          setLeafBits(guest, before.flatMap(({ add }) => add ?? []));
          const access = write === undefined ? rdmsr(msr) : wrmsr(msr, write);
          const readBack = write !== undefined && ok && !writeOnly;
          const [first, second] = await guest.run(
            access,
            ...(readBack ? [rdmsr(msr)] : []),
            ...(number >= TSC_INVARIANT_ROW ? [cpuid(0x8000_0007)] : []),
          );
          assertEquals(first!.fault, ok ? undefined : "#GP(0)");
          if (!ok) {
            // A fault leaves everything as it was.
            assertEquals(first!.offset, 0);
            const { rax = FILL, rdx = FILL } = access.registers!;
            assertEquals(first!.registers.rax, rax);
            assertEquals(first!.registers.rdx, rdx);
          }
          if (readBack) assertEquals(second!.fault, undefined, "read back");
          if (number === TSC_INVARIANT_ROW) {
            assertEquals(second!.registers.rdx & INVARIANT_TSC, 0n);
          }
        },
      );
    }
  }

  guestTest(
    backend,
    "CPUID shows the invariant TSC once the guest has asked for it by MSR",
    { enforceCpuid: true, lacking: lacksInvariantTsc(backend) },
    async (guest) => {
      const bit = async (): Promise<bigint> =>
        (await guest.one(cpuid(0x8000_0007))).registers.rdx & INVARIANT_TSC;
      setLeafBits(guest, []);
      assertEquals(await bit(), INVARIANT_TSC, "no such MSR");
      setLeafBits(guest, ["03.EAX.15"]);
      assertEquals(await bit(), 0n, "not asked for");
      const [wrote, seen] = await guest.run(
        wrmsr(0x4000_0118, 1n),
        cpuid(0x8000_0007),
      );
      assertEquals(wrote!.fault, undefined);
      assertEquals(seen!.registers.rdx & INVARIANT_TSC, INVARIANT_TSC);
    },
  );

  for (const msr of DEBUG_MSRS) {
    for (const missing of [...DEBUG_BITS, undefined]) {
      const closed = missing !== undefined;
      guestTest(
        backend,
        `${hex(msr)} is ${closed ? `#GP without ${missing}` : "open"}`,
        { enforceCpuid: true },
        async (guest) => {
          setLeafBits(guest, DEBUG_BITS.filter((bit) => bit !== missing));
          const results = await guest.run(rdmsr(msr), wrmsr(msr, 0n));
          const expected = closed ? "#GP(0)" : undefined;
          assertEquals(results.map(({ fault }) => fault), [expected, expected]);
        },
      );
    }
  }

  for (const [bit, msrs] of OPENED) {
    for (const low of msrs) {
      const msr = 0x4000_0000 + low;
      guestTest(
        backend,
        `${hex(msr)} opens with ${bit}`,
        { enforceCpuid: true, partition: needsApic(msr) },
        async (guest) => {
          setLeafBits(guest, []);
          assertEquals((await guest.one(rdmsr(msr))).fault, "#GP(0)");
          setLeafBits(guest, [bit]);
          assertEquals((await guest.one(rdmsr(msr))).fault, undefined);
        },
      );
    }
  }

  for (const profile of PROFILES) {
    guestTest(
      backend,
      `${profile}: without enforcement the debug MSRs need 0x40000082 alone`,
      { profile },
      async (guest) => {
        const reads = DEBUG_MSRS.map((msr) => rdmsr(msr));
        setLeafBits(guest, ["82.EAX.1"]);
        for (const { fault } of await guest.run(...reads)) {
          assertEquals(fault, undefined);
        }
        setLeafBits(guest, []);
        for (const { fault } of await guest.run(...reads)) {
          assertEquals(fault, "#GP(0)");
        }
      },
    );
  }

  guestTest(
    backend,
    "a machine that was not asked for SynDbg has none of its MSRs",
    { syndbg: "none" },
    async (guest) => {
      const probes = DEBUG_MSRS.flatMap((msr) => [rdmsr(msr), wrmsr(msr, 1n)]);
      for (const { fault, offset } of await guest.run(...probes)) {
        assertEquals(fault, "#GP(0)");
        assertEquals(offset, 0);
      }
      // The VMM's own access is another matter: it always works.
      for (const msr of DEBUG_MSRS) {
        assertEquals(guest.partition.hostReadMsr(0, msr), 0n);
      }
    },
  );

  guestTest(
    backend,
    "without Hv#1 there are no synthetic MSRs",
    {},
    async (guest) => {
      guest.partition.setCpuid([]);
      guest.applyCpuid();
      const probes = [0x4000_0000, 0x4000_0020, ...DEBUG_MSRS].map((msr) =>
        rdmsr(msr)
      );
      for (const { fault } of await guest.run(...probes)) {
        assertEquals(fault, "#GP(0)");
      }
    },
  );

  const modes: readonly [Mode, string | undefined][] = [
    ["long", undefined],
    ["long-user", "#GP(0)"],
    ["compat", undefined],
    ["compat-user", "#GP(0)"],
    ["protected", undefined],
    ["protected-user", "#GP(0)"],
    ["real", undefined],
    ["v86", "#GP(0)"],
  ];
  for (const [mode, expected] of modes) {
    guestTest(
      backend,
      `the debug MSRs in ${mode} mode ${expected ? "are #GP" : "work"}`,
      { mode },
      async (guest) => {
        const send = 0x4000_00f3;
        const value = 0x1234_5678_9abc_def0n;
        const [write, read] = await guest.run(
          wrmsr(send, value, mode),
          rdmsr(send, mode),
        );
        assertEquals(write!.fault, expected);
        assertEquals(read!.fault, expected);
        if (expected === undefined) assertEquals(read!.edxEax, value);
        else assertEquals(guest.partition.hostReadMsr(0, send), 0n);
      },
    );
  }
}
