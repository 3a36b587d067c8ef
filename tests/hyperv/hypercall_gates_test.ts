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
  const b = bench({ enforceCpuid: true, ...options });
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

Deno.test("a flush of a list reports all its reps as done", () => {
  let flushes = 0;
  const { partition } = bench({ onTlbFlush: () => flushes++ });
  identify(partition);
  for (const longMode of [true, false]) {
    const input = 0x03n | 7n << 32n;
    assertEquals(vmcall(partition, input, INPUT, 0n, { longMode }), 7n << 32n);
  }
  assertEquals(flushes, 2);
  assertEquals(vmcall(partition, 0x03n, INPUT), 3n, "no reps");
  assertEquals(vmcall(partition, 0x03n | 7n << 32n | 1n << 48n, INPUT), 3n);
  assertEquals(vmcall(partition, 0x02n | 1n << 32n, INPUT), 3n, "reps");
  assertEquals(vmcall(partition, 0x02n | 1n << 17n, INPUT), 3n, "header");
  assertEquals(vmcall(partition, 0x13n | 1n << 17n, INPUT), 3n, "no banks");
  assertEquals(vmcall(partition, 0x02n, 0x4_0000n), 3n, "outside RAM");
  assertEquals(vmcall(partition, 0x02n, 0xffff_ffff_ffff_fff8n), 3n);
  assertEquals(flushes, 2);
});

Deno.test("flush calls with a processor set", () => {
  let flushes = 0;
  const { partition, memory } = bench({ onTlbFlush: () => flushes++ });
  identify(partition);
  assertEquals(vmcall(partition, 0x13n, INPUT), 0n);
  assertEquals(flushes, 0, "the empty set");
  memory.writeU64(0x1010, 1n);
  assertEquals(vmcall(partition, 0x13n, INPUT), 0n);
  assertEquals(flushes, 1, "all");
  memory.writeU64(0x1010, 0n);
  memory.writeU64(0x1018, 0b101n);
  assertEquals(vmcall(partition, 0x13n | 2n << 17n, INPUT), 0n);
  assertEquals(
    vmcall(partition, 0x14n | 2n << 17n | 3n << 32n, INPUT),
    3n << 32n,
  );
  assertEquals(flushes, 3, "two banks");
  const atEnd = 0x4_0000n - 32n;
  memory.writeU64(Number(atEnd) + 24, 0b101n);
  assertEquals(
    vmcall(partition, 0x13n | 2n << 17n, atEnd),
    3n,
    "banks beyond RAM",
  );
});

Deno.test("inter-processor interrupts reach the machine with vector and processors", () => {
  const sent: [number, bigint | "all"][] = [];
  const { partition, memory } = bench({
    onIpi: (vector, processors) => sent.push([vector, processors]),
  });
  identify(partition);
  const all = 0xffff_ffff_ffff_ffffn;
  assertEquals(vmcall(partition, 0x0bn | FAST, 0x40n, all), 0n);
  memory.writeU32(0x1000, 0xff);
  memory.writeU64(0x1008, 5n);
  assertEquals(vmcall(partition, 0x0bn, INPUT), 0n);
  memory.writeU64(0x1008, 1n);
  assertEquals(vmcall(partition, 0x15n, INPUT), 0n);
  memory.writeU64(0x1008, 0n);
  memory.writeU64(0x1010, 1n);
  memory.writeU64(0x1018, 6n);
  assertEquals(vmcall(partition, 0x15n | 1n << 17n, INPUT), 0n);
  assertEquals(sent, [[0x40, all], [0xff, 5n], [0xff, "all"], [0xff, 6n]]);
});

Deno.test("malformed inter-processor interrupts give 3", () => {
  const { partition, memory } = bench({
    onIpi: () => {
      throw new Error("sent");
    },
  });
  identify(partition);
  const rows: [string, bigint, bigint][] = [
    ["vector 15", 0x0bn | FAST, 15n],
    ["vector 256", 0x0bn | FAST, 256n],
    ["reserved word", 0x0bn | FAST, 1n << 32n | 0x40n],
    ["reps", 0x0bn | FAST | 1n << 32n, 0x40n],
    ["variable header", 0x0bn | FAST | 1n << 17n, 0x40n],
    ["input outside RAM", 0x0bn, 0x4_0000n],
    ["set outside RAM", 0x15n, 0x4_0000n - 16n],
    ["bank that is not there", 0x15n | 1n << 17n, INPUT],
  ];
  for (const [what, input, first] of rows) {
    assertEquals(vmcall(partition, input, first), 3n, what);
  }
  memory.writeU32(0x1000, 3);
  memory.writeU64(0x1008, 1n);
  assertEquals(vmcall(partition, 0x15n, INPUT), 3n, "vector 3 to all");
});

Deno.test("with a SynIC a message is not acknowledged, so that kdnet takes SynDbg", () => {
  const { partition } = bench();
  identify(partition);
  assertEquals(vmcall(partition, 0x5cn, INPUT), 3n, "no SynIC");
  partition.enableSynic();
  assertEquals(vmcall(partition, 0x5cn, INPUT), 0x14n);
  assertEquals(vmcall(partition, 0x5cn | 1n << 32n, INPUT), 3n);
  assertEquals(vmcall(partition, 0x5dn | FAST, 1n), 0x12n);
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
