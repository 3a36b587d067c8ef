/**
 * The hypercall table of Linux tools/testing/selftests/kvm/x86/hyperv_features.c, each row a guest of
 * its own that issues the instruction itself, and the rows that table does not have.
 */
import { assertEquals } from "@std/assert";
import { backends, type CallInstruction } from "./backends.ts";
import type { LeafBit } from "../hyperv/_partition.ts";
import { setLeafBits } from "./_leaves.ts";
import {
  callResult,
  FREE,
  guestTest,
  hex,
  hypercall,
  load64,
  type Mode,
  type Probe,
  type ProbeGuest,
  RAM,
  rdmsr,
  wrmsr,
} from "./_probe.ts";

const FAST = 0x1_0000n;
const INPUT = BigInt(FREE);
const OUTPUT = BigInt(FREE + 0x1000);
const CALL_PAGE = FREE + 0x2000;
const OS_ID = 0x4000_0000;
const HYPERCALL = 0x4000_0001;
const OPTIONS = 0x4000_00ff;

interface Row {
  add?: LeafBit;
  code: bigint;
  expect: bigint | "#UD";
  /** KVM does it with an APIC in the kernel only. */
  apic?: true;
}

/** Stages 0 to 20. */
const ROWS: readonly Row[] = [
  { add: "03.EAX.5", code: 0xbeefn, expect: 2n },
  { code: 0x5cn, expect: 6n },
  { add: "03.EBX.4", code: 0x5cn, expect: 3n },
  { code: 0x5dn, expect: 6n },
  { add: "03.EBX.5", code: 0x5dn, expect: 3n },
  { code: 0x6bn, expect: 2n },
  { add: "82.EAX.1", code: 0x6bn, expect: 6n },
  { add: "03.EBX.11", code: 0x6bn, expect: 8n },
  { code: 0x02n, expect: 6n },
  { add: "04.EAX.2", code: 0x02n, expect: 0n },
  { code: 0x13n, expect: 6n },
  { add: "04.EAX.11", code: 0x13n, expect: 0n },
  { code: 0x0bn, expect: 6n },
  { add: "04.EAX.10", code: 0x0bn, expect: 3n, apic: true },
  { code: 0x15n, expect: 0n, apic: true },
  { code: 0x08n, expect: 6n },
  { add: "04.EBX.0", code: 0x08n, expect: 0n },
  { code: 0x02n | FAST, expect: "#UD" },
  { add: "03.EDX.4", code: 0x02n | FAST, expect: 0n },
  { code: 0x8001n, expect: 6n },
  { add: "03.EBX.20", code: 0x8001n | FAST, expect: 5n },
];

/** Gives a guest the CPUID bits of rows 0 to `last`. */
function openUpTo(guest: ProbeGuest, last: number): void {
  setLeafBits(guest, ROWS.slice(0, last + 1).flatMap(({ add }) => add ?? []));
}

/** A guest that says who it is, names a page without turning it on, and calls. */
function identifiedCall(
  input: bigint,
  mode: Mode = "long",
  via: CallInstruction = "page",
): Probe[] {
  const fast = (input & FAST) !== 0n;
  return [
    wrmsr(OS_ID, 0x8100n << 48n, mode),
    wrmsr(HYPERCALL, BigInt(CALL_PAGE), mode),
    hypercall(input, fast ? 0n : INPUT, fast ? 0n : OUTPUT, { mode, via }),
  ];
}

/** Makes the call; what it gives. */
async function call(
  guest: ProbeGuest,
  input: bigint,
  mode: Mode = "long",
  via: CallInstruction = "page",
): Promise<bigint | string> {
  const results = await guest.run(...identifiedCall(input, mode, via));
  assertEquals(results[0]!.fault, undefined);
  assertEquals(results[1]!.fault, undefined);
  return callResult(results[2]!, mode);
}

const show = (value: bigint | string): string =>
  typeof value === "bigint" ? hex(value) : value;
const KERNEL_MODES = ["long", "compat", "protected"] as const;
const PROFILES = ["hyperv", "kvm"] as const;

for (const backend of backends) {
  for (
    const [number, { code, expect, apic: partition = false }] of ROWS.entries()
  ) {
    for (const mode of KERNEL_MODES) {
      for (const via of backend.calls) {
        guestTest(
          backend,
          `hypercall stage ${number}, ${mode}, ${via}: ${hex(code)} gives ${
            show(expect)
          }`,
          { enforceCpuid: true, mode, partition, synic: false },
          async (guest) => {
            openUpTo(guest, number);
            assertEquals(await call(guest, code, mode, via), expect);
          },
        );
      }
    }
    guestTest(
      backend,
      `hypercall stage ${number}, kvm: ${hex(code)} gives ${show(expect)}`,
      { enforceCpuid: true, profile: "kvm", partition, synic: false },
      async (guest) => {
        openUpTo(guest, number);
        assertEquals(await call(guest, code), expect);
      },
    );
  }

  for (const code of [0x69n, 0x6an]) {
    for (const [stage, expect] of [[5, 2n], [6, 6n], [7, 8n]] as const) {
      guestTest(
        backend,
        `${hex(code)} at stage ${stage} gives ${hex(expect)} as 0x6b does`,
        { enforceCpuid: true },
        async (guest) => {
          openUpTo(guest, stage);
          assertEquals(await call(guest, code), expect);
        },
      );
    }
    for (const syndbg of ["none", "msr", "hypercall"] as const) {
      guestTest(
        backend,
        `fast ${hex(code)} gives 0x5, debug device: ${syndbg}`,
        { syndbg },
        async (guest) => {
          assertEquals(await call(guest, code | FAST), 5n);
        },
      );
    }
  }

  for (const code of [0x69n, 0x6an, 0x6bn, 0x6bn | FAST]) {
    guestTest(
      backend,
      `${hex(code)} without a debug device gives 0x2`,
      { syndbg: "none" },
      async (guest) => {
        assertEquals(await call(guest, code), 2n);
      },
    );
    guestTest(
      backend,
      `${hex(code)} gives 0x8 while OPTIONS bit 2 is clear`,
      {},
      async (guest) => {
        assertEquals(await call(guest, code), 8n);
        const [write] = await guest.run(wrmsr(OPTIONS, 0xffff_fffbn));
        assertEquals(write!.fault, undefined);
        assertEquals(await call(guest, code), 8n);
      },
    );
  }

  guestTest(
    backend,
    "a guest that sets OPTIONS bit 2 has the debug calls",
    { profile: "kvm" },
    async (guest) => {
      await guest.run(wrmsr(OPTIONS, 4n));
      assertEquals(await call(guest, 0x6bn), 0n);
    },
  );

  guestTest(
    backend,
    "a fast reset of the session, hyperv: its flags are in RDX",
    { syndbg: "hypercall" },
    async (guest) => {
      await guest.run(wrmsr(OS_ID, 1n));
      const reset = (flags: bigint): Probe => hypercall(0x6bn | FAST, flags);
      const results = await guest.run(reset(0n), reset(4n), reset(1n));
      // No flag, an unknown one, nothing there to be purged.
      assertEquals(results.map((r) => callResult(r)), [5n, 5n, 0x1bn]);
      guest.peer.send(new Uint8Array(3));
      assertEquals(callResult(await guest.one(reset(1n))), 0n);
      assertEquals(guest.wire.pending, 0);
    },
  );

  for (const fast of [0n, FAST]) {
    guestTest(
      backend,
      `a ${
        fast ? "fast" : "slow"
      } reset of the session, kvm: 24 bytes of addresses and no purge`,
      { syndbg: "hypercall", profile: "kvm" },
      async (guest) => {
        guest.peer.send(new Uint8Array(3));
        guest.memory.fill(Number(OUTPUT), 32, 0xee);
        await guest.run(wrmsr(OS_ID, 1n));
        const result = await guest.one(hypercall(0x6bn | fast, 0n, OUTPUT));
        assertEquals(callResult(result), 0n);
        const { view } = guest.memory;
        const at = Number(OUTPUT);
        assertEquals(view.getUint32(at, true), 0x7f00_0001);
        assertEquals(view.getUint32(at + 4, true), 0x7f00_0001);
        assertEquals(view.getUint16(at + 8, true), 50_000);
        assertEquals(view.getUint16(at + 10, true), 50_000);
        assertEquals(
          guest.memory.read(at + 12, 20),
          new Uint8Array(20).fill(0xee, 12),
        );
        assertEquals(guest.wire.pending, 1);
      },
    );
  }

  for (const profile of PROFILES) {
    guestTest(
      backend,
      `${profile}: each reserved bit of the input value gives 3`,
      { profile, syndbg: "hypercall" },
      async (guest) => {
        const reserved = (bit: number): boolean =>
          bit >= 27 && bit <= 31 || bit >= 44 && bit <= 47 || bit >= 60;
        const bits = Array.from({ length: 64 }, (_, bit) => bit);
        const results = await guest.run(
          wrmsr(OS_ID, 1n),
          ...bits.filter(reserved).map((bit) =>
            hypercall(0x6bn | 1n << BigInt(bit), INPUT, OUTPUT)
          ),
          // Others are not looked at by the debug calls: variable header, rep count and start.
          hypercall(0x69n | 0x3ffn << 17n | 0xfffn << 48n, INPUT, OUTPUT),
        );
        assertEquals(results.length, 1 + 13 + 1);
        for (const result of results.slice(1, -1)) {
          assertEquals(callResult(result), 3n);
        }
        assertEquals(callResult(results.at(-1)!), 0n);
      },
    );
  }

  const order: readonly [string, number, bigint, bigint][] = [
    ["access comes before reserved bits", 1, 0x5cn | 1n << 27n, 6n],
    ["reserved bits come before the code", 1, 0xbeefn | 1n << 27n, 3n],
    ["reserved bits come before XMM input", 17, 0x02n | FAST | 1n << 63n, 3n],
    ["access comes before the fast bit", 6, 0x69n | FAST, 6n],
    ["the fast bit comes before the device", 5, 0x69n | FAST, 5n],
  ];
  for (const [name, stage, input, expect] of order) {
    guestTest(
      backend,
      `order of the checks: ${name}`,
      { enforceCpuid: true },
      async (guest) => {
        openUpTo(guest, stage);
        assertEquals(await call(guest, input), expect);
      },
    );
  }

  for (
    const mode of [
      "long-user",
      "compat-user",
      "protected-user",
      "real",
      "v86",
    ] as const
  ) {
    for (const via of backend.userCalls) {
      guestTest(
        backend,
        `${via} in ${mode} mode is #UD`,
        { syndbg: "hypercall", mode },
        async (guest) => {
          await guest.run(wrmsr(OS_ID, 1n));
          const probe = hypercall(0x08n, INPUT, OUTPUT, { mode, via });
          const result = await guest.one(probe);
          assertEquals(result.fault, "#UD");
          assertEquals(result.offset, 0);
          assertEquals(
            result.registers.rax,
            probe.registers!.rax ?? 0x5a5a5a5an,
          );
        },
      );
    }
  }

  for (const mode of KERNEL_MODES) {
    guestTest(
      backend,
      `without GUEST_OS_ID there are no hypercalls in ${mode} mode`,
      { mode, partition: true },
      async (guest) => {
        const calls = hypercall(0x08n, 0n, 0n, { mode });
        const results = await guest.run(
          calls,
          wrmsr(OS_ID, 1n, mode),
          calls,
          wrmsr(OS_ID, 0n, mode),
          calls,
        );
        assertEquals(
          [0, 2, 4].map((n) => callResult(results[n]!, mode)),
          ["#UD", 0n, "#UD"],
        );
      },
    );

    guestTest(
      backend,
      `a hypercall in ${mode} mode changes the result registers alone`,
      { mode },
      async (guest) => {
        const probe = hypercall(0xbeefn, 0x1234n, 0x5678n, { mode });
        const before = {
          rax: 0x5a5a_5a5an,
          rcx: 0x5a5a_5a5an,
          rdx: 0x5a5a_5a5an,
          rbx: 0x5a5a_5a5an,
          rsi: 0x5a5a_5a5an,
          rdi: 0x5a5a_5a5an,
          rbp: 0x5a5a_5a5an,
          r8: 0x5a5a_5a5an,
          r9: 0x5a5a_5a5an,
          ...probe.registers,
        };
        const [, result] = await guest.run(wrmsr(OS_ID, 1n, mode), probe);
        const expected = mode === "long"
          ? { ...before, rax: 2n }
          : { ...before, rax: 2n, rdx: 0n };
        const { r8: _8, r9: _9, ...rest } = expected;
        const { r8, r9, ...got } = result!.registers;
        assertEquals(got, rest);
        // Outside long mode there is no R8.
        if (mode === "long") assertEquals([r8, r9], [before.r8, before.r9]);
      },
    );

    guestTest(
      backend,
      `reps that are done are in the high word of the result in ${mode} mode`,
      { mode },
      async (guest) => {
        const flush = hypercall(0x03n | 7n << 32n, INPUT, 0n, { mode });
        const [, result] = await guest.run(wrmsr(OS_ID, 1n, mode), flush);
        assertEquals(callResult(result!, mode), 7n << 32n);
      },
    );

    for (
      const instruction of backend.calls.filter((call) => call !== "page")
    ) {
      guestTest(
        backend,
        `the hypercall page with ${instruction} in ${mode} mode`,
        { hypercallInstruction: instruction, mode, partition: true },
        async (guest) => {
          const [, , , page] = await guest.run(
            wrmsr(HYPERCALL, BigInt(CALL_PAGE | 1), mode), // without an identity: ignored
            wrmsr(OS_ID, 1n, mode),
            wrmsr(HYPERCALL, BigInt(CALL_PAGE | 1), mode),
            hypercall(0xbeefn, 0n, 0n, { mode, via: CALL_PAGE }),
          );
          assertEquals(callResult(page!, mode), 2n);
          const byte = instruction === "vmcall" ? 0xc1 : 0xd9;
          assertEquals(
            guest.memory.read(CALL_PAGE, 4),
            new Uint8Array([0x0f, 0x01, byte, 0xc3]),
          );
        },
      );
    }
  }

  guestTest(
    backend,
    "HYPERCALL is ignored without GUEST_OS_ID, and loses its bit with it",
    {},
    async (guest) => {
      const page = BigInt(CALL_PAGE | 1);
      const results = await guest.run(
        wrmsr(HYPERCALL, page),
        rdmsr(HYPERCALL),
        wrmsr(OS_ID, 1n),
        wrmsr(HYPERCALL, page),
        rdmsr(HYPERCALL),
        wrmsr(OS_ID, 0n),
        rdmsr(HYPERCALL),
      );
      assertEquals([1, 4, 6].map((n) => results[n]!.edxEax), [
        0n,
        page,
        page - 1n,
      ]);
    },
  );

  for (
    const gpa of [BigInt(RAM), 1n << 32n, 1n << 45n, 0xffff_ffff_ffff_f000n]
  ) {
    guestTest(
      backend,
      `a hypercall page at ${hex(gpa)}, outside RAM, is #GP`,
      {},
      async (guest) => {
        const [, write, read] = await guest.run(
          wrmsr(OS_ID, 1n),
          wrmsr(HYPERCALL, gpa | 1n),
          rdmsr(HYPERCALL),
        );
        assertEquals(write!.fault, "#GP(0)");
        assertEquals(read!.edxEax, 0n);
      },
    );
  }

  guestTest(
    backend,
    "the guest reads what HvExtCallQueryCapabilities wrote",
    {},
    async (guest) => {
      guest.memory.fill(Number(OUTPUT), 16, 0xff);
      const [, result, first, second] = await guest.run(
        wrmsr(OS_ID, 1n),
        hypercall(0x8001n, 0n, OUTPUT),
        load64(Number(OUTPUT)),
        load64(Number(OUTPUT) + 8),
      );
      assertEquals(callResult(result!), 0n);
      assertEquals(first!.registers.rax, 0n);
      assertEquals(second!.registers.rax, 0xffff_ffff_ffff_ffffn);
    },
  );
}
