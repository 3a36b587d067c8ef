/** Hypercalls that act on other processors: TLB flushes and inter-processor interrupts. */
import { assertEquals } from "@std/assert";
import type { GuestMemory } from "../../core/guest_memory.ts";
import type { Partition } from "../../hyperv/partition.ts";
import { type Bench, bench, identify, vmcall } from "./_partition.ts";

const FAST = 0x1_0000n;
const INPUT = 0x1000n;
const RAM_END = 0x4_0000n;
const VCPUS = 130;
const ALL = 0xffff_ffff_ffff_ffffn;
const header = (banks: number): bigint => BigInt(banks) << 17n;
const reps = (count: number): bigint => BigInt(count) << 32n;

interface ManyBench extends Bench {
  /** Processors that were flushed since the last look. */
  flushed: () => number[];
}

function many(): ManyBench {
  let flushed: number[] = [];
  const b = bench({
    vcpus: VCPUS,
    onTlbFlush: (vcpu) => flushed.push(vcpu),
  });
  identify(b.partition);
  return {
    ...b,
    flushed: () => {
      const now = flushed;
      flushed = [];
      return now;
    },
  };
}

const everyone = Array.from({ length: VCPUS }, (_, n) => n);

function put(memory: GuestMemory, words: readonly bigint[]): void {
  words.forEach((word, n) => memory.writeU64(Number(INPUT) + 8 * n, word));
}

/** The same input in memory and in registers, in both register conventions. */
function bothWays(
  { partition, memory }: { partition: Partition; memory: GuestMemory },
  input: bigint,
  words: readonly bigint[],
): unknown[] {
  put(memory, words);
  const [first = 0n, second = 0n, ...xmm] = words;
  return [
    vmcall(partition, input, INPUT),
    vmcall(partition, input, INPUT, 0n, { longMode: false }),
    vmcall(partition, input | FAST, first, second, { xmm }),
    vmcall(partition, input | FAST, first, second, { xmm, longMode: false }),
  ];
}

const four = (value: bigint): bigint[] => [value, value, value, value];

/** A processor list, four times. */
function fourTimes(list: readonly number[]): number[] {
  return [...list, ...list, ...list, ...list];
}

const FLUSHES: [string, readonly bigint[], number, readonly number[]][] = [
  ["0x02, a mask", [0x1000n, 0n, 0b1001n], 0x02, [0, 3]],
  ["0x02, an empty mask means all", [0n, 0n, 0n], 0x02, everyone],
  ["0x02, the flag for all", [0n, 1n, 2n], 0x02, everyone],
  ["0x02, other flags", [0n, 0b1110n, 1n << 63n], 0x02, [63]],
];
for (const [what, words, code, expected] of FLUSHES) {
  Deno.test(`flush ${what}`, () => {
    const b = many();
    assertEquals(bothWays(b, BigInt(code), words), four(0n));
    assertEquals(b.flushed(), fourTimes(expected));
  });
}

Deno.test("a flush of a list of addresses says that all reps are done", () => {
  const b = many();
  const words = [0x1000n, 0n, 0b100n, 0xffff_8000_0000_0003n, 0x2000n];
  assertEquals(bothWays(b, 0x03n | reps(2), words), four(2n << 32n));
  assertEquals(b.flushed(), fourTimes([2]));
});

Deno.test("flushes with sparse banks reach the processors of all banks", () => {
  const b = many();
  // Banks 0 and 2: processors 1, 63, 128, and some that there are not.
  const set = [0n, 0b101n, 1n << 63n | 2n, ALL << 5n | 1n];
  const space = [0n, 0n, ...set];
  assertEquals(bothWays(b, 0x13n | header(2), space), four(0n));
  assertEquals(b.flushed(), fourTimes([1, 63, 128]));
  const list = [...space, 0x5000n, 0x6000n, 0x7000n];
  assertEquals(bothWays(b, 0x14n | header(2) | reps(3), list), four(3n << 32n));
  assertEquals(b.flushed(), fourTimes([1, 63, 128]));
});

Deno.test("a flush of the empty set flushes nobody, one of all everybody", () => {
  const b = many();
  assertEquals(bothWays(b, 0x13n, [0n, 0n, 0n, 0n]), four(0n));
  assertEquals(b.flushed(), []);
  assertEquals(bothWays(b, 0x13n, [0n, 0n, 1n, 0n]), four(0n));
  assertEquals(b.flushed(), fourTimes(everyone));
  // Banks that are given beside "all" are passed over.
  const words = [0n, 0n, 1n, 1n, 2n, 0x5000n];
  assertEquals(
    bothWays(b, 0x14n | header(1) | reps(1), words),
    four(1n << 32n),
  );
  assertEquals(b.flushed(), fourTimes(everyone));
});

Deno.test("malformed flushes give 3 and flush nobody", () => {
  const b = many();
  const { partition, memory } = b;
  put(memory, [0n, 0n, 0n, 0b11n]);
  const rows: [string, bigint, bigint][] = [
    ["reps without a list", 0x02n | reps(1), INPUT],
    ["a start without a list", 0x02n | 1n << 48n, INPUT],
    ["a header without a set", 0x02n | header(1), INPUT],
    ["no reps", 0x03n, INPUT],
    ["a start in the list", 0x03n | reps(7) | 1n << 48n, INPUT],
    ["no reps with a set", 0x14n | header(2), INPUT],
    ["fewer banks than bits", 0x13n | header(1), INPUT],
    ["more banks than bits", 0x13n | header(3), INPUT],
    ["outside RAM", 0x02n, RAM_END],
    ["half outside RAM", 0x02n, RAM_END - 16n],
    ["far outside RAM", 0x02n, 0xffff_ffff_ffff_fff8n],
    ["a list that leaves RAM", 0x03n | reps(4095), RAM_END - 0x7000n],
    ["more than the registers hold", 0x03n | reps(12) | FAST, 0n],
    ["banks that no register holds", 0x13n | header(11) | FAST, 0n],
  ];
  for (const [what, input, first] of rows) {
    const xmm = [0n, 0x7ffn];
    assertEquals(vmcall(partition, input, first, 0n, { xmm }), 3n, what);
  }
  assertEquals(b.flushed(), []);
  // As many as there is room for.
  assertEquals(vmcall(partition, 0x03n | reps(11) | FAST), 11n << 32n);
});

function interrupts(b: Bench): [number, number][] {
  return b.apics.take().map(({ vcpu, vector, autoEoi }) => {
    assertEquals(autoEoi, false);
    return [vcpu, vector];
  });
}

Deno.test("an interrupt reaches the processors of its mask", () => {
  const b = many();
  assertEquals(bothWays(b, 0x0bn, [0x40n, 0b110n]), four(0n));
  assertEquals(
    interrupts(b),
    [1, 2, 1, 2, 1, 2, 1, 2].map((vcpu) => [vcpu, 0x40]),
  );
  assertEquals(bothWays(b, 0x0bn, [0xffn, ALL]), four(0n));
  assertEquals(interrupts(b).length, 4 * 64);
  assertEquals(bothWays(b, 0x0bn, [0xffn, 0n]), four(0n));
  assertEquals(interrupts(b), []);
});

Deno.test("an interrupt with sparse banks reaches the processors of all banks", () => {
  const b = many();
  const words = [0x50n, 0n, 0b110n, 1n, 0b10n];
  assertEquals(bothWays(b, 0x15n | header(2), words), four(0n));
  assertEquals(
    interrupts(b),
    fourTimes([64, 129]).map((vcpu) => [vcpu, 0x50]),
  );
});

Deno.test("an interrupt for all reaches all", () => {
  const b = many();
  assertEquals(bothWays(b, 0x15n, [0x50n, 1n, 0n]), four(0n));
  assertEquals(
    interrupts(b),
    fourTimes(everyone).map((vcpu) => [vcpu, 0x50]),
  );
});

Deno.test("an interrupt for an empty set is a success whatever its vector", () => {
  const b = many();
  assertEquals(bothWays(b, 0x15n, [3n, 0n, 0n]), four(0n));
  assertEquals(interrupts(b), []);
});

Deno.test("malformed inter-processor interrupts give 3", () => {
  const b = many();
  const { partition, memory } = b;
  put(memory, [0x40n, 0n, 1n]);
  const rows: [string, bigint, bigint, bigint][] = [
    ["vector 15", 0x0bn | FAST, 15n, 1n],
    ["vector 256", 0x0bn | FAST, 256n, 1n],
    ["reserved word", 0x0bn | FAST, 1n << 32n | 0x40n, 1n],
    ["reps", 0x0bn | FAST | reps(1), 0x40n, 1n],
    ["reps with a set", 0x15n | reps(1), INPUT, 0n],
    ["header without a set", 0x0bn | FAST | header(1), 0x40n, 1n],
    ["input outside RAM", 0x0bn, RAM_END, 0n],
    ["set outside RAM", 0x15n, RAM_END - 16n, 0n],
    ["bank outside RAM", 0x15n | header(1), RAM_END - 24n, 0n],
    ["banks and bits differ", 0x15n, INPUT, 0n],
    ["vector 3 to all", 0x15n | FAST, 3n, 1n],
    ["vector 256 to all", 0x15n | FAST, 256n, 1n],
    ["bank that no register holds", 0x15n | FAST | header(12), 0x40n, 0n],
  ];
  memory.writeU64(Number(RAM_END) - 8, 1n);
  for (const [what, input, first, second] of rows) {
    const xmm = input === (0x15n | FAST | header(12)) ? [0xfffn] : [];
    assertEquals(vmcall(partition, input, first, second, { xmm }), 3n, what);
  }
  assertEquals(interrupts(b), []);
});

Deno.test("without local APICs an interrupt gives 3", () => {
  const { partition } = bench({ withApics: false });
  identify(partition);
  assertEquals(vmcall(partition, 0x0bn | FAST, 0x40n, 1n), 3n);
  assertEquals(vmcall(partition, 0x15n | FAST, 0x40n, 0n), 3n);
});

Deno.test("XMM input needs its CPUID bit where CPUID is enforced", () => {
  const { partition } = bench({ enforceCpuid: true });
  identify(partition);
  const without = partition.cpuidEntries().map((entry) =>
    entry.leaf === 0x4000_0003 ? { ...entry, edx: entry.edx & ~0x10 } : entry
  );
  assertEquals(vmcall(partition, 0x02n | FAST), 0n);
  partition.setCpuid(without);
  for (const code of [0x02n, 0x03n, 0x13n, 0x14n, 0x15n]) {
    assertEquals(vmcall(partition, code | FAST), "#UD");
  }
  // Two registers are enough for this one.
  assertEquals(vmcall(partition, 0x0bn | FAST, 0x40n, 1n), 0n);
});
