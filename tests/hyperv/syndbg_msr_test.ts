/** The debug device by MSR: commands, status, the pending byte, and buffers where none should be. */
import { assert, assertEquals } from "@std/assert";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import { type Bench, bench, bytes, RAM, rdmsr, wrmsr } from "./_partition.ts";

const SEND = 0x5000, RECV = 0x6000, PENDING = 0x7000;
const PROFILES = ["hyperv", "kvm"] as const;

function ready(options: Parameters<typeof bench>[0] = {}): Bench {
  const b = bench(options);
  wrmsr(b.partition, HvMsr.SyndbgSendBuffer, BigInt(SEND));
  wrmsr(b.partition, HvMsr.SyndbgRecvBuffer, BigInt(RECV));
  wrmsr(b.partition, HvMsr.SyndbgPendingBuffer, BigInt(PENDING));
  return b;
}

/** A command and the status after it. */
function command(b: Bench, control: number | bigint): number {
  assert(wrmsr(b.partition, HvMsr.SyndbgControl, BigInt(control)));
  return Number(rdmsr(b.partition, HvMsr.SyndbgStatus));
}

const pendingByte = (b: Bench): number => b.memory.bytes[PENDING]!;

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

  test("a packet goes out as the bare bytes of the send page", (b) => {
    b.memory.write(SEND, bytes("hello, debugger"));
    assertEquals(command(b, 15 << 16 | 1), 1);
    assertEquals(b.peer.receive(), bytes("hello, debugger"));
  });

  test("one command receives one packet", (b) => {
    b.peer.send(bytes("one"));
    b.peer.send(bytes("four"));
    assertEquals(command(b, 2), 3 << 16 | 4);
    assertEquals(b.memory.read(RECV, 4), bytes("one\0"));
    assertEquals(command(b, 2), 4 << 16 | 4);
    assertEquals(b.memory.read(RECV, 4), bytes("four"));
    assertEquals(command(b, 2), 0);
  });

  test("the pending byte is 1 exactly while packets wait", (b) => {
    assertEquals(pendingByte(b), 0);
    b.peer.send(bytes("a"));
    b.peer.send(bytes("b"));
    assertEquals(pendingByte(b), 1);
    command(b, 2);
    assertEquals(pendingByte(b), 1, "another waits");
    command(b, 2);
    assertEquals(pendingByte(b), 0);
  });

  test("the pending byte goes with an empty receive", (b) => {
    b.memory.writeU8(PENDING, 1);
    assertEquals(command(b, 2), 0);
    assertEquals(pendingByte(b), 0);
  });

  test("the pending byte goes with an empty datagram", (b) => {
    b.peer.send(new Uint8Array(0));
    assertEquals(pendingByte(b), 1);
    assertEquals(command(b, 2), 0);
    assertEquals(pendingByte(b), 0);
  });

  test("PENDING written while a packet waits shows it at once", (b) => {
    b.peer.send(bytes("a"));
    wrmsr(b.partition, HvMsr.SyndbgPendingBuffer, BigInt(PENDING + 0x800));
    assertEquals(b.memory.bytes[PENDING + 0x800], 1);
  });

  test("PENDING of 0 means none, and one outside RAM is left alone", (b) => {
    for (const gpa of [0n, BigInt(RAM), 1n << 40n, 0xffff_ffff_ffff_ffffn]) {
      wrmsr(b.partition, HvMsr.SyndbgPendingBuffer, gpa);
      const unharmed = guard(b);
      b.peer.send(bytes("a"));
      command(b, 0);
      unharmed();
      assertEquals(rdmsr(b.partition, HvMsr.SyndbgPendingBuffer), gpa);
    }
  });

  test("only one byte is written at PENDING", (b) => {
    b.memory.fill(PENDING - 8, 17, 0x77);
    b.peer.send(bytes("a"));
    assertEquals(
      b.memory.read(PENDING - 8, 17),
      new Uint8Array(17).fill(0x77).fill(1, 8, 9),
    );
  });

  test("a send buffer outside RAM fails, and nothing goes out", (b) => {
    for (
      const gpa of [
        BigInt(RAM),
        BigInt(RAM) - 8n,
        0xffff_ffffn,
        1n << 53n,
        0xffff_ffff_ffff_f000n,
      ]
    ) {
      wrmsr(b.partition, HvMsr.SyndbgSendBuffer, gpa);
      assertEquals(command(b, 100 << 16 | 1), 0);
    }
    assertEquals(b.peer.pending, 0);
  });

  test("a transport that takes nothing gives status 0", (b) => {
    b.wire.close();
    assertEquals(command(b, 4 << 16 | 1), 0);
  });

  test("control bits without a command change nothing but STATUS", (b) => {
    b.peer.send(bytes("a"));
    assertEquals(command(b, 0xffff_fffcn), 0);
    assertEquals(b.wire.pending, 1);
    assertEquals(rdmsr(b.partition, HvMsr.SyndbgControl), 0xffff_fffcn);
  });

  test("all 64 bits of the registers are kept", (b) => {
    for (
      const msr of [
        HvMsr.SyndbgControl,
        HvMsr.SyndbgStatus,
        HvMsr.SyndbgSendBuffer,
        HvMsr.SyndbgRecvBuffer,
        HvMsr.SyndbgPendingBuffer,
        HvMsr.SyndbgOptions,
      ]
    ) {
      // Bits 0 and 1 of CONTROL are commands.
      wrmsr(b.partition, msr, 0xfedc_ba98_8765_4320n);
      assertEquals(rdmsr(b.partition, msr), 0xfedc_ba98_8765_4320n);
    }
  });

  test("every vCPU sees the same registers", () => {
    const b = ready({ profile, vcpus: 2 });
    wrmsr(b.partition, HvMsr.SyndbgStatus, 7n, 1);
    assertEquals(rdmsr(b.partition, HvMsr.SyndbgStatus, 0), 7n);
  });

  test("receiving never leaves the page of the buffer", (b) => {
    for (const offset of [0, 1, 4000, 4095]) {
      wrmsr(b.partition, HvMsr.SyndbgRecvBuffer, BigInt(RECV + offset));
      wrmsr(b.partition, HvMsr.SyndbgPendingBuffer, 0n);
      const unharmed = guard(b, RECV);
      b.memory.fill(RECV, 4096, 0x11);
      b.peer.send(new Uint8Array(65_507).fill(0xee));
      const status = command(b, 2);
      const room = 4096 - offset;
      const most = profile === "kvm" ? Math.min(room, 4054) : room;
      assertEquals(status, most << 16 | 4);
      unharmed();
      const page = b.memory.read(RECV, 4096);
      assert(page.subarray(0, offset).every((n) => n === 0x11));
      assert(page.subarray(offset, offset + most).every((n) => n === 0xee));
      assert(page.subarray(offset + most).every((n) => n === 0x11));
    }
  });

  test("the last page of RAM is as good as any", (b) => {
    wrmsr(b.partition, HvMsr.SyndbgRecvBuffer, BigInt(RAM - 4096));
    b.peer.send(new Uint8Array(5000).fill(9));
    const most = profile === "kvm" ? 4054 : 4096;
    assertEquals(command(b, 2), most << 16 | 4);
  });

  test("host access commands nothing and is always allowed", (b) => {
    const { partition } = b;
    partition.setCpuid([]);
    assertEquals(rdmsr(partition, HvMsr.SyndbgControl), undefined);
    b.peer.send(bytes("a"));
    assert(partition.hostWriteMsr(0, HvMsr.SyndbgControl, 0x0004_0003n));
    assertEquals(b.peer.pending, 0, "nothing sent");
    assertEquals(b.wire.pending, 1, "nothing received");
    assertEquals(partition.hostReadMsr(0, HvMsr.SyndbgControl), 0x0004_0003n);
    assertEquals(partition.hostReadMsr(0, HvMsr.SyndbgStatus), 0n);
    assert(partition.hostWriteMsr(0, HvMsr.SyndbgOptions, 4n));
    assertEquals(partition.hostReadMsr(0, HvMsr.SyndbgOptions), 4n);
  });

  test("reset of the machine ends the session, reset of a vCPU does not", (b) => {
    wrmsr(b.partition, HvMsr.SyndbgStatus, 1n);
    b.partition.resetVcpu(0);
    assertEquals(rdmsr(b.partition, HvMsr.SyndbgStatus), 1n);
    b.peer.send(bytes("stale"));
    b.partition.reset();
    b.memory.fill(PENDING, 1);
    for (const msr of [0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xff]) {
      assertEquals(rdmsr(b.partition, 0x40000000 + msr), 0n);
    }
    assertEquals(b.wire.pending, 0, "packets of the old session");
    b.peer.send(bytes("new"));
    assertEquals(pendingByte(b), 0, "no byte in a place from before");
  });

  test("MSR exits of a kernel are served by the same device", (b) => {
    const { partition } = b;
    b.memory.write(SEND, bytes("kern"));
    const serve = (index: number, control: bigint): bigint =>
      partition.serveSyndbgExit(
        0,
        index,
        control,
        BigInt(SEND),
        BigInt(RECV),
        BigInt(PENDING + 16),
      );
    assertEquals(serve(HvMsr.SyndbgControl, 0x4_0001n), 1n);
    assertEquals(b.peer.receive(), bytes("kern"));
    serve(HvMsr.SyndbgPendingBuffer, 0n);
    b.peer.send(bytes("back"));
    assertEquals(b.memory.bytes[PENDING + 16], 1);
    assertEquals(serve(HvMsr.SyndbgControl, 2n), 0x4_0004n);
    assertEquals(b.memory.read(RECV, 4), bytes("back"));
  });
}

Deno.test("kvm: with both bits it sends only, and a length of 0 or beyond the page goes out", () => {
  const b = ready({ profile: "kvm" });
  b.peer.send(bytes("a"));
  assertEquals(command(b, 4 << 16 | 3), 1);
  assertEquals(b.wire.pending, 1);
  assertEquals(b.peer.receive()!.length, 4);
  assertEquals(command(b, 1), 1);
  assertEquals(b.peer.receive()!.length, 0);
  assertEquals(command(b, 0xffff_0001n), 1);
  assertEquals(b.peer.receive()!.length, 65_535);
});

Deno.test("hyperv: with both bits it sends and receives", () => {
  const b = ready();
  b.memory.write(SEND, bytes("ping"));
  b.peer.send(bytes("pong!"));
  assertEquals(command(b, 4 << 16 | 3), 5 << 16 | 5);
  assertEquals(b.peer.receive(), bytes("ping"));
});

Deno.test("hyperv: a packet is 1 to 4096 bytes in one page", () => {
  const b = ready();
  assertEquals(command(b, 1), 0, "none");
  assertEquals(command(b, 0x1001_0001), 0, "4097");
  assertEquals(command(b, 0xffff_0001n), 0, "65535");
  assertEquals(command(b, 0x1000_0001), 1, "4096");
  wrmsr(b.partition, HvMsr.SyndbgSendBuffer, BigInt(SEND + 4000));
  assertEquals(command(b, 97 << 16 | 1), 0, "into the next page");
  assertEquals(command(b, 96 << 16 | 1), 1);
  assertEquals(b.peer.pending, 2);
});

Deno.test("hyperv: a receive buffer outside RAM costs no packet", () => {
  const b = ready();
  b.peer.send(bytes("kept"));
  for (const gpa of [BigInt(RAM), 1n << 60n]) {
    wrmsr(b.partition, HvMsr.SyndbgRecvBuffer, gpa);
    assertEquals(command(b, 2), 0);
    assertEquals(pendingByte(b), 1);
  }
  wrmsr(b.partition, HvMsr.SyndbgRecvBuffer, BigInt(RECV));
  assertEquals(command(b, 2), 4 << 16 | 4);
});

Deno.test("kvm: a receive buffer outside RAM costs the packet, as in QEMU", () => {
  const b = ready({ profile: "kvm" });
  b.peer.send(bytes("lost"));
  wrmsr(b.partition, HvMsr.SyndbgRecvBuffer, BigInt(RAM));
  assertEquals(command(b, 2), 0);
  assertEquals(b.wire.pending, 0);
  assertEquals(pendingByte(b), 0);
});

Deno.test("hyperv: a lost connection shows once", () => {
  const b = ready();
  b.wire.signalReset();
  assertEquals(command(b, 2), 8);
  assertEquals(command(b, 2), 0);
  b.wire.signalReset();
  b.peer.send(bytes("x"));
  assertEquals(command(b, 0), 0, "not without a command");
  assertEquals(command(b, 2), 1 << 16 | 4 | 8);
});

Deno.test("kvm: a lost connection never shows", () => {
  const b = ready({ profile: "kvm" });
  b.wire.signalReset();
  assertEquals(command(b, 2), 0);
});

Deno.test("OPTIONS says which way the VMM wants", () => {
  assertEquals(rdmsr(bench().partition, HvMsr.SyndbgOptions), 0n);
  const { partition } = bench({ mode: "hypercall" });
  assertEquals(rdmsr(partition, HvMsr.SyndbgOptions), 4n);
  wrmsr(partition, HvMsr.SyndbgOptions, 0n);
  partition.reset();
  assertEquals(rdmsr(partition, HvMsr.SyndbgOptions), 4n);
});
