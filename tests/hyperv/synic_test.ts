/** The synthetic interrupt controller: message slots, event flags, and the local APIC's registers. */
import { assert, assertEquals } from "@std/assert";
import type { GuestMemory } from "../../core/guest_memory.ts";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import type { Partition } from "../../hyperv/partition.ts";
import { bench, bytes, rdmsr, wrmsr } from "./_partition.ts";

const MESSAGES = 0x2000;
const EVENTS = 0x3000;
const SLOT = 256;

/** Turns both pages on, and nothing else. */
function pagesOn(partition: Partition): void {
  assert(wrmsr(partition, HvMsr.Simp, BigInt(MESSAGES | 1)));
  assert(wrmsr(partition, HvMsr.Siefp, BigInt(EVENTS | 1)));
}

function slot(memory: GuestMemory, sint: number): Uint8Array {
  return memory.read(MESSAGES + SLOT * sint, SLOT);
}

Deno.test("a message is header and payload in its SINT's slot, and an interrupt", () => {
  const { partition, memory, apics } = bench();
  pagesOn(partition);
  wrmsr(partition, HvMsr.Sint0 + 2, 0x42n);
  assert(partition.postMessage(0, 2, 0xdead, 0x1234n, bytes("hello")));
  const expected = new Uint8Array(SLOT);
  const view = new DataView(expected.buffer);
  view.setUint32(0, 0xdead, true);
  view.setUint8(4, 5);
  view.setBigUint64(8, 0x1234n, true);
  expected.set(bytes("hello"), 16);
  assertEquals(slot(memory, 2), expected);
  assertEquals(slot(memory, 1), new Uint8Array(SLOT));
  assertEquals(slot(memory, 3), new Uint8Array(SLOT));
  assertEquals(apics.take(), [{ vcpu: 0, vector: 0x42, autoEoi: false }]);
});

Deno.test("a payload never leaves its slot", () => {
  const { partition, memory } = bench();
  pagesOn(partition);
  const long = new Uint8Array(300).fill(0xff);
  assert(partition.postMessage(0, 0, 1, 0n, long));
  assertEquals(memory.bytes[MESSAGES + 4], 240);
  assertEquals(memory.bytes[MESSAGES + 255], 0xff);
  assertEquals(memory.bytes[MESSAGES + 256], 0);
});

Deno.test("a slot that is taken is left alone and says that a message waits", () => {
  const { partition, memory, apics } = bench();
  pagesOn(partition);
  wrmsr(partition, HvMsr.Sint0, 0x42n);
  assert(partition.postMessage(0, 0, 1, 0n, bytes("one")));
  apics.take();
  assert(!partition.postMessage(0, 0, 2, 0n, bytes("two")));
  assertEquals(memory.view.getUint32(MESSAGES, true), 1);
  assertEquals(memory.bytes[MESSAGES + 5], 1, "message pending");
  assertEquals(apics.take(), []);
  memory.writeU32(MESSAGES, 0);
  assert(partition.postMessage(0, 0, 2, 0n, bytes("two")));
  assertEquals(memory.bytes[MESSAGES + 5], 0);
});

Deno.test("without its page there is neither message nor event", () => {
  const { partition, memory, apics } = bench();
  wrmsr(partition, HvMsr.Sint0, 0x42n);
  wrmsr(partition, HvMsr.Simp, BigInt(MESSAGES));
  wrmsr(partition, HvMsr.Siefp, BigInt(EVENTS));
  assert(!partition.postMessage(0, 0, 1, 0n, bytes("x")));
  assert(!partition.signalEvent(0, 0, 0));
  // The VMM may write what is outside RAM.
  partition.hostWriteMsr(0, HvMsr.Simp, 0xffff_ffff_ffff_f001n);
  partition.hostWriteMsr(0, HvMsr.Siefp, 0x4_0001n);
  assert(!partition.postMessage(0, 0, 1, 0n, bytes("x")));
  assert(!partition.signalEvent(0, 0, 0));
  assert(memory.bytes.every((byte) => byte === 0));
  assertEquals(apics.take(), []);
});

Deno.test("messages do not ask for SCONTROL", () => {
  const { partition } = bench();
  pagesOn(partition);
  assertEquals(rdmsr(partition, HvMsr.Scontrol), 0n);
  assert(partition.postMessage(0, 5, 1, 0n, bytes("x")));
});

Deno.test("an event sets its flag, and interrupts when the flag was clear", () => {
  const { partition, memory, apics } = bench();
  pagesOn(partition);
  wrmsr(partition, HvMsr.Sint0 + 3, 0x51n);
  assert(partition.signalEvent(0, 3, 2047));
  assertEquals(memory.bytes[EVENTS + 3 * 256 + 255], 0x80);
  assertEquals(apics.take().length, 1);
  assert(partition.signalEvent(0, 3, 2047));
  assertEquals(apics.take(), []);
  assert(partition.signalEvent(0, 3, 2040));
  assertEquals(memory.bytes[EVENTS + 3 * 256 + 255], 0x81);
  assertEquals(apics.take(), [{ vcpu: 0, vector: 0x51, autoEoi: false }]);
});

for (
  const [what, sint, raised] of [
    ["masked", 0x1_0042n, []],
    ["polled", 0x4_0042n, []],
    ["with auto-EOI", 0x2_0042n, [true]],
    ["without", 0x42n, [false]],
  ] as const
) {
  Deno.test(`a SINT that is ${what} gets its message`, () => {
    const { partition, memory, apics } = bench();
    pagesOn(partition);
    wrmsr(partition, HvMsr.Sint0, sint);
    assert(partition.postMessage(0, 0, 1, 0n, bytes("x")));
    assertEquals(memory.view.getUint32(MESSAGES, true), 1);
    assertEquals(apics.take().map(({ autoEoi }) => autoEoi), [...raised]);
  });
}

Deno.test("messages and events are their own processor's", () => {
  const { partition, memory, apics } = bench({ vcpus: 2 });
  wrmsr(partition, HvMsr.Simp, BigInt(MESSAGES | 1), 1);
  wrmsr(partition, HvMsr.Sint0, 0x42n, 1);
  assert(!partition.postMessage(0, 0, 1, 0n, bytes("x")));
  assert(partition.postMessage(1, 0, 1, 0n, bytes("x")));
  assertEquals(memory.view.getUint32(MESSAGES, true), 1);
  assertEquals(apics.take(), [{ vcpu: 1, vector: 0x42, autoEoi: false }]);
});

Deno.test("EOM, and the end of its interrupt, say that a SINT is done", () => {
  const ends: string[] = [];
  const { partition } = bench({
    vcpus: 2,
    onSintEnd: (vcpu, sint) => ends.push(`${vcpu}.${sint}`),
  });
  wrmsr(partition, HvMsr.Sint0 + 2, 0x42n, 1);
  wrmsr(partition, HvMsr.Sint0 + 4, 0x42n, 1);
  wrmsr(partition, HvMsr.Sint0 + 6, 0x1_0042n, 1);
  partition.endOfInterrupt(0, 0x42);
  partition.endOfInterrupt(1, 0x41);
  assertEquals(ends, []);
  partition.endOfInterrupt(1, 0x42);
  assertEquals(ends, ["1.2", "1.4"]);
  wrmsr(partition, HvMsr.Eom, 0n);
  assertEquals(ends.length, 2 + 16);
});

Deno.test("EOI, ICR and TPR act on the processor's local APIC", () => {
  const { partition, apics } = bench({ vcpus: 2 });
  assert(wrmsr(partition, HvMsr.Eoi, 5n, 1));
  assertEquals(apics.ended, [1]);
  assertEquals(rdmsr(partition, HvMsr.Eoi), undefined, "nothing to read");
  assert(wrmsr(partition, HvMsr.Icr, 0x0100_0000_000c_4500n, 1));
  assert(wrmsr(partition, HvMsr.Tpr, 0x1f0n, 1));
  // The destination first: the low word sends.
  assertEquals(apics.written, ["1 310 1000000", "1 300 c4500", "1 80 f0"]);
  assertEquals(rdmsr(partition, HvMsr.Icr, 1), 0x0100_0000_000c_4500n);
  assertEquals(rdmsr(partition, HvMsr.Tpr, 1), 0xf0n);
  assertEquals(rdmsr(partition, HvMsr.Tpr, 0), 0n);
});
