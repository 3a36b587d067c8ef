import { assert, assertEquals } from "@std/assert";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import type { Partition } from "../../hyperv/partition.ts";
import { type Bench, bench, rdmsr, wrmsr } from "./_partition.ts";

const MESSAGES = 0x2000;
const VECTOR = 0x42;
const SINT = 3;
const SLOT = MESSAGES + 256 * SINT;

const ENABLE = 1n, PERIODIC = 2n, LAZY = 4n, AUTO = 8n, DIRECT = 0x1000n;
const DIRECT_VECTOR = 0x55n << 4n;
const TO_SINT = BigInt(SINT) << 16n;

const config = (n: number): number => HvMsr.Stimer0Config + 2 * n;
const count = (n: number): number => HvMsr.Stimer0Config + 2 * n + 1;

/** A partition with a message page and a SINT. */
function timerBench(options: Parameters<typeof bench>[0] = {}): Bench {
  const b = bench(options);
  wrmsr(b.partition, HvMsr.Simp, BigInt(MESSAGES | 1));
  wrmsr(b.partition, HvMsr.Sint0 + SINT, BigInt(VECTOR));
  return b;
}

/** Lets the reference time become `time`, and the partition do what is due. */
function at(b: Bench, time: bigint): void {
  b.clock.tsc = 100n * time;
  b.partition.update();
}

function enabled(partition: Partition, n: number): boolean {
  return (rdmsr(partition, config(n))! & ENABLE) !== 0n;
}

/** The message in the slot: its payload, or undefined if the slot is empty. */
function message(b: Bench): bigint[] | undefined {
  const { view } = b.memory;
  if (view.getUint32(SLOT, true) === 0) return undefined;
  assertEquals(view.getUint32(SLOT, true), 0x8000_0010, "type");
  assertEquals(view.getUint8(SLOT + 4), 24, "size");
  assertEquals(view.getBigUint64(SLOT + 8, true), 0n, "sender");
  return [0, 8, 16].map((n) => view.getBigUint64(SLOT + 16 + n, true));
}

Deno.test("a one-shot timer sends its message once, with both times", () => {
  const b = timerBench();
  wrmsr(b.partition, count(1), 5000n);
  wrmsr(b.partition, config(1), ENABLE | TO_SINT);
  assertEquals(b.partition.untilNext(), 500_000);
  at(b, 4999n);
  assertEquals(message(b), undefined);
  assertEquals(b.partition.untilNext(), 100);
  at(b, 5010n);
  assertEquals(message(b), [1n, 5000n, 5010n]);
  assertEquals(b.apics.take(), [{ vcpu: 0, vector: VECTOR, autoEoi: false }]);
  assert(!enabled(b.partition, 1));
  assertEquals(rdmsr(b.partition, count(1)), 5000n);
  assertEquals(b.partition.untilNext(), Infinity);
  b.memory.writeU32(SLOT, 0);
  at(b, 90_000n);
  assertEquals(message(b), undefined);
});

Deno.test("a one-shot whose time is past expires at once", () => {
  const b = timerBench();
  at(b, 777n);
  wrmsr(b.partition, config(0), AUTO | DIRECT | DIRECT_VECTOR);
  wrmsr(b.partition, count(0), 776n);
  assertEquals(b.apics.take(), [{ vcpu: 0, vector: 0x55, autoEoi: false }]);
  assert(!enabled(b.partition, 0));
});

Deno.test("auto-enable starts a timer with its count, again and again", () => {
  const b = timerBench();
  wrmsr(b.partition, config(0), AUTO | DIRECT | DIRECT_VECTOR);
  for (const time of [1000n, 2000n, 3000n]) {
    wrmsr(b.partition, count(0), time);
    assert(enabled(b.partition, 0));
    at(b, time - 1n);
    assertEquals(b.apics.take(), []);
    at(b, time);
    assertEquals(b.apics.take().length, 1);
    assert(!enabled(b.partition, 0));
  }
});

Deno.test("a count of 0 disables, one without auto-enable does not enable", () => {
  const b = timerBench();
  wrmsr(b.partition, count(0), 1000n);
  assert(!enabled(b.partition, 0));
  wrmsr(b.partition, config(0), ENABLE | TO_SINT);
  wrmsr(b.partition, count(0), 0n);
  assert(!enabled(b.partition, 0));
  wrmsr(b.partition, count(0), 2000n);
  assert(!enabled(b.partition, 0));
  at(b, 10_000n);
  assertEquals(message(b), undefined);
  assertEquals(b.partition.untilNext(), Infinity);
});

Deno.test("an enabled timer with a count of 0 does not run", () => {
  const b = timerBench();
  wrmsr(b.partition, config(0), ENABLE | PERIODIC | TO_SINT);
  assertEquals(b.partition.untilNext(), Infinity);
  at(b, 10_000n);
  assertEquals(message(b), undefined);
});

Deno.test("a periodic timer keeps its beat; missed ticks are lost", () => {
  const b = timerBench();
  at(b, 100n);
  wrmsr(b.partition, count(0), 3000n);
  wrmsr(b.partition, config(0), ENABLE | PERIODIC | TO_SINT);
  assertEquals(b.partition.untilNext(), 300_000);
  at(b, 3150n);
  assertEquals(message(b), [0n, 3100n, 3150n]);
  assertEquals(b.partition.untilNext(), 100 * (6100 - 3150));
  b.memory.writeU32(SLOT, 0);
  // Two of three have passed unseen.
  at(b, 12_200n);
  assertEquals(message(b), [0n, 6100n, 12_200n]);
  assertEquals(b.partition.untilNext(), 100 * (15_100 - 12_200));
  assert(enabled(b.partition, 0));
});

Deno.test("a tick that finds its slot taken is lost, and the guest need not write EOM", () => {
  const b = timerBench();
  wrmsr(b.partition, count(0), 3000n);
  wrmsr(b.partition, config(0), ENABLE | PERIODIC | LAZY | TO_SINT);
  at(b, 3000n);
  at(b, 6000n);
  assertEquals(message(b), [0n, 3000n, 3000n]);
  assertEquals(b.memory.bytes[SLOT + 5], 0);
  assertEquals(b.apics.take().length, 1);
  b.memory.writeU32(SLOT, 0);
  at(b, 9000n);
  assertEquals(message(b), [0n, 9000n, 9000n]);
});

for (const end of ["EOM", "the end of its interrupt"] as const) {
  Deno.test(`a one-shot's message that finds its slot taken waits for ${end}`, () => {
    const b = timerBench();
    const { partition, memory } = b;
    const done = (): void => {
      if (end === "EOM") wrmsr(partition, HvMsr.Eom, 0n);
      else partition.endOfInterrupt(0, VECTOR);
    };
    for (const n of [0, 2]) {
      wrmsr(partition, count(n), 1000n);
      wrmsr(partition, config(n), ENABLE | TO_SINT);
    }
    at(b, 1000n);
    assertEquals(message(b)![0], 0n);
    assertEquals(memory.bytes[SLOT + 5], 1, "message pending");
    assert(enabled(partition, 2));
    assertEquals(partition.untilNext(), Infinity, "it waits for the guest");
    b.apics.take();
    // Too early: the slot is still taken.
    done();
    at(b, 2000n);
    assertEquals(message(b)![0], 0n);
    memory.writeU32(SLOT, 0);
    at(b, 3000n);
    assertEquals(message(b), undefined);
    done();
    assertEquals(message(b), [2n, 1000n, 3000n]);
    assertEquals(memory.bytes[SLOT + 5], 0);
    assertEquals(b.apics.take().length, 1);
    assert(!enabled(partition, 2));
    // Nothing waits any more.
    memory.writeU32(SLOT, 0);
    done();
    assertEquals(message(b), undefined);
  });
}

Deno.test("a one-shot without a message page waits for EOM", () => {
  const b = bench();
  wrmsr(b.partition, HvMsr.Sint0 + SINT, BigInt(VECTOR));
  wrmsr(b.partition, count(0), 1000n);
  wrmsr(b.partition, config(0), ENABLE | TO_SINT);
  at(b, 1500n);
  wrmsr(b.partition, HvMsr.Simp, BigInt(MESSAGES | 1));
  assertEquals(message(b), undefined);
  wrmsr(b.partition, HvMsr.Eom, 0n);
  assertEquals(message(b), [0n, 1000n, 1500n]);
});

Deno.test("in direct mode there is an interrupt and no message", () => {
  const b = timerBench({ vcpus: 2 });
  const { partition } = b;
  wrmsr(partition, count(3), 3000n, 1);
  wrmsr(partition, config(3), ENABLE | PERIODIC | DIRECT | DIRECT_VECTOR, 1);
  at(b, 3000n);
  at(b, 6000n);
  const tick = { vcpu: 1, vector: 0x55, autoEoi: false };
  assertEquals(b.apics.take(), [tick, tick]);
  assertEquals(message(b), undefined);
});

Deno.test("a direct timer's vector below 16 interrupts nobody", () => {
  const b = timerBench();
  wrmsr(b.partition, count(0), 1n);
  wrmsr(b.partition, config(0), ENABLE | DIRECT | 15n << 4n);
  at(b, 1n);
  assertEquals(b.apics.take(), []);
  assert(!enabled(b.partition, 0));
});

Deno.test("a tiny period comes every 200 microseconds", () => {
  const b = timerBench();
  wrmsr(b.partition, count(0), 1n);
  wrmsr(b.partition, config(0), ENABLE | PERIODIC | DIRECT | DIRECT_VECTOR);
  for (let time = 0n; time <= 20_000n; time += 100n) at(b, time);
  assertEquals(b.apics.take().length, 10);
  assertEquals(rdmsr(b.partition, count(0)), 1n);
});

Deno.test("a count of all ones never comes", () => {
  const b = timerBench();
  for (const kind of [0n, PERIODIC]) {
    wrmsr(b.partition, count(0), 0xffff_ffff_ffff_ffffn);
    wrmsr(b.partition, config(0), ENABLE | kind | TO_SINT);
    at(b, 1n << 40n);
    assertEquals(message(b), undefined);
    assert(b.partition.untilNext() > 1e15);
  }
});

Deno.test("a running timer that loses its SINT is off", () => {
  const b = timerBench();
  wrmsr(b.partition, count(0), 1000n);
  wrmsr(b.partition, config(0), ENABLE | TO_SINT);
  wrmsr(b.partition, config(0), ENABLE);
  assert(!enabled(b.partition, 0));
  assertEquals(b.partition.untilNext(), Infinity);
  // The configuration is otherwise kept, reserved bits too.
  wrmsr(b.partition, config(0), 0xffff_ffff_ffff_fffen);
  assertEquals(rdmsr(b.partition, config(0)), 0xffff_ffff_ffff_fffen);
});

Deno.test("a new configuration forgets a message that waits", () => {
  const b = timerBench();
  b.memory.writeU32(SLOT, 1);
  wrmsr(b.partition, count(0), 1000n);
  wrmsr(b.partition, config(0), ENABLE | TO_SINT);
  at(b, 1000n);
  wrmsr(b.partition, config(0), TO_SINT);
  b.memory.writeU32(SLOT, 0);
  wrmsr(b.partition, HvMsr.Eom, 0n);
  assertEquals(message(b), undefined);
});

Deno.test("direct mode needs its CPUID bit where CPUID is enforced", () => {
  const { partition } = timerBench({ enforceCpuid: true });
  assert(wrmsr(partition, config(0), DIRECT));
  partition.setCpuid(
    partition.cpuidEntries().map((entry) =>
      entry.leaf === 0x4000_0003 ? { ...entry, edx: 0 } : entry
    ),
  );
  assert(!wrmsr(partition, config(0), DIRECT));
  assert(wrmsr(partition, config(0), TO_SINT));
});

Deno.test("timers that run or wait go on after a restore, in another partition", () => {
  const from = timerBench();
  from.memory.writeU32(SLOT, 1);
  wrmsr(from.partition, count(0), 1000n);
  wrmsr(from.partition, config(0), ENABLE | TO_SINT);
  wrmsr(from.partition, count(1), 5000n);
  wrmsr(from.partition, config(1), ENABLE | DIRECT | DIRECT_VECTOR);
  at(from, 2000n);
  const state = structuredClone(from.partition.save());
  const to = bench();
  to.clock.tsc = 1_000_000_000n;
  to.partition.restore(state);
  assertEquals(to.partition.untilNext(), 100 * 3000);
  wrmsr(to.partition, HvMsr.Eom, 0n);
  assertEquals(message(to), [0n, 1000n, 2000n]);
  to.clock.tsc += 300_000n;
  to.partition.update();
  assertEquals(to.apics.take().map(({ vector }) => vector), [VECTOR, 0x55]);
});

Deno.test("a reset stops timers", () => {
  const b = timerBench();
  wrmsr(b.partition, count(0), 1000n);
  wrmsr(b.partition, config(0), ENABLE | TO_SINT);
  b.partition.reset();
  assertEquals(b.partition.untilNext(), Infinity);
  assertEquals(rdmsr(b.partition, config(0)), 0n);
  assertEquals(rdmsr(b.partition, count(0)), 0n);
});
