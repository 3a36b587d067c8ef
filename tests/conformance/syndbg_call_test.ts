/**
 * The debug hypercalls as a guest's code makes them: frames both ways, counts, options, and what a
 * hostile guest may try, in both profiles and all calling conventions.
 */
import { assert, assertEquals } from "@std/assert";
import { backends } from "./backends.ts";
import {
  callResult,
  FREE,
  guestTest,
  type GuestTestOptions,
  hex,
  hypercall,
  type Mode,
  type Probe,
  type ProbeGuest,
  RAM,
  wrmsr,
} from "./_probe.ts";

const PAGE = 4096;
const IN = FREE;
const OUT = FREE + 2 * PAGE;
const OS_ID = 0x4000_0000;
const POST = 0x69n;
const RETRIEVE = 0x6an;
const RESET = 0x6bn;
const FAST = 0x1_0000n;
const LOOP = 1;
const TEST_ACTIVITY = 2;
/** Ethernet, IPv4 and UDP headers. */
const HEADERS = 42;
/** Most bytes in one call. */
const MOST = 4088;
const PROFILES = ["hyperv", "kvm"] as const;

/** A debug packet as kdvm sends it: ports 0 and 0. */
function frame(
  payload: Uint8Array,
  ports: readonly [number, number] = [0, 0],
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADERS + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(12, 0x0800);
  view.setUint16(14, 0x4500);
  view.setUint16(16, 28 + payload.length);
  view.setUint16(22, 0x4011);
  view.setUint32(26, 0x0a00_0505);
  view.setUint32(30, 0x0a00_0501);
  view.setUint16(24, ipChecksum(view));
  view.setUint16(34, ports[0]);
  view.setUint16(36, ports[1]);
  view.setUint16(38, 8 + payload.length);
  bytes.set(payload, HEADERS);
  return bytes;
}

/** Checksum of the IPv4 header at 14 (RFC 1071): 0 where it is in place and right. */
function ipChecksum(view: DataView): number {
  let sum = 0;
  for (let at = 14; at < 34; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function pattern(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, n) => n * 7 + (n >> 8) & 255);
}

/** What a call does: input value, and where its lists are. */
interface Call {
  input: bigint;
  from?: number | bigint;
  to?: number | bigint;
  mode?: Mode;
}

/** Identifies the guest and makes a call. */
async function call(
  guest: ProbeGuest,
  { input, from = IN, to = OUT, mode = "long" }: Call,
): Promise<bigint | string> {
  const [, result] = await guest.run(
    wrmsr(OS_ID, 1n, mode),
    hypercall(input, BigInt(from), BigInt(to), { mode }),
  );
  return callResult(result!, mode);
}

/** Writes the head of an input list. */
function head(
  guest: ProbeGuest,
  count: number,
  options = 0,
  timeout = 0n,
  at = IN,
): void {
  guest.memory.writeU32(at, count);
  guest.memory.writeU32(at + 4, options);
  if (at % PAGE + 16 <= PAGE) guest.memory.writeU64(at + 8, timeout);
}

/** Posts a frame. */
async function post(
  guest: ProbeGuest,
  data: Uint8Array,
  call_: Partial<Call> = {},
): Promise<bigint | string> {
  guest.memory.writeU32(IN, data.length);
  guest.memory.writeU32(IN + 4, 0);
  guest.memory.write(IN + 8, data);
  return await call(guest, { input: POST, ...call_ });
}

/** What a RETRIEVE gave. */
interface Retrieved {
  status: bigint | string;
  count: number;
  remaining: number;
  data: Uint8Array<ArrayBuffer>;
}

/** Retrieves. */
async function retrieve(
  guest: ProbeGuest,
  count = MOST,
  options = 0,
  timeout = 0n,
  call_: Partial<Call> = {},
): Promise<Retrieved> {
  const { memory } = guest;
  memory.fill(OUT, 2 * PAGE, 0xee);
  head(guest, count, options, timeout);
  const status = await call(guest, { input: RETRIEVE, ...call_ });
  const got = memory.view.getUint32(OUT, true);
  return {
    status,
    count: got,
    remaining: memory.view.getUint32(OUT + 4, true),
    data: memory.read(OUT + 8, Math.min(got, MOST)),
  };
}

for (const backend of backends) {
  for (const profile of PROFILES) {
    const tlfs = profile === "hyperv";
    const test = (
      name: string,
      fn: (guest: ProbeGuest) => Promise<void>,
      options: GuestTestOptions = {},
    ): void =>
      guestTest(backend, `debug calls, ${profile}: ${name}`, {
        profile,
        syndbg: "hypercall",
        ...options,
      }, fn);

    for (const mode of ["long", "compat", "protected"] as const) {
      test(`a packet each way in ${mode} mode`, async (guest) => {
        guest.memory.fill(OUT, 16, 0xee);
        assertEquals(await post(guest, frame(pattern(100)), { mode }), 0n);
        // PendingCount: the packet has gone. QEMU's output is 4 bytes.
        assertEquals(
          guest.memory.read(OUT, 12),
          new Uint8Array(12).fill(0xee).fill(0, 0, tlfs ? 8 : 4),
        );
        assertEquals(guest.peer.receive(), pattern(100));

        guest.peer.send(pattern(200));
        const got = await retrieve(guest, MOST, 0, 0n, { mode });
        assertEquals(got.status, 0n);
        assertEquals(got.count, HEADERS + 200);
        assertEquals(got.remaining, tlfs ? 0 : MOST - HEADERS - 200);
        assertEquals(got.data.slice(HEADERS), pattern(200));
        const view = new DataView(got.data.buffer);
        assertEquals(view.getUint16(12), 0x0800);
        assertEquals(view.getUint8(14), 0x45, "no IP options");
        assertEquals(view.getUint16(16), 228);
        assertEquals(ipChecksum(view), 0);
        assertEquals(view.getUint32(30), 0x0a00_0505, "to the guest");
        assertEquals(view.getUint16(38), 208);
        assertEquals(
          [view.getUint16(34), view.getUint16(36)],
          tlfs ? [0, 0] : [50_000, 50_000],
        );
      }, { mode });
    }

    test("Ethernet padding does not leak into the payload", async (guest) => {
      const padded = new Uint8Array(60).fill(0xcc);
      padded.set(frame(pattern(3)));
      assertEquals(await post(guest, padded), 0n);
      assertEquals(guest.peer.receive(), pattern(3));
    });

    test("the largest payload of a POST", async (guest) => {
      const payload = pattern(MOST - HEADERS);
      assertEquals(await post(guest, frame(payload)), 0n);
      assertEquals(guest.peer.receive(), payload);
    });

    for (const length of [4046, 4047, 4054, 4096, 65_507]) {
      test(`a datagram of ${length} bytes stays in the page`, async (guest) => {
        guest.peer.send(pattern(length));
        const got = await retrieve(guest);
        assertEquals(got.status, 0n);
        assert(got.count <= MOST);
        assertEquals(
          guest.memory.read(OUT + PAGE, PAGE),
          new Uint8Array(PAGE).fill(0xee),
        );
        const payload = got.data.slice(HEADERS);
        assertEquals(payload, pattern(payload.length));
        if (!tlfs || length <= MOST - HEADERS) {
          assertEquals(payload.length, Math.min(length, MOST - HEADERS));
          const view = new DataView(got.data.buffer);
          assertEquals(view.getUint16(16), 28 + payload.length);
          assertEquals(ipChecksum(view), 0);
        }
      });
    }

    test("nothing is there to be retrieved", async (guest) => {
      const got = await retrieve(guest, 100);
      assertEquals(got.status, 0x1bn);
      assertEquals([got.count, got.remaining], [0, tlfs ? 0 : 100]);
    });

    test("an empty POST", async (guest) => {
      head(guest, 0);
      assertEquals(await call(guest, { input: POST }), 0n);
      assertEquals(guest.peer.pending, 0);
    });

    test("a POST of what is no debug packet is dropped", async (guest) => {
      for (const data of [pattern(1), pattern(13), new Uint8Array(60)]) {
        assertEquals(await post(guest, data), 0n);
      }
      assertEquals(guest.peer.pending, 0);
    });

    test("a POST to nobody's full queue", async (guest) => {
      guest.peer.close();
      for (let n = 0; n < 256; n++) {
        if (!guest.wire.send(new Uint8Array(1))) break;
      }
      assertEquals(
        await post(guest, frame(pattern(1))),
        tlfs ? 0x13n : 0x0bn,
      );
    });

    for (const count of [MOST + 1, 0xffff_ffff]) {
      test(`a POST of ${count} bytes gives 5`, async (guest) => {
        head(guest, count);
        assertEquals(await call(guest, { input: POST }), 5n);
        assertEquals(guest.peer.pending, 0);
      });
    }

    for (
      const [what, at] of [
        ["the end of RAM", BigInt(RAM)],
        ["4 GiB", 1n << 32n],
        ["2^45", 1n << 45n],
        ["the last page of all", 0xffff_ffff_ffff_f000n],
      ] as const
    ) {
      for (const input of [POST, RETRIEVE, RESET]) {
        const status = tlfs ? 5n : 0x0bn;
        test(`${hex(input)} with its lists at ${what}`, async (guest) => {
          head(guest, 8);
          guest.peer.send(pattern(8));
          assertEquals(await call(guest, { input, from: at, to: at }), status);
          if (input !== RESET) {
            assertEquals(await call(guest, { input, to: at }), status);
          }
          assertEquals(guest.wire.pending, 1, "the packet is not lost");
        });
      }
    }

    test("calls whose lists lie at odd addresses", async (guest) => {
      const data = frame(pattern(5));
      head(guest, data.length, 0, 0n, IN + 4);
      guest.memory.write(IN + 12, data);
      const status = await call(guest, { input: POST, from: IN + 4 });
      assertEquals(status, tlfs ? 4n : 0n);
      assertEquals(guest.peer.pending, tlfs ? 0 : 1);
    });

    test("a POST whose data crosses a page", async (guest) => {
      const data = frame(pattern(50));
      const from = IN + PAGE - 64;
      guest.memory.writeU32(from, data.length);
      guest.memory.writeU32(from + 4, 0);
      guest.memory.write(from + 8, data);
      assertEquals(await call(guest, { input: POST, from }), tlfs ? 5n : 0n);
      assertEquals(guest.peer.pending, tlfs ? 0 : 1);
    });

    test("a RETRIEVE to a page's end writes no byte beyond", async (guest) => {
      guest.peer.send(pattern(50));
      guest.memory.fill(OUT, 2 * PAGE, 0xee);
      head(guest, MOST);
      const to = OUT + PAGE - 16;
      const status = await call(guest, { input: RETRIEVE, to });
      assertEquals(status, tlfs ? 5n : 0n);
      assertEquals(
        guest.memory.read(OUT + PAGE, PAGE),
        new Uint8Array(PAGE).fill(0xee),
      );
    });

    test("input and output in one page", async (guest) => {
      const data = frame(pattern(5));
      assertEquals(await post(guest, data, { to: IN }), 0n);
      assertEquals(guest.peer.receive(), pattern(5));
    });

    test("option bits that nobody knows are accepted", async (guest) => {
      guest.memory.write(IN + 8, frame(pattern(5)));
      guest.memory.writeU32(IN, HEADERS + 5);
      guest.memory.writeU32(IN + 4, 0xffff_fffc);
      assertEquals(await call(guest, { input: POST }), 0n);
      assertEquals(guest.peer.receive(), pattern(5));
      guest.peer.send(pattern(5));
      assertEquals((await retrieve(guest, MOST, 0xffff_fffc)).status, 0n);
    });

    for (const [type, reply] of [[1, 2], [3, 5]] as const) {
      test(`DHCP message ${type}`, async (guest) => {
        const dhcp = new Uint8Array(300);
        dhcp.set([1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78]);
        dhcp.set([0x63, 0x82, 0x53, 0x63, 53, 1, type, 0xff], 236);
        assertEquals(await post(guest, frame(dhcp, [68, 67])), 0n);
        const got = await retrieve(guest);
        if (!tlfs) {
          // QEMU knows no DHCP: the debugger gets it.
          assertEquals(got.status, 0x1bn);
          assertEquals(guest.peer.receive(), dhcp);
          return;
        }
        assertEquals(got.status, 0n);
        assertEquals(guest.peer.pending, 0);
        const view = new DataView(got.data.buffer);
        assertEquals([view.getUint16(34), view.getUint16(36)], [67, 68]);
        assertEquals(view.getUint32(HEADERS + 4), 0x1234_5678);
        assertEquals(view.getUint32(HEADERS + 16), 0x0a00_0505);
        assertEquals(
          got.data.slice(HEADERS + 240, HEADERS + 243),
          Uint8Array.of(53, 1, reply),
        );
        assertEquals((await retrieve(guest)).status, 0x1bn, "only once");
      });
    }

    test("ARP for the gateway", async (guest) => {
      const arp = new Uint8Array(42).fill(0xff, 0, 6);
      const view = new DataView(arp.buffer);
      view.setUint16(12, 0x0806);
      view.setUint32(14, 0x0001_0800);
      view.setUint32(18, 0x0604_0001);
      view.setUint32(28, 0x0a00_0505);
      view.setUint32(38, 0x0a00_0501);
      assertEquals(await post(guest, arp), 0n);
      const got = await retrieve(guest);
      assertEquals(got.status, tlfs ? 0n : 0x1bn);
      assertEquals(guest.peer.pending, 0);
      if (tlfs) {
        const reply = new DataView(got.data.buffer);
        assertEquals(reply.getUint16(12), 0x0806);
        assertEquals(reply.getUint16(20), 2);
        assertEquals(reply.getUint32(28), 0x0a00_0501);
      }
    });
  }

  const test = (
    name: string,
    fn: (guest: ProbeGuest) => Promise<void>,
    options: GuestTestOptions = {},
  ): void =>
    guestTest(backend, `debug calls: ${name}`, {
      syndbg: "hypercall",
      ...options,
    }, fn);

  test("Count is honoured, and what is left comes next", async (guest) => {
    guest.peer.send(pattern(100));
    const whole = HEADERS + 100;
    const first = await retrieve(guest, 60);
    assertEquals(first.status, 0n);
    assertEquals([first.count, first.remaining], [60, whole - 60]);
    const second = await retrieve(guest, MOST);
    assertEquals(second.status, 0n);
    assertEquals([second.count, second.remaining], [whole - 60, 0]);
    const both = new Uint8Array([...first.data, ...second.data]);
    assertEquals(both.slice(HEADERS), pattern(100));
    assertEquals((await retrieve(guest)).status, 0x1bn);
  });

  test("RemainingCount has all that waits", async (guest) => {
    guest.peer.send(pattern(10));
    guest.peer.send(pattern(20));
    const first = await retrieve(guest);
    assertEquals([first.count, first.remaining], [HEADERS + 10, HEADERS + 20]);
  });

  test("a Count of 0 asks whether there is data", async (guest) => {
    assertEquals((await retrieve(guest, 0)).status, 0x1bn);
    guest.peer.send(pattern(10));
    const got = await retrieve(guest, 0);
    assertEquals(got.status, 0n);
    assertEquals([got.count, got.remaining], [0, HEADERS + 10]);
    assertEquals(guest.wire.pending, 1);
  });

  for (const count of [MOST + 1, 0xffff_ffff]) {
    test(`a RETRIEVE of ${count} bytes gives 5`, async (guest) => {
      guest.peer.send(pattern(10));
      assertEquals((await retrieve(guest, count)).status, 5n);
      assertEquals(guest.wire.pending, 1);
    });
  }

  test("TEST_ACTIVITY gives 0x1c until something was received", async (guest) => {
    assertEquals((await retrieve(guest, MOST, TEST_ACTIVITY)).status, 0x1cn);
    guest.peer.send(pattern(10));
    assertEquals((await retrieve(guest, MOST, TEST_ACTIVITY)).status, 0n);
    assertEquals((await retrieve(guest, MOST, TEST_ACTIVITY)).status, 0x1cn);
  });

  test("LOOP waits for its timeout", async (guest) => {
    const before = guest.partition.referenceTime();
    const got = await retrieve(guest, MOST, LOOP, 200_000n);
    assertEquals(got.status, 0x1bn);
    const waited = guest.partition.referenceTime() - before;
    assert(waited >= 200_000n, `${waited}`);
  }, { partition: true });

  test("LOOP ends when a packet comes", async (guest) => {
    const timer = setTimeout(() => guest.peer.send(pattern(9)), 20);
    // An hour, which the run would not survive.
    const got = await retrieve(guest, MOST, LOOP, 36_000_000_000n);
    clearTimeout(timer);
    assertEquals(got.status, 0n);
    assertEquals(got.data.slice(HEADERS), pattern(9));
  }, { partition: true });

  const resets: readonly [string, bigint, number, bigint][] = [
    ["no flag", RESET, 0, 5n],
    ["an unknown flag", RESET, 5, 5n],
    ["outgoing: nothing waits there", RESET, 2, 0x1bn],
    ["incoming", RESET, 1, 0n],
    ["both", RESET, 3, 0n],
  ];
  for (const [what, input, flags, expect] of resets) {
    for (const fast of [false, true]) {
      test(`${fast ? "fast" : "slow"} reset, ${what}`, async (guest) => {
        guest.peer.send(pattern(10));
        guest.memory.writeU64(IN, BigInt(flags));
        const status = await call(guest, {
          input: fast ? input | FAST : input,
          from: fast ? flags : IN,
        });
        assertEquals(status, expect);
        assertEquals(guest.wire.pending, expect === 0n ? 0 : 1);
        // There is no output.
        assertEquals(guest.memory.read(OUT, 24), new Uint8Array(24));
      });
    }
  }

  test("a reset drops the rest of a frame too", async (guest) => {
    guest.peer.send(pattern(100));
    await retrieve(guest, 60);
    assertEquals(await call(guest, { input: RESET | FAST, from: 1 }), 0n);
    assertEquals((await retrieve(guest)).status, 0x1bn);
  });

  test("all three from one guest that asks the CPU's vendor", async (guest) => {
    const reset: Probe = hypercall(RESET | FAST, 3n, 0n);
    guest.memory.write(IN + 8, frame(pattern(4)));
    head(guest, HEADERS + 4, 0, 0n, IN + PAGE);
    guest.memory.writeU32(IN, HEADERS + 4);
    guest.memory.writeU32(IN + 4, 0);
    guest.peer.onActivity = () => guest.peer.send(guest.peer.receive()!);
    const results = await guest.run(
      wrmsr(OS_ID, 0x0001_0001_0101_0001n),
      reset,
      hypercall(POST, BigInt(IN), BigInt(OUT)),
      hypercall(RETRIEVE, BigInt(IN + PAGE), BigInt(OUT)),
    );
    assertEquals(results.slice(1).map((r) => callResult(r)), [0x1bn, 0n, 0n]);
    assertEquals(guest.memory.read(OUT + 8 + HEADERS, 4), pattern(4));
  });
}
