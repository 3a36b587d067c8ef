/**
 * What the SynIC, the timers and the hypercalls do to a guest: its own code sets them up, and its RAM and its local
 * APICs show what came of it.
 */
import { assert, assertEquals } from "@std/assert";
import { backends } from "./backends.ts";
import {
  callResult,
  FREE,
  guestTest,
  hypercall,
  load64,
  msrValue,
  type Probe,
  type ProbeGuest,
  rdmsr,
  wrmsr,
} from "./_probe.ts";

const OS_ID = 0x4000_0000;
const TIME_REF_COUNT = 0x4000_0020;
const EOI = 0x4000_0070;
const ICR = 0x4000_0071;
const TPR = 0x4000_0072;
const SIMP = 0x4000_0083;
const EOM = 0x4000_0084;
const SINT0 = 0x4000_0090;
const STIMER0_CONFIG = 0x4000_00b0;
const STIMER0_COUNT = 0x4000_00b1;
const FAST = 0x1_0000n;
const VECTOR = 0x42;
const IRR = 0x200;
const SVR = 0xf0;

/** Whether an interrupt waits at a vCPU's local APIC. */
function requested(guest: ProbeGuest, vcpu: number, vector: number): boolean {
  const word = guest.machine.apic(vcpu).readRegister(
    IRR + 16 * (vector >>> 5),
  );
  return (word >>> (vector & 31) & 1) !== 0;
}

/** Lets the local APICs take interrupts: guests of probes leave them switched off. */
function switchOn(guest: ProbeGuest): void {
  guest.machine.vcpus.forEach((_, n) =>
    guest.machine.apic(n).writeRegister(SVR, 0x1ff)
  );
}

const ON: readonly Probe[] = [
  wrmsr(SIMP, BigInt(FREE | 1)),
  wrmsr(SINT0 + 1, BigInt(VECTOR)),
];

for (const backend of backends) {
  for (const profile of ["hyperv", "kvm"] as const) {
    guestTest(
      backend,
      `a timer's message is in its slot, and its interrupt waits, ${profile}`,
      { profile, partition: true },
      async (guest) => {
        switchOn(guest);
        const results = await guest.run(
          ...ON,
          wrmsr(STIMER0_COUNT, 1n),
          wrmsr(STIMER0_CONFIG, 0x1_0001n),
          rdmsr(STIMER0_CONFIG),
          ...[0, 8, 16, 24, 32].map((at) => load64(FREE + 256 + at)),
          rdmsr(TIME_REF_COUNT),
        );
        assertEquals(msrValue(results[4]!), 0x1_0000n, "not enabled any more");
        const [head, sender, index, expiration, delivery] = results.slice(5, 10)
          .map(({ registers }) => registers.rax);
        assertEquals(head! & 0xff_ffff_ffffn, 0x18_8000_0010n);
        assertEquals([sender, index, expiration], [0n, 0n, 1n]);
        assert(delivery! >= 1n && delivery! <= results[10]!.edxEax);
        assert(requested(guest, 0, VECTOR));
      },
    );
  }

  guestTest(
    backend,
    "a timer in direct mode interrupts when its time has come",
    { partition: true },
    async (guest) => {
      switchOn(guest);
      const [now] = await guest.run(rdmsr(TIME_REF_COUNT));
      const time = now!.edxEax + 200_000n;
      await guest.run(
        wrmsr(STIMER0_CONFIG, 0x1008n | BigInt(VECTOR) << 4n),
        wrmsr(STIMER0_COUNT, time),
      );
      while (guest.partition.referenceTime() < time) {
        assert(!requested(guest, 0, VECTOR));
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      guest.partition.update();
      assert(requested(guest, 0, VECTOR));
    },
  );

  guestTest(
    backend,
    "a message that found its slot taken comes with EOM",
    { partition: true },
    async (guest) => {
      switchOn(guest);
      await guest.run(...ON);
      guest.memory.writeU32(FREE + 256, 5);
      await guest.run(
        wrmsr(STIMER0_COUNT, 1n),
        wrmsr(STIMER0_CONFIG, 0x1_0001n),
      );
      assertEquals(guest.memory.bytes[FREE + 256 + 5], 1, "message pending");
      guest.memory.writeU32(FREE + 256, 0);
      await guest.run(wrmsr(EOM, 0n));
      assertEquals(
        guest.memory.view.getUint32(FREE + 256, true),
        0x8000_0010,
      );
    },
  );

  guestTest(
    backend,
    "EOI, ICR and TPR act on the local APIC",
    { cpus: 2, partition: true },
    async (guest) => {
      switchOn(guest);
      const [, priority, , command, end] = await guest.run(
        wrmsr(TPR, 0x30n),
        rdmsr(TPR),
        wrmsr(ICR, 1n << 56n | BigInt(VECTOR)),
        rdmsr(ICR),
        wrmsr(EOI, 0n),
      );
      assertEquals(msrValue(priority!), 0x30n);
      assertEquals(msrValue(command!), 1n << 56n | BigInt(VECTOR));
      assertEquals(end!.fault, undefined);
      assert(requested(guest, 1, VECTOR) && !requested(guest, 0, VECTOR));
    },
  );

  const calls: readonly [string, bigint, bigint, bigint][] = [
    ["a mask", 0x0bn | FAST, BigInt(VECTOR), 2n],
    ["all", 0x15n, BigInt(FREE), 0n],
    ["sparse banks", 0x15n | 1n << 17n, BigInt(FREE + 64), 0n],
  ];
  for (const [what, input, first, second] of calls) {
    guestTest(
      backend,
      `an interrupt by hypercall for ${what} reaches the other vCPU`,
      { cpus: 2, partition: true },
      async (guest) => {
        switchOn(guest);
        const { memory } = guest;
        [VECTOR, 1, 0].forEach((word, n) =>
          memory.writeU64(FREE + 8 * n, BigInt(word))
        );
        [VECTOR, 0, 1, 2].forEach((word, n) =>
          memory.writeU64(FREE + 64 + 8 * n, BigInt(word))
        );
        const [, result] = await guest.run(
          wrmsr(OS_ID, 1n),
          hypercall(input, first, second, { via: "page" }),
        );
        assertEquals(callResult(result!), 0n);
        assert(requested(guest, 1, VECTOR));
        assertEquals(requested(guest, 0, VECTOR), what === "all");
      },
    );
  }
}
