/**
 * A hostile guest: accesses and calls with random arguments, many of them almost right. None may throw,
 * and none may write RAM that it does not name.
 */
import { assert, assertEquals } from "@std/assert";
import { MsrResult } from "../../core/backend.ts";
import type { GuestMemory } from "../../core/guest_memory.ts";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import type { Partition } from "../../hyperv/partition.ts";
import { bench, identify, RAM, vmcall } from "./_partition.ts";

const RESULTS = Object.values(MsrResult);
const ITERATIONS = 100_000;
const PAGE = 4096;

/** xorshift32 (Marsaglia): the same numbers in every run. */
class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 0;
  }
  /** An unsigned 32-bit number. */
  word(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
  below(n: number): number {
    return this.word() % n;
  }
  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }
  /** A guest-physical address: mostly in RAM and aligned, sometimes at its end, sometimes anywhere. */
  gpa(): bigint {
    switch (this.below(8)) {
      case 0:
        return BigInt(this.word()) << 32n | BigInt(this.word());
      case 1:
        return BigInt(RAM - this.below(5000));
      case 2:
        return BigInt(this.below(RAM));
      case 3:
        return 0n;
      default:
        return BigInt(this.below(RAM / PAGE) * PAGE);
    }
  }
}

const DEBUG_MSRS = [0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xff].map((n) =>
  0x4000_0000 + n
);
/** The SynIC's, the timers' and the local APIC's, with what goes into them more often than chance would have it. */
const VP_MSRS = [
  ...[0x70, 0x71, 0x72, 0x73, 0x80, 0x82, 0x83, 0x83, 0x84, 0x90, 0x91, 0x9f],
  ...[0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7],
].map((n) => 0x4000_0000 + n);
const CODES = [
  0x69,
  0x6a,
  0x6b,
  0x02,
  0x03,
  0x0b,
  0x13,
  0x14,
  0x15,
  0x08,
  0x5c,
  0x5d,
  0x8001,
];

type Range = readonly [gpa: bigint, length: number];

/**
 * Watches RAM. Each write that is announced must be in a range that the action may write, and now
 * and then all bytes are compared with what the announced writes should have made of them.
 */
class WriteWatch {
  readonly #memory: GuestMemory;
  readonly #expected: Uint8Array;
  #allowed: readonly Range[] = [];
  #what = "";

  constructor(memory: GuestMemory) {
    this.#memory = memory;
    this.#expected = memory.bytes.slice();
    memory.addWriteListener((gpa, length) => {
      assert(
        this.#allowed.some(([from, bytes]) =>
          BigInt(gpa) >= from && BigInt(gpa + length) <= from + BigInt(bytes)
        ),
        `${this.#what} wrote ${length} bytes at 0x${gpa.toString(16)}`,
      );
      this.#expected.set(memory.bytes.subarray(gpa, gpa + length), gpa);
    });
  }

  /** Does something that may write no more than the given ranges. */
  during<T>(what: string, allowed: readonly Range[], action: () => T): T {
    this.#what = what;
    this.#allowed = allowed;
    return action();
  }

  /** Compares all of RAM. */
  compare(): void {
    assertEquals(this.#memory.bytes, this.#expected);
  }
}

/** The processors' message pages, in which timers write. */
function messagePages(partition: Partition): Range[] {
  return [0, 1].map((vcpu) => {
    const simp = partition.hostReadMsr(vcpu, HvMsr.Simp)!;
    return [simp & ~0xfffn, (simp & 1n) !== 0n ? PAGE : 0];
  });
}

/** A value that a synthetic MSR may well be given. */
function plausible(random: Random, msr: number, now: bigint): bigint {
  if (msr >= HvMsr.Stimer0Config && msr <= HvMsr.Stimer3Count) {
    return (msr & 1) === 0
      ? BigInt(random.below(0x4_0000))
      : random.pick([0n, 1n, BigInt(random.below(5000)), now + 2000n, now]);
  }
  if (msr >= HvMsr.Sint0 && msr <= HvMsr.Sint15) {
    return BigInt(random.below(0x8_0000));
  }
  return random.gpa() | BigInt(random.below(2));
}

/** From an address to the end of its page. */
function restOfPage(gpa: bigint): Range {
  return [gpa, PAGE - Number(gpa % BigInt(PAGE))];
}

for (const profile of ["hyperv", "kvm"] as const) {
  Deno.test(`${profile}: ${ITERATIONS} random accesses and calls do no harm`, () => {
    const random = new Random(0x5eed_1234);
    const flushed = [0, 0];
    const b = bench({
      profile,
      vcpus: 2,
      onTlbFlush: (vcpu) => flushed[vcpu]!++,
    });
    const { partition, memory, peer, clock, apics } = b;
    identify(partition);
    const value = new Uint32Array(2);
    const watch = new WriteWatch(memory);
    let recv = 0n;
    let pending = 0n;
    const done = { read: 0, write: 0, call: 0 };
    let interrupts = 0;
    for (let n = 0; n < ITERATIONS; n++) {
      clock.tsc += BigInt(random.below(50_000));
      // The debugger's side is as wild as the guest's.
      if (random.below(4) === 0) {
        const length = random.pick([0, 1, 60, 1500, 4046, 4096, 65_507]);
        const data = new Uint8Array(length).fill(random.below(256));
        watch.during("a datagram", [[pending, 1]], () => peer.send(data));
      }
      if (peer.pending > 100) peer.purgeIncoming();
      const vcpu = random.below(2);
      watch.during("time", messagePages(partition), () => {
        if (random.below(4) === 0) partition.update();
        if (random.below(8) === 0) {
          partition.endOfInterrupt(vcpu, random.below(256));
        }
      });
      assert(partition.untilNext() >= 0);
      for (const raised of apics.take()) {
        assert(raised.vcpu < 2 && raised.vector >= 16 && raised.vector < 256);
        interrupts++;
      }
      const msr = random.pick([
        0x4000_0000 + random.below(0x300),
        random.pick(VP_MSRS),
        random.pick(DEBUG_MSRS),
        random.pick(DEBUG_MSRS),
      ]);
      switch (random.below(4)) {
        case 0: {
          const result = watch.during(
            `read of 0x${msr.toString(16)}`,
            [],
            () => partition.readMsr(vcpu, msr, value),
          );
          assert(RESULTS.includes(result));
          done.read++;
          break;
        }
        case 1: {
          const data = msr === HvMsr.SyndbgControl
            ? BigInt((random.word() & 0xffff_0000) >>> 0 | random.below(4))
            : DEBUG_MSRS.includes(msr)
            ? random.gpa()
            : plausible(random, msr, partition.referenceTime());
          if (msr === HvMsr.SyndbgPendingBuffer) pending = data;
          if (msr === HvMsr.SyndbgRecvBuffer) recv = data;
          // A timer that is late writes its message at once.
          const allowed: Range[] = [[pending, 1], ...messagePages(partition)];
          if (msr === HvMsr.SyndbgControl) allowed.push(restOfPage(recv));
          // Pages that the guest gives by number, whose low bits are flags.
          if (!DEBUG_MSRS.includes(msr)) allowed.push([data & ~0xfffn, PAGE]);
          const result = watch.during(
            `write of 0x${msr.toString(16)}`,
            allowed,
            () =>
              partition.writeMsr(
                vcpu,
                msr,
                Number(BigInt.asUintN(32, data)),
                Number(data >> 32n),
              ),
          );
          assert(RESULTS.includes(result));
          // Calls are to go on.
          partition.hostWriteMsr(0, HvMsr.GuestOsId, 1n);
          if (random.below(2) === 0) {
            partition.hostWriteMsr(0, HvMsr.SyndbgOptions, 4n);
          }
          done.write++;
          break;
        }
        default: {
          const input = random.gpa();
          const output = random.gpa();
          if (memory.contains(Number(input), 16)) {
            // Counts and options that are not all absurd.
            const count = random.pick([0, 8, 60, 4088, random.word()]);
            const options = random.pick([0, 1, 2, 3, random.word()]);
            const timeout = BigInt(random.below(1000));
            watch.during("the guest itself", [[input, 16]], () => {
              memory.writeU32(Number(input), count);
              memory.writeU32(Number(input) + 4, options);
              memory.writeU64(Number(input) + 8, timeout);
            });
          }
          const code = random.below(8) === 0
            ? random.word() & 0xffff
            : random.pick(CODES);
          const fields = random.below(4) === 0
            ? BigInt(random.word()) << 32n | BigInt(random.word())
            // Fast or not, a header, reps.
            : BigInt(random.below(2) << 16 | random.below(3) << 17) |
              BigInt(random.below(3)) << 32n;
          const options = {
            vcpu,
            longMode: random.below(2) === 0,
            xmm: Array.from({ length: 12 }, () => BigInt(random.below(4))),
            cpl: random.below(16) === 0 ? 3 : 0,
          };
          const control = fields & ~0xffffn | BigInt(code);
          const result = watch.during(
            `call 0x${code.toString(16)}`,
            // QEMU's fixed outputs go where the guest says, page or not.
            [
              [pending, 1],
              restOfPage(output),
              [output, profile === "kvm" ? 24 : 8],
            ],
            () => vmcall(partition, control, input, output, options),
          );
          assert(
            typeof result === "string" || (result & 0xffffn) < 0x100n,
            `status ${result}`,
          );
          done.call++;
        }
      }
      if (random.below(2000) === 0) {
        const state = structuredClone(partition.save());
        // The byte, and the reference TSC page if there is one.
        watch.during("restore", [[pending, 1], [0n, RAM]], () => {
          partition.restore(state);
        });
        watch.compare();
      }
      if (random.below(5000) === 0) {
        watch.during("reset", [], () => partition.reset());
        recv = pending = 0n;
        identify(partition);
      }
    }
    watch.compare();
    assertEquals(done.read + done.write + done.call, ITERATIONS);
    assert(done.read > 20_000 && done.write > 20_000 && done.call > 40_000);
    assert(interrupts > 1000 && flushed[0]! > 500 && flushed[1]! > 500);
  });
}
