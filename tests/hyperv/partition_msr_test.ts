/** What the synthetic MSRs do beside their gates, and the partition's life. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import type { CrashReport } from "../../hyperv/crash.ts";
import {
  bench,
  bytes,
  identify,
  RAM,
  rdmsr,
  vmcall,
  wrmsr,
} from "./_partition.ts";

const SIMP = HvMsr.Simp, SIEFP = HvMsr.Siefp;

for (
  const [hypercallInstruction, code] of [
    ["vmcall", [0x0f, 0x01, 0xc1, 0xc3]],
    ["vmmcall", [0x0f, 0x01, 0xd9, 0xc3]],
  ] as const
) {
  Deno.test(`the hypercall page holds ${hypercallInstruction} and ret`, () => {
    const { partition, memory } = bench({ hypercallInstruction });
    wrmsr(partition, HvMsr.Hypercall, 0x3001n);
    assertEquals(
      rdmsr(partition, HvMsr.Hypercall),
      0n,
      "ignored without an id",
    );
    identify(partition);
    wrmsr(partition, HvMsr.Hypercall, 0x3ffen);
    assertEquals(memory.bytes[0x3000], 0, "not enabled");
    assert(wrmsr(partition, HvMsr.Hypercall, 0x3ff1n));
    assertEquals([...memory.read(0x3000, 4)], [...code]);
    assertEquals(memory.bytes[0x3004], 0);
    assertEquals(rdmsr(partition, HvMsr.Hypercall), 0x3ff1n);
    wrmsr(partition, HvMsr.GuestOsId, 0n);
    assertEquals(rdmsr(partition, HvMsr.Hypercall), 0x3ff0n, "disabled");
  });
}

Deno.test("a hypercall page outside RAM is #GP and not kept", () => {
  const { partition } = bench();
  identify(partition);
  for (const gpa of [BigInt(RAM), 1n << 45n, 0xffff_ffff_ffff_f000n]) {
    assert(!wrmsr(partition, HvMsr.Hypercall, gpa | 1n));
    assertEquals(rdmsr(partition, HvMsr.Hypercall), 0n);
  }
});

Deno.test("the reference time counts units of 100 ns since the partition was made", () => {
  const { partition, clock } = bench();
  assertEquals(rdmsr(partition, HvMsr.TimeRefCount), 0n);
  clock.tsc = 12_345n;
  assertEquals(rdmsr(partition, HvMsr.TimeRefCount), 123n);
  clock.tsc = 0xffff_ffff_ffffn;
  assertEquals(rdmsr(partition, HvMsr.TimeRefCount), 0xffff_ffff_ffffn / 100n);
});

Deno.test("the reference TSC page gives the time that the MSR gives", () => {
  const { partition, clock, memory } = bench();
  clock.tsc = 5_000_000_000n;
  partition.reset();
  assert(wrmsr(partition, HvMsr.ReferenceTsc, 0x4001n));
  assert(memory.view.getUint32(0x4000, true) !== 0, "valid");
  const scale = memory.view.getBigUint64(0x4008, true);
  const offset = memory.view.getBigInt64(0x4010, true);
  for (const tsc of [5_000_000_000n, 5_000_012_345n, 99_999_999_999n]) {
    clock.tsc = tsc;
    const page = (tsc * scale >> 64n) + offset;
    const register = rdmsr(partition, HvMsr.TimeRefCount)!;
    assert(
      page - register <= 1n && register - page <= 1n,
      `${page} ${register}`,
    );
  }
  assert(memory.read(0x4018, 4096 - 24).every((n) => n === 0));
});

// Frequencies of hosts, odd ones, and the slowest whose scale has 64 bits.
for (
  const tscFrequency of [
    1_000_000_000,
    2_445_404_000,
    3_000_000_007,
    10_000_001,
  ]
) {
  Deno.test(`at ${tscFrequency} Hz page and register agree to the unit for years`, () => {
    const clock = { tscFrequency, tsc: 987_654_321n, readTsc: () => clock.tsc };
    const { partition, memory } = bench({ clock });
    assert(wrmsr(partition, HvMsr.ReferenceTsc, 0x4001n));
    const scale = memory.view.getBigUint64(0x4008, true);
    const offset = memory.view.getBigInt64(0x4010, true);
    const start = clock.tsc;
    for (let ticks = 1n; ticks < 1n << 58n; ticks = ticks * 7n + 3n) {
      clock.tsc = start + ticks;
      const page = (clock.tsc * scale >> 64n) + offset;
      const register = rdmsr(partition, HvMsr.TimeRefCount)!;
      assertEquals(page, register, `after ${ticks} ticks`);
      const exact = ticks * 10_000_000n / BigInt(tscFrequency);
      const error = register - exact;
      assert(
        error >= -1n && error <= 1n,
        `${ticks}: ${register}, not ${exact}`,
      );
    }
  });
}

Deno.test("a TSC too slow for a scale leaves the page invalid; the register counts", () => {
  const clock = {
    tscFrequency: 10_000_000,
    tsc: 0n,
    readTsc: () => clock.tsc,
  };
  const { partition, memory } = bench({ clock });
  memory.writeU32(0x4000, 5);
  assert(wrmsr(partition, HvMsr.ReferenceTsc, 0x4001n));
  assertEquals(memory.view.getUint32(0x4000, true), 0);
  clock.tsc = 123n;
  assertEquals(rdmsr(partition, HvMsr.TimeRefCount), 123n);
});

Deno.test("the page's sequence number changes and is never 0 or all ones", () => {
  const { partition, memory } = bench();
  for (const [before, after] of [[0, 1], [7, 8], [0xffff_fffe, 1], [-1, 1]]) {
    memory.writeU32(0x4000, before!);
    wrmsr(partition, HvMsr.ReferenceTsc, 0x4001n);
    assertEquals(memory.view.getUint32(0x4000, true), after);
  }
  memory.writeU32(0x4000, 7);
  wrmsr(partition, HvMsr.ReferenceTsc, 0x4000n);
  assertEquals(memory.view.getUint32(0x4000, true), 7, "not enabled");
});

Deno.test("each processor's run time is its own, and no guest writes it", () => {
  const ran = [5n, 70n];
  const { partition } = bench({ vcpus: 2, runTime: (vcpu) => ran[vcpu]! });
  assertEquals(rdmsr(partition, HvMsr.VpRuntime, 1), 0n);
  ran[1] = 100n;
  assertEquals(rdmsr(partition, HvMsr.VpRuntime, 0), 0n);
  assertEquals(rdmsr(partition, HvMsr.VpRuntime, 1), 30n);
  assert(!wrmsr(partition, HvMsr.VpRuntime, 0n, 1));
  assert(partition.hostWriteMsr(1, HvMsr.VpRuntime, 1000n));
  ran[1] = 101n;
  assertEquals(rdmsr(partition, HvMsr.VpRuntime, 1), 1001n);
});

Deno.test("a reference TSC page outside RAM is kept and not filled", () => {
  const { partition } = bench();
  for (const gpa of [BigInt(RAM), 1n << 60n]) {
    assert(wrmsr(partition, HvMsr.ReferenceTsc, gpa | 1n));
    assertEquals(rdmsr(partition, HvMsr.ReferenceTsc), gpa | 1n);
  }
});

Deno.test("frequencies are those of the clock and of the options", () => {
  const { partition } = bench({ apicFrequency: 25_000_000 });
  assertEquals(rdmsr(partition, HvMsr.TscFrequency), 1_000_000_000n);
  assertEquals(rdmsr(partition, HvMsr.ApicFrequency), 25_000_000n);
});

Deno.test("each vCPU reads its own index", () => {
  const { partition } = bench({ vcpus: 3 });
  for (const vcpu of [0, 1, 2]) {
    assertEquals(rdmsr(partition, HvMsr.VpIndex, vcpu), BigInt(vcpu));
  }
});

Deno.test("RESET tells the machine on bit 0 and reads as 0", () => {
  let resets = 0;
  const { partition } = bench({ onReset: () => resets++ });
  wrmsr(partition, HvMsr.Reset, 0n);
  assertEquals(resets, 0);
  wrmsr(partition, HvMsr.Reset, 1n);
  assertEquals(resets, 1);
  assertEquals(rdmsr(partition, HvMsr.Reset), 0n);
  partition.hostWriteMsr(0, HvMsr.Reset, 1n);
  assertEquals(resets, 1, "not for the host");
});

const NOTIFY = 1n << 63n, MESSAGE = 1n << 62n;

Deno.test("a crash is reported with parameters and message", () => {
  const reports: CrashReport[] = [];
  const { partition, memory } = bench({ onCrash: (r) => reports.push(r) });
  memory.write(0x2000, bytes("IRQL_NOT_LESS_OR_EQUAL"));
  const p = [1n, 2n, 0xffff_ffff_ffff_ffffn, 0x2000n, 22n];
  for (const [n, value] of p.entries()) {
    wrmsr(partition, HvMsr.CrashP0 + n, value);
    assertEquals(rdmsr(partition, HvMsr.CrashP0 + n), value);
  }
  wrmsr(partition, HvMsr.CrashCtl, MESSAGE);
  assertEquals(reports.length, 0, "not without the notify bit");
  wrmsr(partition, HvMsr.CrashCtl, NOTIFY);
  assertEquals(reports[0]!.message, undefined);
  wrmsr(partition, HvMsr.CrashCtl, NOTIFY | MESSAGE);
  assertEquals(reports[1]!.message, "IRQL_NOT_LESS_OR_EQUAL");
  assertEquals([...reports[1]!.parameters], p);
  assertEquals(rdmsr(partition, HvMsr.CrashCtl), NOTIFY | MESSAGE);
});

Deno.test("a crash message outside RAM is none, and an endless one is cut", () => {
  let last: CrashReport | undefined;
  const { partition } = bench({ onCrash: (r) => last = r });
  const crash = (gpa: bigint, length: bigint): string | undefined => {
    wrmsr(partition, HvMsr.CrashP0 + 3, gpa);
    wrmsr(partition, HvMsr.CrashP4, length);
    wrmsr(partition, HvMsr.CrashCtl, NOTIFY | MESSAGE);
    return last!.message;
  };
  assertEquals(crash(BigInt(RAM), 1n), undefined);
  assertEquals(crash(0xffff_ffff_ffff_ffffn, 16n), undefined);
  assertEquals(crash(0x1000n, 0xffff_ffff_ffff_ffffn)!.length, 4096);
});

// Bits 7 to 0 vector, 16 enabled, 63 to 32 processor.
Deno.test("a guest whose TSC has changed is told by the interrupt that it asked for", () => {
  const rows: [bigint, { vcpu: number; vector: number }[]][] = [
    [1n << 32n | 0x1_00f3n, [{ vcpu: 1, vector: 0xf3 }]],
    [1n << 32n | 0x00f3n, []],
    [0x1_000fn, []],
    [2n << 32n | 0x1_00f3n, []],
  ];
  for (const [control, raised] of rows) {
    const { partition, apics } = bench({ vcpus: 2 });
    wrmsr(partition, HvMsr.ReenlightenmentControl, control);
    partition.update();
    assertEquals(apics.take(), []);
    partition.tscChanged();
    assertEquals(partition.untilNext(), 0);
    partition.update();
    partition.update();
    assertEquals(
      apics.take(),
      raised.map((one) => ({ ...one, autoEoi: false })),
    );
    assertEquals(partition.untilNext(), Infinity);
  }
});

Deno.test("state from another TSC's partition is news for the guest", () => {
  const from = bench();
  wrmsr(from.partition, HvMsr.ReenlightenmentControl, 0x1_00f3n);
  wrmsr(from.partition, HvMsr.ReferenceTsc, 0x4001n);
  from.clock.tsc = 100n * 5000n;
  const state = from.partition.save();
  for (const tscFrequency of [1_000_000_000, 2_000_000_000]) {
    const clock = { tscFrequency, readTsc: () => 77_000n };
    const to = bench({ clock });
    to.memory.writeU32(0x4000, 41);
    to.partition.restore(state);
    to.partition.update();
    const told = tscFrequency === from.clock.tscFrequency ? 0 : 1;
    assertEquals(to.apics.take().length, told);
    assertEquals(to.memory.view.getUint32(0x4000, true), 42);
    assertEquals(rdmsr(to.partition, HvMsr.TimeRefCount), 5000n);
  }
});

Deno.test("a SINT with a vector below 16 is #GP unless masked", () => {
  const { partition } = bench();
  for (const sint of [0, 15]) {
    const msr = HvMsr.Sint0 + sint;
    assertEquals(rdmsr(partition, msr), 0x1_0000n, "masked at reset");
    assert(!wrmsr(partition, msr, 15n));
    assert(wrmsr(partition, msr, 0x1_000fn));
    assert(wrmsr(partition, msr, 16n));
    assertEquals(rdmsr(partition, msr), 16n);
  }
});

Deno.test("SynIC version and end of message", () => {
  const { partition } = bench();
  assertEquals(rdmsr(partition, HvMsr.Sversion), 1n);
  assert(!wrmsr(partition, HvMsr.Sversion, 1n));
  assert(wrmsr(partition, HvMsr.Eom, 5n));
  assertEquals(rdmsr(partition, HvMsr.Eom), 0n);
});

Deno.test("pages for the guest outside RAM are #GP where they are enabled", () => {
  const { partition } = bench();
  for (const msr of [SIMP, SIEFP, HvMsr.VpAssistPage]) {
    assert(!wrmsr(partition, msr, BigInt(RAM) | 1n));
    assert(!wrmsr(partition, msr, 0xffff_ffff_ffff_f001n));
    assert(wrmsr(partition, msr, BigInt(RAM)), "disabled");
    assert(wrmsr(partition, msr, 0x2001n));
    assertEquals(rdmsr(partition, msr), 0x2001n);
  }
});

Deno.test("enabling the assist page clears its first word only", () => {
  const { partition, memory } = bench();
  memory.fill(0x2000, 4096, 0xff);
  wrmsr(partition, HvMsr.VpAssistPage, 0x2001n);
  assertEquals(memory.view.getUint32(0x2000, true), 0);
  assertEquals(memory.view.getUint32(0x2004, true), 0xffff_ffff);
});

Deno.test("a timer's count stops and starts it", () => {
  const { partition } = bench();
  const CONFIG = HvMsr.Stimer0Config + 2, COUNT = CONFIG + 1;
  // SINT 2, enabled.
  wrmsr(partition, CONFIG, 0x2_0001n);
  wrmsr(partition, COUNT, 0n);
  assertEquals(rdmsr(partition, CONFIG), 0x2_0000n);
  // With auto-enable.
  wrmsr(partition, CONFIG, 0x2_0008n);
  wrmsr(partition, COUNT, 100n);
  assertEquals(rdmsr(partition, CONFIG), 0x2_0009n);
  assertEquals(rdmsr(partition, COUNT), 100n);
  partition.hostWriteMsr(0, COUNT, 0n);
  assertEquals(rdmsr(partition, CONFIG), 0x2_0009n, "the host only stores");
});

Deno.test("registers of one vCPU are its own", () => {
  const { partition } = bench({ vcpus: 2 });
  const registers = [
    HvMsr.VpAssistPage,
    HvMsr.Scontrol,
    HvMsr.Sint0 + 7,
    HvMsr.Stimer0Config,
    HvMsr.Stimer3Count,
  ];
  for (const msr of registers) {
    const before = rdmsr(partition, msr, 0);
    assert(wrmsr(partition, msr, 0x50n, 1));
    assertEquals(rdmsr(partition, msr, 0), before);
    assertEquals(rdmsr(partition, msr, 1), 0x50n);
    partition.resetVcpu(1);
    assertEquals(rdmsr(partition, msr, 1), before);
  }
});

// State. ----------------------------------------------------------------------

const STORED = [
  HvMsr.GuestOsId,
  HvMsr.Hypercall,
  HvMsr.ReferenceTsc,
  HvMsr.CrashP0,
  HvMsr.CrashP4,
  HvMsr.ReenlightenmentControl,
  HvMsr.TscEmulationControl,
  HvMsr.TscInvariantControl,
  HvMsr.Tpr,
  HvMsr.VpAssistPage,
  HvMsr.Scontrol,
  HvMsr.Simp,
  HvMsr.Sint0 + 3,
  HvMsr.Stimer0Config,
  HvMsr.Stimer3Count,
  HvMsr.SyndbgControl,
  HvMsr.SyndbgStatus,
  HvMsr.SyndbgSendBuffer,
  HvMsr.SyndbgRecvBuffer,
  HvMsr.SyndbgPendingBuffer,
  HvMsr.SyndbgOptions,
];

function filled(): ReturnType<typeof bench> {
  const b = bench();
  for (const [n, msr] of STORED.entries()) {
    const value = msr === HvMsr.TscInvariantControl ? 1n : BigInt(n) << 12n;
    b.partition.hostWriteMsr(0, msr, value);
  }
  return b;
}

Deno.test("state survives a way as JSON-like plain data", () => {
  const from = filled();
  from.clock.tsc = 7_000n;
  const state = structuredClone(from.partition.save());
  const to = bench();
  to.clock.tsc = 1_000_000n;
  to.partition.restore(state);
  for (const msr of STORED) {
    assertEquals(
      to.partition.hostReadMsr(0, msr),
      from.partition.hostReadMsr(0, msr),
      `0x${msr.toString(16)}`,
    );
  }
  assertEquals(to.partition.referenceTime(), 70n, "time goes on from there");
});

Deno.test("a restored session is a new one: what waited is gone, the byte is right", () => {
  const from = bench();
  wrmsr(from.partition, HvMsr.SyndbgPendingBuffer, 0x7000n);
  const state = from.partition.save();
  const to = bench();
  to.memory.writeU8(0x7000, 1);
  to.peer.send(bytes("stale"));
  to.partition.restore(state);
  assertEquals(to.wire.pending, 0);
  assertEquals(to.memory.bytes[0x7000], 0);
  to.peer.send(bytes("new"));
  assertEquals(to.memory.bytes[0x7000], 1);
});

Deno.test("restoring fills the reference TSC page for the new clock", () => {
  const from = bench();
  wrmsr(from.partition, HvMsr.ReferenceTsc, 0x4001n);
  const to = bench();
  to.partition.restore(from.partition.save());
  assert(to.memory.view.getUint32(0x4000, true) !== 0);
});

Deno.test("state of another kind is refused", () => {
  const { partition } = bench();
  const state = partition.save();
  assertThrows(
    () => partition.restore({ ...state, format: "other" }),
    TypeError,
    "Cannot restore partition",
  );
  const processor = state.processors[0]!;
  const timer = processor.timers[0]!;
  const { syndbg } = state;
  const odd: unknown[] = [
    { words: [1] },
    { words: state.words.map(() => 0.5) },
    { words: undefined },
    { referenceTime: 5 },
    { tscFrequency: undefined },
    { processors: undefined },
    { processors: [] },
    { processors: [processor, processor] },
    { processors: [null] },
    { processors: [{ ...processor, assistPage: [0] }] },
    { processors: [{ ...processor, runTime: 0 }] },
    { processors: [{ ...processor, synic: processor.synic.slice(1) }] },
    { processors: [{ ...processor, timers: [timer] }] },
    ...[
      { config: [1] },
      { count: -1n },
      { count: 1n << 64n },
      { expiration: undefined },
      { waiting: 1 },
    ].map((bad) => ({
      processors: [{
        ...processor,
        timers: [...processor.timers.slice(1), { ...timer, ...bad }],
      }],
    })),
    { syndbg: null },
    { syndbg: { ...syndbg, pendingPage: "0" } },
    { syndbg: { ...syndbg, frames: undefined } },
  ];
  wrmsr(partition, HvMsr.SyndbgSendBuffer, 0x77n);
  for (const change of odd) {
    assertThrows(
      () => partition.restore(Object.assign({ ...state }, change)),
      TypeError,
      "Cannot restore partition",
    );
  }
  assertEquals(rdmsr(partition, HvMsr.SyndbgSendBuffer), 0x77n, "not touched");
});

Deno.test("reset takes every register back to its value at power-on", () => {
  const { partition, clock } = filled();
  const fresh = bench();
  clock.tsc = 123_456n;
  partition.reset();
  for (let msr = 0x40000000; msr < 0x40000200; msr++) {
    assertEquals(
      partition.hostReadMsr(0, msr),
      fresh.partition.hostReadMsr(0, msr),
      `0x${msr.toString(16)}`,
    );
  }
  assertEquals(vmcall(partition, 0x08n), "unknown");
});

Deno.test("the host reads and writes without gates and knows what is none", () => {
  const { partition } = bench({ enforceCpuid: true });
  partition.setCpuid([]);
  for (const msr of STORED) {
    assert(partition.hostReadMsr(0, msr) !== undefined);
    assert(partition.hostWriteMsr(0, msr, 0n));
  }
  assertEquals(partition.hostReadMsr(0, 0x40000150), undefined);
  assert(!partition.hostWriteMsr(0, 0x40000150, 0n));
});
