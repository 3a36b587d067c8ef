/** The debug device by hypercall: POST, RETRIEVE and RESET (TLFS 2.0a, chapter 20). */
import { assert, assertEquals } from "@std/assert";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import { udpPacket } from "../../hyperv/frames/ip.ts";
import {
  type Bench,
  bench,
  bytes,
  type CallOutcome,
  identify,
  RAM,
  vmcall,
} from "./_partition.ts";

const IN = 0x5000, OUT = 0x6000;
const POST = 0x69n, RETRIEVE = 0x6an, RESET = 0x6bn, FAST = 0x1_0000n;
const LOOP = 1, TEST_ACTIVITY = 2;
const HEADERS = 42;
const OK = 0n;
const PROFILES = ["hyperv", "kvm"] as const;

const GUEST = { ipv4: 0x0a00_0505, port: 0 };
const HOST = { ipv4: 0x0a00_0501, port: 0 };

function ready(options: Parameters<typeof bench>[0] = {}): Bench {
  const b = bench({ mode: "hypercall", ...options });
  identify(b.partition);
  return b;
}

/** An Ethernet frame as kdnet sends its packets. */
function frameOf(payload: Uint8Array): Uint8Array {
  const packet = udpPacket(payload, GUEST, HOST);
  const frame = new Uint8Array(14 + packet.length);
  frame[12] = 8;
  frame.set(packet, 14);
  return frame;
}

interface CallAt {
  input?: number | bigint;
  output?: number | bigint;
  vcpu?: number;
}

function post(
  b: Bench,
  frame: Uint8Array,
  options = 0,
  count = frame.length,
  at: CallAt = {},
): CallOutcome {
  const { input = IN, output = OUT } = at;
  const where = Number(input);
  if (where + 8 + frame.length <= RAM) {
    b.memory.writeU32(where, count);
    b.memory.writeU32(where + 4, options);
    b.memory.write(where + 8, frame);
  }
  return vmcall(b.partition, POST, BigInt(input), BigInt(output));
}

function retrieve(
  b: Bench,
  count = 4088,
  options = 0,
  timeout = 0n,
  at: CallAt = {},
): CallOutcome {
  const { input = IN, output = OUT, vcpu = 0 } = at;
  const where = Number(input);
  if (where + 16 <= RAM) {
    b.memory.writeU32(where, count);
    b.memory.writeU32(where + 4, options);
    b.memory.writeU64(where + 8, timeout);
  }
  return vmcall(b.partition, RETRIEVE, BigInt(input), BigInt(output), { vcpu });
}

/** RetrievedCount, RemainingCount and the data of the last RETRIEVE. */
function got(b: Bench): [number, number, Uint8Array] {
  const count = b.memory.view.getUint32(OUT, true);
  return [
    count,
    b.memory.view.getUint32(OUT + 4, true),
    b.memory.read(OUT + 8, Math.min(count, 4088)),
  ];
}

function counts(b: Bench): [number, number] {
  const [count, remaining] = got(b);
  return [count, remaining];
}

/** Fills RAM outside of some pages with a pattern; the returned function proves it untouched. */
function guard(b: Bench, ...pages: number[]): () => void {
  for (let at = 0; at < RAM; at += 4096) {
    if (!pages.includes(at)) b.memory.fill(at, 4096, 0x5a);
  }
  return () => {
    for (let at = 0; at < RAM; at += 4096) {
      if (pages.includes(at)) continue;
      const page = b.memory.bytes.subarray(at, at + 4096);
      assert(page.every((n) => n === 0x5a), `page 0x${at.toString(16)}`);
    }
  };
}

for (const profile of PROFILES) {
  const test = (name: string, body: (b: Bench) => void): void =>
    Deno.test(`${profile}: ${name}`, () => body(ready({ profile })));

  test("POST sends a frame's payload, RETRIEVE wraps the answer", (b) => {
    b.memory.fill(OUT, 4096, 0xcc);
    assertEquals(post(b, frameOf(bytes("hello"))), OK);
    assertEquals(b.peer.receive(), bytes("hello"));
    assertEquals(b.memory.view.getUint32(OUT, true), 0, "PendingCount");
    b.peer.send(bytes("answer"));
    assertEquals(retrieve(b), OK);
    const [count, , frame] = got(b);
    assertEquals(count, HEADERS + 6);
    assertEquals(frame.subarray(HEADERS), bytes("answer"));
  });

  test("both ways also by the 32-bit ABI", (b) => {
    const frame = frameOf(bytes("legacy"));
    b.memory.writeU32(IN, frame.length);
    b.memory.write(IN + 8, frame);
    const abi = { longMode: false };
    assertEquals(vmcall(b.partition, POST, BigInt(IN), BigInt(OUT), abi), OK);
    assertEquals(b.peer.receive(), bytes("legacy"));
    b.memory.writeU32(IN, 4088);
    assertEquals(
      vmcall(b.partition, RETRIEVE, BigInt(IN), BigInt(OUT), abi),
      0x1bn,
    );
  });

  test("padding of a short frame is not payload", (b) => {
    const padded = new Uint8Array(60).fill(0xee);
    padded.set(frameOf(bytes("ab")));
    assertEquals(post(b, padded), OK);
    assertEquals(b.peer.receive(), bytes("ab"));
  });

  test("what is no UDP over IPv4 is taken and dropped", (b) => {
    for (const frame of [bytes("no frame at all"), new Uint8Array(1)]) {
      assertEquals(post(b, frame), OK);
    }
    assertEquals(b.peer.pending, 0);
    assertEquals(b.memory.view.getUint32(OUT, true), 0);
  });

  test("POST of more than 4088 bytes gives 5", (b) => {
    assertEquals(post(b, new Uint8Array(0), 0, 4089), 5n);
    assertEquals(post(b, new Uint8Array(0), 0, 0xffff_ffff), 5n);
  });

  test("unknown option bits are accepted", (b) => {
    assertEquals(post(b, frameOf(bytes("x")), 0xffff_fffe), OK);
    b.peer.send(bytes("y"));
    assertEquals(retrieve(b, 4088, 0xffff_fffc), OK);
  });

  test("RETRIEVE with nothing there gives NO_DATA and sets both counts", (b) => {
    b.memory.fill(OUT, 4096, 0xcc);
    assertEquals(retrieve(b, 100), 0x1bn);
    assertEquals(counts(b), [0, profile === "kvm" ? 100 : 0]);
    assert(b.memory.read(OUT + 8, 4088).every((n) => n === 0xcc));
  });

  test("RETRIEVE writes no byte behind the data, nor outside the page", (b) => {
    for (const length of [1, 100, 4046, 4047, 4054, 5000, 65_507]) {
      const unharmed = guard(b, IN, OUT);
      b.memory.fill(OUT, 4096, 0x11);
      b.peer.send(new Uint8Array(length).fill(0xee));
      assertEquals(retrieve(b), OK);
      unharmed();
      const [count] = counts(b);
      assertEquals(count, Math.min(4088, length + HEADERS));
      assert(
        b.memory.read(OUT + 8 + count, 4088 - count).every((n) => n === 0x11),
      );
      b.wire.purgeIncoming();
      if (profile === "hyperv") { while (retrieve(b) === OK); }
    }
  });

  test("the pending byte follows the hypercalls too", (b) => {
    b.partition.hostWriteMsr(0, HvMsr.SyndbgPendingBuffer, 0x7000n);
    b.peer.send(bytes("a"));
    assertEquals(b.memory.bytes[0x7000], 1);
    retrieve(b);
    assertEquals(b.memory.bytes[0x7000], 0);
  });

  test("calls that a kernel passes on are served by the same device", (b) => {
    b.partition.hostWriteMsr(0, HvMsr.SyndbgOptions, 0n);
    const frame = frameOf(bytes("exit"));
    b.memory.writeU32(IN, frame.length);
    b.memory.write(IN + 8, frame);
    const serve = (input: bigint): bigint =>
      b.partition.serveHypercallExit(0, input, BigInt(IN), BigInt(OUT));
    assertEquals(serve(POST), OK);
    assertEquals(b.peer.receive(), bytes("exit"));
    // LOOP cannot be heeded: there is no "again" in an exit.
    b.memory.writeU32(IN, 4088);
    b.memory.writeU32(IN + 4, LOOP);
    b.memory.writeU64(IN + 8, 0xffff_ffff_ffff_ffffn);
    b.memory.fill(OUT, 8, 0xcc);
    assertEquals(serve(RETRIEVE), 0x1bn);
    assertEquals(b.memory.view.getUint32(OUT, true), 0);
    assertEquals(serve(0xbeefn), 2n);
  });

  test("lists outside RAM are refused and nothing is sent", (b) => {
    const status = profile === "kvm" ? 0x0bn : 5n;
    const away = [BigInt(RAM), 1n << 45n, 0xffff_ffff_ffff_fff8n];
    for (const gpa of away) {
      assertEquals(
        post(b, frameOf(bytes("x")), 0, 50, { output: gpa }),
        status,
      );
      assertEquals(retrieve(b, 8, 0, 0n, { output: gpa }), status);
      for (const code of [POST, RETRIEVE]) {
        assertEquals(vmcall(b.partition, code, gpa, BigInt(OUT)), status);
      }
    }
    assertEquals(b.peer.pending, 0);
  });
}

// hyperv: TLFS. ---------------------------------------------------------------

Deno.test("hyperv: POST is all or nothing", () => {
  const b = ready();
  b.wire.close();
  b.memory.fill(OUT, 8, 0xcc);
  assertEquals(post(b, frameOf(bytes("x"))), 0x13n);
});

Deno.test("hyperv: POST of 0 bytes asks how much waits to go out", () => {
  const b = ready();
  b.memory.fill(OUT, 8, 0xcc);
  assertEquals(post(b, new Uint8Array(0)), OK);
  assertEquals(b.memory.view.getBigUint64(OUT, true), 0n);
  assertEquals(b.peer.pending, 0);
});

Deno.test("hyperv: the largest POST fits its page exactly", () => {
  const b = ready();
  const payload = new Uint8Array(4088 - HEADERS).fill(7);
  assertEquals(post(b, frameOf(payload)), OK);
  assertEquals(b.peer.receive(), payload);
});

Deno.test("hyperv: misaligned lists give 4", () => {
  const b = ready();
  for (const off of [1, 2, 4, 7]) {
    assertEquals(post(b, frameOf(bytes("x")), 0, 50, { input: IN + off }), 4n);
    assertEquals(
      post(b, frameOf(bytes("x")), 0, 50, { output: OUT + off }),
      4n,
    );
    assertEquals(retrieve(b, 8, 0, 0n, { input: IN + off }), 4n);
    assertEquals(retrieve(b, 8, 0, 0n, { output: OUT + off }), 4n);
    assertEquals(vmcall(b.partition, RESET, BigInt(IN + off)), 4n);
  }
  assertEquals(b.peer.pending, 0);
});

Deno.test("hyperv: lists that cross a page give 5", () => {
  const b = ready();
  const frame = frameOf(new Uint8Array(100));
  assertEquals(post(b, frame, 0, frame.length, { input: IN + 4096 - 144 }), 5n);
  assertEquals(post(b, frame, 0, frame.length, { input: IN + 4096 - 152 }), OK);
  b.peer.receive();
  b.peer.send(bytes("x"));
  assertEquals(retrieve(b, 4088, 0, 0n, { output: OUT + 8 }), 5n);
  assertEquals(retrieve(b, 8, 0, 0n, { input: IN + 4088 }), 5n);
  assertEquals(b.wire.pending, 1, "nothing lost");
  assertEquals(retrieve(b, 4080, 0, 0n, { output: OUT + 8 }), OK);
});

Deno.test("hyperv: RETRIEVE heeds Count and counts exactly what remains", () => {
  const b = ready();
  b.peer.send(new Uint8Array(100).fill(1));
  b.peer.send(new Uint8Array(10).fill(2));
  const total = 100 + 10 + 2 * HEADERS;
  assertEquals(retrieve(b, 0), OK);
  assertEquals(counts(b), [0, total]);
  assertEquals(retrieve(b, 50), OK);
  assertEquals(counts(b), [50, total - 50]);
  assertEquals(retrieve(b, 50), OK);
  assertEquals(counts(b), [50, total - 100]);
  assertEquals(retrieve(b), OK);
  assertEquals(counts(b), [142 - 100, 52], "the rest of the first frame only");
  assertEquals(retrieve(b), OK);
  assertEquals(counts(b), [52, 0]);
  assertEquals(retrieve(b), 0x1bn);
  assertEquals(retrieve(b, 0), 0x1bn);
  assertEquals(retrieve(b, 4089), 5n);
});

Deno.test("hyperv: a datagram longer than a page comes in pieces, none lost", () => {
  const b = ready();
  const payload = new Uint8Array(65_507).map((_, n) => n % 251);
  b.peer.send(payload);
  const frame: number[] = [];
  for (let left = payload.length + HEADERS; left > 0;) {
    assertEquals(retrieve(b), OK);
    const [count, remaining, data] = got(b);
    left -= count;
    assertEquals(remaining, left);
    frame.push(...data);
  }
  assertEquals(new Uint8Array(frame).subarray(HEADERS), payload);
});

Deno.test("hyperv: TEST_ACTIVITY is INACTIVE when nothing came since the last RETRIEVE", () => {
  const b = ready();
  assertEquals(retrieve(b, 4088, TEST_ACTIVITY), 0x1cn);
  b.peer.send(bytes("a"));
  b.peer.send(bytes("b"));
  assertEquals(retrieve(b, 4088, TEST_ACTIVITY), OK);
  assertEquals(retrieve(b, 4088, TEST_ACTIVITY), 0x1cn, "b came before");
  assertEquals(retrieve(b), OK);
  assertEquals(retrieve(b, 4088, TEST_ACTIVITY), 0x1cn);
  assertEquals(retrieve(b), 0x1bn);
});

Deno.test("hyperv: LOOP is tried again until its timeout", () => {
  const b = ready();
  const loop = (timeout: bigint, vcpu = 0): CallOutcome =>
    retrieve(b, 4088, LOOP, timeout, { vcpu });
  // 1000 units of 100 ns.
  assertEquals(loop(1000n), "retry");
  b.clock.tsc += 99_999n;
  assertEquals(loop(1000n), "retry");
  b.clock.tsc += 1n;
  assertEquals(loop(1000n), 0x1bn);
  assertEquals(counts(b), [0, 0]);
  assertEquals(loop(1000n), "retry", "a new wait");
  assertEquals(loop(0n), 0x1bn, "no timeout is no wait");
  assertEquals(loop(0xffff_ffff_ffff_ffffn), "retry");
});

Deno.test("hyperv: LOOP ends with data, and the next one begins anew", () => {
  const b = ready();
  const loop = (): CallOutcome => retrieve(b, 4088, LOOP, 1000n);
  assertEquals(loop(), "retry");
  b.clock.tsc += 90_000n;
  b.peer.send(bytes("x"));
  assertEquals(loop(), OK);
  b.clock.tsc += 50_000n;
  assertEquals(loop(), "retry");
  b.clock.tsc += 50_000n;
  assertEquals(loop(), "retry");
});

Deno.test("hyperv: a wait given up does not shorten the next", () => {
  const b = ready();
  const loop = (): CallOutcome => retrieve(b, 4088, LOOP, 1000n);
  for (
    const giveUp of [
      () => void retrieve(b),
      () => b.partition.resetVcpu(0),
      () => b.partition.reset(),
    ]
  ) {
    identify(b.partition);
    assertEquals(loop(), "retry");
    giveUp();
    identify(b.partition);
    b.clock.tsc += 100_000n;
    assertEquals(loop(), "retry");
    retrieve(b);
  }
});

Deno.test("hyperv: each vCPU waits for itself", () => {
  const b = ready({ vcpus: 2 });
  const loop = (vcpu: number): CallOutcome =>
    retrieve(b, 4088, LOOP, 1000n, { vcpu });
  assertEquals(loop(0), "retry");
  b.clock.tsc += 60_000n;
  assertEquals(loop(1), "retry");
  b.clock.tsc += 60_000n;
  assertEquals(loop(0), 0x1bn);
  assertEquals(loop(1), "retry");
});

Deno.test("hyperv: RESET purges, and says NO_DATA where there was nothing", () => {
  const b = ready();
  const reset = (options: bigint): CallOutcome =>
    vmcall(b.partition, RESET | FAST, options);
  assertEquals(reset(1n), 0x1bn);
  assertEquals(reset(2n), 0x1bn, "nothing waits to go out");
  b.peer.send(bytes("a"));
  assertEquals(reset(2n), 0x1bn, "incoming is not outgoing");
  assertEquals(b.wire.pending, 1);
  assertEquals(reset(3n), OK);
  assertEquals(b.wire.pending, 0);
  assertEquals(retrieve(b), 0x1bn);
  assertEquals(retrieve(b, 8, TEST_ACTIVITY), 0x1cn);
});

Deno.test("hyperv: RESET purges the rest of a frame too", () => {
  const b = ready();
  b.peer.send(bytes("a"));
  assertEquals(retrieve(b, 8), OK);
  b.memory.writeU32(IN, 1);
  assertEquals(vmcall(b.partition, RESET, BigInt(IN)), OK);
  assertEquals(retrieve(b), 0x1bn);
});

Deno.test("hyperv: RESET with wrong flags gives 5", () => {
  const { partition } = ready();
  for (const options of [0n, 4n, 5n, 0x8000_0001n]) {
    assertEquals(vmcall(partition, RESET | FAST, options), 5n);
  }
  assertEquals(vmcall(partition, RESET, BigInt(RAM)), 5n, "outside RAM");
});

Deno.test("hyperv: RESET writes nothing", () => {
  const b = ready();
  const unharmed = guard(b);
  assertEquals(vmcall(b.partition, RESET | FAST, 3n, BigInt(OUT)), 0x1bn);
  unharmed();
});

// kvm: QEMU. ------------------------------------------------------------------

Deno.test("kvm: POST that cannot be sent gives 0x0B", () => {
  const b = ready({ profile: "kvm" });
  b.wire.close();
  assertEquals(post(b, frameOf(bytes("x"))), 0x0bn);
});

Deno.test("kvm: POST needs and writes 4 bytes of output", () => {
  const b = ready({ profile: "kvm" });
  b.memory.fill(OUT, 8, 0xcc);
  assertEquals(post(b, frameOf(bytes("x"))), OK);
  assertEquals(b.memory.view.getUint32(OUT, true), 0);
  assertEquals(b.memory.view.getUint32(OUT + 4, true), 0xcccc_cccc);
  assertEquals(
    post(b, frameOf(bytes("x")), 0, 43, { output: RAM - 4 }),
    OK,
  );
});

Deno.test("kvm: POST looks at the count before the output", () => {
  const b = ready({ profile: "kvm" });
  const at = { output: RAM };
  assertEquals(post(b, new Uint8Array(0), 0, 4089, at), 5n);
  assertEquals(post(b, new Uint8Array(0), 0, 8, at), 0x0bn);
});

Deno.test("kvm: POST of data beyond RAM gives 0x0B", () => {
  const b = ready({ profile: "kvm" });
  assertEquals(
    post(b, new Uint8Array(56), 0, 57, { input: RAM - 64 }),
    0x0bn,
  );
});

Deno.test("kvm: neither alignment nor pages are looked at", () => {
  const b = ready({ profile: "kvm" });
  const frame = frameOf(bytes("odd"));
  const at = { input: IN + 4096 - 13, output: OUT + 3 };
  assertEquals(post(b, frame, 0, frame.length, at), OK);
  assertEquals(b.peer.receive(), bytes("odd"));
});

Deno.test("kvm: RETRIEVE ignores Count, options and timeout", () => {
  const b = ready({ profile: "kvm" });
  assertEquals(retrieve(b, 5, LOOP | TEST_ACTIVITY, 99n), 0x1bn);
  assertEquals(counts(b), [0, 5]);
  b.peer.send(new Uint8Array(100));
  assertEquals(retrieve(b, 5), OK);
  assertEquals(counts(b), [142, 0]);
  b.peer.send(new Uint8Array(100));
  assertEquals(retrieve(b, 5000), OK);
  assertEquals(counts(b), [142, 5000 - 142]);
});

Deno.test("kvm: a long datagram is cut so that its frame is whole", () => {
  const b = ready({ profile: "kvm" });
  b.peer.send(new Uint8Array(5000));
  assertEquals(retrieve(b), OK);
  const [count, , frame] = got(b);
  assertEquals(count, 4088);
  const view = new DataView(frame.buffer, frame.byteOffset);
  assertEquals(view.getUint16(16), 4088 - 14, "IPv4 total length");
  assertEquals(view.getUint16(38), 4088 - 34, "UDP length");
});

Deno.test("kvm: RESET reports the debugger's address and purges nothing", () => {
  const b = ready({ profile: "kvm" });
  b.peer.send(bytes("a"));
  for (const input of [RESET, RESET | FAST]) {
    b.memory.fill(OUT, 64, 0xcc);
    // The input is not looked at: it may be anywhere.
    assertEquals(vmcall(b.partition, input, 1n << 50n, BigInt(OUT)), OK);
    const { view } = b.memory;
    assertEquals(view.getUint32(OUT, true), 0x7f00_0001);
    assertEquals(view.getUint32(OUT + 4, true), 0x7f00_0001);
    assertEquals(view.getUint16(OUT + 8, true), 50_000);
    assertEquals(view.getUint16(OUT + 10, true), 50_000);
    assert(b.memory.read(OUT + 12, 12).every((n) => n === 0));
    assertEquals(b.memory.bytes[OUT + 24], 0xcc);
  }
  assertEquals(b.wire.pending, 1);
  assertEquals(vmcall(b.partition, RESET, 0n, BigInt(RAM)), 0x0bn);
});
