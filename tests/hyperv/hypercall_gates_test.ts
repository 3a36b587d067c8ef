/**
 * The hypercall table of Linux tools/testing/selftests/kvm/x86/hyperv_features.c, and the checks of
 * arch/x86/kvm/hyperv.c that it does not touch.
 */
import { assertEquals } from "@std/assert";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import {
  bareLeaves,
  type Bench,
  bench,
  type CallOutcome,
  identify,
  type LeafBit,
  setBits,
  vmcall,
  wrmsr,
} from "./_partition.ts";

const FAST = 0x1_0000n;
const INPUT = 0x1000n;
const OUTPUT = 0x2000n;

interface Stage {
  add?: LeafBit;
  code: bigint;
  expect: CallOutcome;
}

const STAGES: Stage[] = [
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
  { add: "04.EAX.10", code: 0x0bn, expect: 3n },
  { code: 0x15n, expect: 0n },
  { code: 0x08n, expect: 6n },
  { add: "04.EBX.0", code: 0x08n, expect: 0n },
  { code: 0x02n | FAST, expect: "#UD" },
  { add: "03.EDX.4", code: 0x02n | FAST, expect: 0n },
  { code: 0x8001n, expect: 6n },
  { add: "03.EBX.20", code: 0x8001n | FAST, expect: 5n },
];

/** A guest that has said who it is, with the CPUID bits of all stages up to one. */
function upTo(last: number, options: Parameters<typeof bench>[0] = {}): Bench {
  // The kernel's test turns no SynIC on.
  const b = bench({ enforceCpuid: true, synic: false, ...options });
  const bits = STAGES.slice(0, last + 1).flatMap(({ add }) => add ?? []);
  b.partition.setCpuid(setBits(bareLeaves(b.partition), bits));
  wrmsr(b.partition, HvMsr.GuestOsId, 0x8100n << 48n);
  // A page address without the enable bit: calls go by the identity alone.
  wrmsr(b.partition, HvMsr.Hypercall, 0x3000n);
  return b;
}

function call(b: Bench, input: bigint, longMode = true): CallOutcome {
  const fast = (input & FAST) !== 0n;
  return vmcall(
    b.partition,
    input,
    fast ? 0n : INPUT,
    fast ? 0n : OUTPUT,
    { longMode },
  );
}

const show = (value: CallOutcome): string =>
  typeof value === "bigint" ? `0x${value.toString(16)}` : value;

for (const [number, { code, expect }] of STAGES.entries()) {
  for (const longMode of [true, false]) {
    const abi = longMode ? "64" : "32";
    Deno.test(`hypercall stage ${number}, ${abi}-bit: ${show(code)} gives ${show(expect)}`, () => {
      assertEquals(call(upTo(number), code, longMode), expect);
    });
  }
}

for (const code of [0x69n, 0x6an]) {
  for (const [stage, expect] of [[5, 2n], [6, 6n], [7, 8n]] as const) {
    Deno.test(`${show(code)} as the reset call at stage ${stage}: ${show(expect)}`, () => {
      assertEquals(call(upTo(stage), code), expect);
    });
  }
}

const LAST = STAGES.length - 1;

for (const code of [0x69n, 0x6an]) {
  Deno.test(`fast ${show(code)} gives 5 even where there is no debug device`, () => {
    for (const mode of ["none", "msr", "hypercall"] as const) {
      const { partition } = bench({ mode });
      identify(partition);
      assertEquals(vmcall(partition, code | FAST), 5n, mode);
    }
  });
}

Deno.test("debug calls of a partition without the device give 2", () => {
  const { partition } = bench({ mode: "none" });
  identify(partition);
  for (const code of [0x69n, 0x6an, 0x6bn, 0x6bn | FAST]) {
    assertEquals(vmcall(partition, code, INPUT, OUTPUT), 2n, show(code));
  }
  // Bits of its own making give a guest no device.
  partition.setCpuid(setBits([
    ...partition.cpuidEntries(),
    { leaf: 0x40000082, eax: 0, ebx: 0, ecx: 0, edx: 0 },
  ], ["82.EAX.1", "03.EBX.11"]));
  assertEquals(vmcall(partition, 0x6bn, INPUT, OUTPUT), 2n);
});

Deno.test("OPTIONS opens the debug calls, also when the guest writes it", () => {
  const b = upTo(LAST);
  b.partition.setCpuid(setBits(b.partition.cpuidEntries(), ["03.EDX.11"]));
  assertEquals(call(b, 0x6bn), 8n);
  wrmsr(b.partition, HvMsr.SyndbgOptions, 4n);
  // Neither purge flag is set.
  assertEquals(call(b, 0x6bn), 5n);
  assertEquals(call(b, 0x6bn | FAST), 5n);
  wrmsr(b.partition, HvMsr.SyndbgOptions, 3n);
  assertEquals(call(b, 0x6bn), 8n);
});

Deno.test("each reserved bit of the input value gives 3", () => {
  const { partition } = bench({ mode: "hypercall" });
  identify(partition);
  for (let bit = 0n; bit < 64n; bit++) {
    const reserved = bit >= 27n && bit <= 31n || bit >= 44n && bit <= 47n ||
      bit >= 60n;
    const status = vmcall(partition, 0x6bn | 1n << bit, INPUT, OUTPUT);
    assertEquals(status === 3n, reserved, `bit ${bit}`);
  }
});

Deno.test("rep and variable header fields are not looked at in debug calls", () => {
  const { partition } = bench({ mode: "hypercall" });
  identify(partition);
  const fields = 0x3ffn << 17n | 0xfffn << 32n | 0xfffn << 48n;
  assertEquals(
    vmcall(partition, 0x69n | fields, INPUT, OUTPUT),
    0xfff_0000_0000n,
  );
});

Deno.test("access is checked before reserved bits, and those before the code", () => {
  assertEquals(call(upTo(1), 0x5cn | 1n << 27n), 6n);
  assertEquals(call(upTo(1), 0xbeefn | 1n << 27n), 3n);
  assertEquals(call(upTo(17), 0x02n | FAST | 1n << 63n), 3n);
});

Deno.test("calls from user mode and real mode are #UD", () => {
  const { partition } = bench({ mode: "hypercall" });
  identify(partition);
  for (const cpl of [1, 2, 3]) {
    assertEquals(vmcall(partition, 0x6bn, 0n, 0n, { cpl }), "#UD");
  }
  assertEquals(
    vmcall(partition, 0x6bn, 0n, 0n, { protectedMode: false, longMode: false }),
    "#UD",
  );
});

Deno.test("without GUEST_OS_ID there are no hypercalls, and with it no page is needed", () => {
  const { partition } = bench({ mode: "hypercall" });
  assertEquals(vmcall(partition, 0x08n), "unknown");
  identify(partition);
  assertEquals(vmcall(partition, 0x08n), 0n);
  wrmsr(partition, HvMsr.GuestOsId, 0n);
  assertEquals(vmcall(partition, 0x08n), "unknown");
});

Deno.test("without Hv#1 there are no hypercalls", () => {
  const { partition } = bench({ mode: "hypercall" });
  identify(partition);
  partition.setCpuid([]);
  assertEquals(vmcall(partition, 0x08n), "unknown");
});

Deno.test("with a SynIC a message is not acknowledged, so that kdnet takes SynDbg", () => {
  const without = bench({ synic: false }).partition;
  identify(without);
  assertEquals(vmcall(without, 0x5cn, INPUT), 3n, "no SynIC");
  const { partition } = bench();
  identify(partition);
  assertEquals(vmcall(partition, 0x5cn, INPUT), 0x14n);
  assertEquals(vmcall(partition, 0x5cn | 1n << 32n, INPUT), 3n, "reps");
  assertEquals(vmcall(partition, 0x5cn | 1n << 17n, INPUT), 3n, "header");
  assertEquals(vmcall(partition, 0x5cn | FAST, 1n), 3n, "fast");
});

Deno.test("an event is signalled to no connection", () => {
  const { partition, memory } = bench();
  identify(partition);
  const rows: [string, bigint, bigint][] = [
    ["a connection", 1n, 0x12n],
    ["a flag number", 1n << 32n | 1n, 0x12n],
    ["reserved bits with a flag number", 3n << 31n | 1n << 48n, 0x12n],
    ["reserved bits of the connection", 1n << 24n, 3n],
    ["reserved bits above", 1n << 48n, 3n],
  ];
  for (const [what, connection, status] of rows) {
    assertEquals(vmcall(partition, 0x5dn | FAST, connection), status, what);
    memory.writeU64(Number(INPUT), connection);
    assertEquals(vmcall(partition, 0x5dn, INPUT), status, `${what}, slow`);
  }
  assertEquals(vmcall(partition, 0x5dn, INPUT + 4n), 4n, "misaligned");
  assertEquals(vmcall(partition, 0x5dn, 0x4_0000n), 4n, "outside RAM");
  assertEquals(vmcall(partition, 0x5dn | FAST | 1n << 32n, 1n), 3n, "reps");
});

Deno.test("a long spin is told with the processor that spins", () => {
  const spinning: number[] = [];
  const { partition } = bench({
    vcpus: 2,
    onSpinWait: (vcpu) => spinning.push(vcpu),
  });
  identify(partition);
  assertEquals(vmcall(partition, 0x08n | FAST, 7n, 0n, { vcpu: 1 }), 0n);
  assertEquals(vmcall(partition, 0x08n | FAST | 1n << 32n), 3n, "reps");
  assertEquals(spinning, [1]);
});

Deno.test("extended capabilities are none", () => {
  const { partition, memory } = bench();
  identify(partition);
  memory.writeU64(0x2000, ~0n & 0xffff_ffff_ffff_ffffn);
  assertEquals(vmcall(partition, 0x8001n, 0n, OUTPUT), 0n);
  assertEquals(memory.view.getBigUint64(0x2000, true), 0n);
  assertEquals(vmcall(partition, 0x8001n, 0n, OUTPUT + 4n), 4n);
  assertEquals(vmcall(partition, 0x8001n, 0n, 0x4_0000n), 5n);
  assertEquals(vmcall(partition, 0x8041n, 0n, OUTPUT), 2n);
  assertEquals(vmcall(partition, 0x8041n | FAST), 5n);
  assertEquals(vmcall(partition, 0x8042n | FAST), 2n);
});
