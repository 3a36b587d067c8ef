/**
 * The debug device by MSR, as a guest's code sees it: buffers, STATUS, the pending byte, in both
 * profiles, and what a hostile guest may try.
 */
import { assertEquals } from "@std/assert";
import { backends } from "./backends.ts";
import {
  FREE,
  guestTest,
  type GuestTestOptions,
  hex,
  load64,
  msrValue,
  type Probe,
  type ProbeGuest,
  RAM,
  rdmsr,
  wrmsr,
} from "./_probe.ts";

const CONTROL = 0x4000_00f1;
const STATUS = 0x4000_00f2;
const SEND = 0x4000_00f3;
const RECV = 0x4000_00f4;
const PENDING = 0x4000_00f5;
const OPTIONS = 0x4000_00ff;

const PAGE = 4096;
const SEND_PAGE = FREE;
const RECV_PAGE = FREE + 2 * PAGE;
const PENDING_PAGE = FREE + 6 * PAGE;
const PROFILES = ["hyperv", "kvm"] as const;
/** Where there is no RAM. */
const NOWHERE = [
  BigInt(RAM),
  1n << 32n,
  1n << 45n,
  0x7fff_ffff_ffff_ffffn,
  0xffff_ffff_ffff_ffffn,
];

/** CONTROL that sends some bytes. */
const sending = (length: number): bigint => BigInt(length) << 16n | 1n;
const RECEIVE = 2n;

/** Executes a command: STATUS after it. */
function command(control: bigint): [Probe, Probe] {
  return [wrmsr(CONTROL, control), rdmsr(STATUS)];
}

/** Runs commands, each with its buffers: STATUS after each. */
async function statuses(
  guest: ProbeGuest,
  ...commands: [control: bigint, send: bigint, receive: bigint][]
): Promise<(bigint | string)[]> {
  const results = await guest.run(
    ...commands.flatMap(([control, send, receive]) => [
      wrmsr(SEND, send),
      wrmsr(RECV, receive),
      ...command(control),
    ]),
  );
  return commands.map((_, n) => msrValue(results[4 * n + 3]!));
}

/** Bytes with a pattern. */
function pattern(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, n) => n * 7 + (n >> 8) & 255);
}

for (const backend of backends) {
  for (const profile of PROFILES) {
    const test = (
      name: string,
      fn: (guest: ProbeGuest) => Promise<void>,
      options: GuestTestOptions = {},
    ): void =>
      guestTest(
        backend,
        `SynDbg MSRs, ${profile}: ${name}`,
        { profile, ...options },
        fn,
      );

    test("all six keep 64 bits, and only commands act", async (guest) => {
      const value = 0xfedc_ba98_0000_fffcn;
      for (const msr of [CONTROL, STATUS, SEND, RECV, PENDING, OPTIONS]) {
        const [write, read] = await guest.run(wrmsr(msr, value), rdmsr(msr));
        assertEquals(write!.fault, undefined);
        assertEquals(msrValue(read!), value, hex(msr));
      }
      assertEquals(guest.peer.pending, 0);
    });

    for (const length of [1, 17, 1400, 4095, 4096]) {
      test(`sends ${length} bytes`, async (guest) => {
        const data = pattern(length);
        guest.memory.write(SEND_PAGE, data);
        assertEquals(
          await statuses(guest, [sending(length), BigInt(SEND_PAGE), 0n]),
          [1n],
        );
        assertEquals(guest.peer.receive(), data);
        assertEquals(guest.peer.pending, 0);
      });
    }

    for (const length of [1, 17, 1400, 4054]) {
      test(`receives ${length} bytes`, async (guest) => {
        const data = pattern(length);
        guest.memory.fill(RECV_PAGE - PAGE, 3 * PAGE, 0xee);
        guest.peer.send(data);
        assertEquals(
          await statuses(
            guest,
            [RECEIVE, 0n, BigInt(RECV_PAGE)],
            [RECEIVE, 0n, BigInt(RECV_PAGE)],
          ),
          [BigInt(length) << 16n | 4n, 0n],
        );
        const around = new Uint8Array(3 * PAGE).fill(0xee);
        around.set(data, PAGE);
        assertEquals(guest.memory.read(RECV_PAGE - PAGE, 3 * PAGE), around);
      });
    }

    test("a packet is received once, in order", async (guest) => {
      guest.peer.send(new Uint8Array([1]));
      guest.peer.send(new Uint8Array([2, 2]));
      const receive = command(RECEIVE);
      const results = await guest.run(
        wrmsr(RECV, BigInt(RECV_PAGE)),
        ...receive,
        load64(RECV_PAGE),
        ...receive,
        load64(RECV_PAGE),
        ...receive,
      );
      assertEquals([2, 5, 8].map((n) => msrValue(results[n]!)), [
        0x1_0004n,
        0x2_0004n,
        0n,
      ]);
      assertEquals(results[3]!.registers.rax, 0x01n);
      assertEquals(results[6]!.registers.rax, 0x0202n);
    });

    test("a command overwrites STATUS, PENDING leaves it", async (guest) => {
      const results = await guest.run(
        wrmsr(STATUS, 0xffff_ffff_ffff_ffffn),
        wrmsr(PENDING, BigInt(PENDING_PAGE)),
        rdmsr(STATUS),
        ...command(0n),
        wrmsr(STATUS, 0x1234n),
        wrmsr(SEND, 0n),
        wrmsr(RECV, 0n),
        wrmsr(OPTIONS, 0n),
        rdmsr(STATUS),
      );
      assertEquals([2, 4, 9].map((n) => msrValue(results[n]!)), [
        0xffff_ffff_ffff_ffffn,
        0n,
        0x1234n,
      ]);
    });

    test("CONTROL keeps its bits after the command", async (guest) => {
      const control = 0xdead_beef_0005_fffdn;
      guest.memory.write(SEND_PAGE, pattern(5));
      const results = await guest.run(
        wrmsr(SEND, BigInt(SEND_PAGE)),
        ...command(control),
        rdmsr(CONTROL),
      );
      assertEquals(msrValue(results[2]!), 1n);
      assertEquals(msrValue(results[3]!), control);
      assertEquals(guest.peer.receive(), pattern(5));
    });

    test("the VMM's write of CONTROL is no command", async (guest) => {
      guest.partition.hostWriteMsr(0, SEND, BigInt(SEND_PAGE));
      guest.partition.hostWriteMsr(0, CONTROL, sending(9));
      const [control, status] = await guest.run(rdmsr(CONTROL), rdmsr(STATUS));
      assertEquals(msrValue(control!), sending(9));
      assertEquals(msrValue(status!), 0n);
      assertEquals(guest.peer.pending, 0);
    }, { partition: true });

    test("a reset of the vCPU leaves them", async (guest) => {
      await guest.run(
        wrmsr(SEND, 0x1000n),
        wrmsr(RECV, 0x2000n),
        wrmsr(STATUS, 0x55n),
      );
      guest.machine.vcpus[0]!.reset();
      guest.partition.resetVcpu(0);
      const results = await guest.run(rdmsr(SEND), rdmsr(RECV), rdmsr(STATUS));
      assertEquals(results.map(msrValue), [0x1000n, 0x2000n, 0x55n]);
    });

    test("a reset of the partition clears them", async (guest) => {
      guest.peer.send(new Uint8Array(1));
      await guest.run(
        wrmsr(SEND, 0x1000n),
        wrmsr(PENDING, BigInt(PENDING_PAGE)),
        wrmsr(OPTIONS, 4n),
      );
      assertEquals(guest.memory.bytes[PENDING_PAGE], 1);
      guest.partition.reset();
      guest.memory.fill(PENDING_PAGE, 1);
      guest.peer.send(new Uint8Array(1));
      const results = await guest.run(
        ...[SEND, PENDING, OPTIONS].map((msr) => rdmsr(msr)),
        load64(PENDING_PAGE),
      );
      assertEquals(results.slice(0, 3).map(msrValue), [0n, 0n, 0n]);
      assertEquals(results[3]!.registers.rax, 0n, "a stale address");
    }, { partition: true });

    test("the pending byte follows the queue", async (guest) => {
      const at = PENDING_PAGE + 3;
      guest.memory.fill(PENDING_PAGE, 16, 0xee);
      const pending = load64(PENDING_PAGE);
      const byte = (n: number): bigint =>
        0xeeee_eeee_00ee_eeeen | BigInt(n) << 24n;
      const [, before] = await guest.run(wrmsr(PENDING, BigInt(at)), pending);
      assertEquals(before!.registers.rax, byte(0));
      guest.peer.send(new Uint8Array(2));
      guest.peer.send(new Uint8Array(2));
      const [two, , , , one, , none, , still] = await guest.run(
        pending,
        wrmsr(RECV, BigInt(RECV_PAGE)),
        ...command(RECEIVE),
        pending,
        wrmsr(CONTROL, RECEIVE),
        pending,
        wrmsr(CONTROL, RECEIVE),
        pending,
      );
      assertEquals(
        [two, one, none, still].map((result) => result!.registers.rax),
        [byte(1), byte(1), byte(0), byte(0)],
      );
    });

    test("PENDING written while data waits sets the byte", async (guest) => {
      guest.peer.send(new Uint8Array(2));
      const [, first, , second] = await guest.run(
        wrmsr(PENDING, BigInt(PENDING_PAGE)),
        load64(PENDING_PAGE),
        wrmsr(PENDING, BigInt(PENDING_PAGE + PAGE)),
        load64(PENDING_PAGE + PAGE),
      );
      assertEquals(first!.registers.rax, 1n);
      assertEquals(second!.registers.rax, 1n);
    });

    test("an empty datagram does not stick in the byte", async (guest) => {
      guest.peer.send(new Uint8Array(0));
      const results = await guest.run(
        wrmsr(PENDING, BigInt(PENDING_PAGE)),
        wrmsr(RECV, BigInt(RECV_PAGE)),
        ...command(RECEIVE),
        load64(PENDING_PAGE),
      );
      assertEquals(msrValue(results[3]!), 0n);
      assertEquals(results[4]!.registers.rax, 0n);
    });

    test("a debugger that is not there does not stick in the byte", async (guest) => {
      guest.wire.signalReset();
      const results = await guest.run(
        wrmsr(PENDING, BigInt(PENDING_PAGE)),
        load64(PENDING_PAGE),
        wrmsr(RECV, BigInt(RECV_PAGE)),
        ...command(RECEIVE),
        rdmsr(STATUS),
        ...command(RECEIVE),
        load64(PENDING_PAGE),
      );
      assertEquals(results[1]!.registers.rax, 0n);
      // The connection-reset bit, once.
      assertEquals(msrValue(results[4]!), profile === "hyperv" ? 8n : 0n);
      assertEquals(msrValue(results[7]!), 0n);
      assertEquals(results[8]!.registers.rax, 0n);
    });

    test("PENDING of 0 is none", async (guest) => {
      const before = guest.memory.bytes[0];
      guest.peer.send(new Uint8Array(2));
      await guest.run(wrmsr(PENDING, 0n));
      assertEquals(guest.memory.bytes[0], before);
    });

    for (const gpa of NOWHERE) {
      test(`no buffer at ${hex(gpa)} does harm`, async (guest) => {
        guest.peer.send(new Uint8Array([7]));
        await guest.run(wrmsr(PENDING, gpa));
        assertEquals(
          await statuses(
            guest,
            [sending(1), gpa, gpa],
            [sending(65_535), gpa, gpa],
            [RECEIVE, gpa, gpa],
            [RECEIVE, gpa, BigInt(RECV_PAGE)],
          ),
          // QEMU takes the packet before it looks at the buffer.
          [0n, 0n, 0n, profile === "hyperv" ? 0x1_0004n : 0n],
        );
        assertEquals(guest.peer.pending, 0);
        // The registers hold what was written: an address is looked at when it is used.
        const results = await guest.run(rdmsr(SEND), rdmsr(PENDING));
        assertEquals(results.map(msrValue), [gpa, gpa]);
      });
    }

    test("a send of 0 bytes", async (guest) => {
      const [status] = await statuses(
        guest,
        [sending(0), BigInt(SEND_PAGE), 0n],
      );
      assertEquals(status, profile === "hyperv" ? 0n : 1n);
      assertEquals(
        guest.peer.receive()?.length,
        profile === "hyperv" ? undefined : 0,
      );
    });

    test("a send of 65535 bytes", async (guest) => {
      const [status] = await statuses(
        guest,
        [sending(65_535), BigInt(SEND_PAGE), 0n],
      );
      assertEquals(status, profile === "hyperv" ? 0n : 1n);
      assertEquals(
        guest.peer.receive()?.length,
        profile === "hyperv" ? undefined : 65_535,
      );
    });

    test("a send that crosses a page", async (guest) => {
      const [whole, crossing] = await statuses(
        guest,
        [sending(16), BigInt(SEND_PAGE + PAGE - 16), 0n],
        [sending(17), BigInt(SEND_PAGE + PAGE - 16), 0n],
      );
      assertEquals(whole, 1n);
      assertEquals(crossing, profile === "hyperv" ? 0n : 1n);
      assertEquals(guest.peer.pending, profile === "hyperv" ? 1 : 2);
    });

    test("a send that begins in RAM and ends outside", async (guest) => {
      const end = BigInt(RAM - 8);
      assertEquals(
        await statuses(guest, [sending(9), end, 0n], [sending(8), end, 0n]),
        [0n, 1n],
      );
      assertEquals(guest.peer.receive()?.length, 8);
      assertEquals(guest.peer.pending, 0);
    });

    test("a datagram of 65507 bytes is cut at the page", async (guest) => {
      guest.memory.fill(RECV_PAGE + PAGE, PAGE, 0xee);
      guest.peer.send(pattern(65_507));
      const most = profile === "hyperv" ? PAGE : 4054;
      assertEquals(
        await statuses(
          guest,
          [RECEIVE, 0n, BigInt(RECV_PAGE)],
          [RECEIVE, 0n, BigInt(RECV_PAGE)],
        ),
        [BigInt(most) << 16n | 4n, 0n],
      );
      assertEquals(guest.memory.read(RECV_PAGE, most), pattern(most));
      assertEquals(
        guest.memory.read(RECV_PAGE + PAGE, PAGE),
        new Uint8Array(PAGE).fill(0xee),
      );
    });

    test("a receive buffer at a page's end gets no more than fits", async (guest) => {
      guest.memory.fill(RECV_PAGE + PAGE, PAGE, 0xee);
      guest.peer.send(pattern(100));
      const [status] = await statuses(
        guest,
        [RECEIVE, 0n, BigInt(RECV_PAGE + PAGE - 10)],
      );
      assertEquals(status, 10n << 16n | 4n);
      assertEquals(
        guest.memory.read(RECV_PAGE + PAGE, PAGE),
        new Uint8Array(PAGE).fill(0xee),
      );
    });

    test("both command bits at once", async (guest) => {
      guest.peer.send(new Uint8Array([1, 2, 3]));
      const [status] = await statuses(
        guest,
        [sending(5) | RECEIVE, BigInt(SEND_PAGE), BigInt(RECV_PAGE)],
      );
      assertEquals(status, profile === "hyperv" ? 0x3_0005n : 1n);
      assertEquals(guest.peer.pending, 1);
      assertEquals(guest.wire.pending, profile === "hyperv" ? 0 : 1);
    });

    test("a flood of datagrams is bounded, and the guest gets the first", async (guest) => {
      for (let n = 0; n < 10_000; n++) guest.peer.send(pattern(1 + n % 100));
      const [status] = await statuses(
        guest,
        [RECEIVE, 0n, BigInt(RECV_PAGE)],
      );
      assertEquals(status, 0x1_0004n);
    });

    test("code that a packet overwrites is executed as it is then", async (guest) => {
      // mov eax, 1; ret, replaced by mov eax, 2; ret
      const code = (n: number): Uint8Array =>
        new Uint8Array([0xb8, n, 0, 0, 0, 0xc3]);
      guest.memory.write(RECV_PAGE, code(1));
      guest.peer.send(code(2));
      const call: Probe = {
        code: [0xff, 0xd5],
        registers: { rbp: BigInt(RECV_PAGE) },
      };
      const [before, , , after] = await guest.run(
        call,
        wrmsr(RECV, BigInt(RECV_PAGE)),
        wrmsr(CONTROL, RECEIVE),
        call,
      );
      assertEquals(before!.registers.rax, 1n);
      assertEquals(after!.registers.rax, 2n);
    });
  }

  for (const syndbg of ["msr", "hypercall"] as const) {
    const value = syndbg === "msr" ? 0n : 4n;
    guestTest(
      backend,
      `OPTIONS reads ${value} in ${syndbg} mode, and both fronts work`,
      { syndbg },
      async (guest) => {
        assertEquals(msrValue(await guest.one(rdmsr(OPTIONS))), value);
        assertEquals(
          await statuses(guest, [sending(3), BigInt(SEND_PAGE), 0n]),
          [1n],
        );
      },
    );
  }

  guestTest(
    backend,
    "a guest that polls the pending byte sees it without an exit",
    {},
    async (guest) => {
      await guest.run(wrmsr(PENDING, BigInt(PENDING_PAGE)));
      // again: pause; cmp byte [r9], 0; je again
      const poll: Probe = {
        code: [0xf3, 0x90, 0x41, 0x80, 0x39, 0x00, 0x74, 0xf8],
        registers: { r9: BigInt(PENDING_PAGE) },
      };
      const timer = setTimeout(() => guest.peer.send(new Uint8Array(1)), 20);
      const result = await guest.one(poll);
      clearTimeout(timer);
      assertEquals(result.fault, undefined);
      assertEquals(guest.wire.pending, 1);
    },
  );
}
