import { assert, assertEquals, assertMatch } from "@std/assert";
import { AMD64, I386, I8086 } from "../../../core/gdb/registers.ts";
import { CODE, debugged, finish, GdbClient } from "./_client.ts";

const SPIN = "EB FE";
const EAX = 0, EIP = 8, EFLAGS = 9, CS = 10, ST0 = 16, CR0 = 32;

/** Little-endian digits, as GDB has registers. */
function word(value: number): string {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes.toHex();
}

Deno.test("a client is told what the stub can do", async () => {
  const d = debugged(SPIN);
  const features = (await d.client.ask("qSupported:swbreak+;xmlRegisters=i386"))
    .split(";");
  for (
    const feature of [
      "PacketSize=4000",
      "qXfer:features:read+",
      "QStartNoAckMode+",
      "swbreak+",
      "hwbreak+",
    ]
  ) assert(features.includes(feature), feature);
  assertEquals(await d.client.ask("vCont?"), "vCont;c;C;s;S;t;r");
  assertEquals(await d.client.ask("qAttached"), "1");
  for (const unknown of ["vMustReplyEmpty", "qTStatus", "!", "QNonStop:1"]) {
    assertEquals(await d.client.ask(unknown), "", unknown);
  }
  await finish(d);
});

Deno.test("a packet is acknowledged, a damaged one asked for again, an answer repeated", async () => {
  const d = debugged(SPIN);
  const { client } = d;
  client.raw("$qC#b4");
  assertEquals(await client.next(), { kind: "ack" });
  assertEquals(await client.next(), { kind: "packet", data: "QC1" });
  client.raw("-");
  assertEquals(await client.next(), { kind: "packet", data: "QC1" });
  client.raw("+$qC#b5");
  assertEquals(await client.next(), { kind: "nack" });
  assertEquals(await client.ask("QStartNoAckMode"), "OK");
  client.acks = false;
  client.raw("$qC#b5$qC#b4");
  assertEquals(await client.next(), { kind: "packet", data: "QC1" });
  await finish(d);
});

Deno.test("the target description comes in pieces and fits the mode of the CPU", async () => {
  const d = debugged(SPIN);
  const read = async (client: GdbClient): Promise<string> => {
    let text = "";
    for (;;) {
      const part = await client.ask(
        `qXfer:features:read:target.xml:${text.length.toString(16)},200`,
      );
      text += part.slice(1);
      if (part[0] === "l") return text;
    }
  };
  assertEquals(await read(d.client), I386.xml);
  assertEquals(
    await d.client.ask("qXfer:features:read:other.xml:0,fff"),
    "E00",
  );
  await finish(d);
  const real = debugged(SPIN, { address: 0x7c00, mode: "real" });
  assertEquals(await read(real.client), I8086.xml);
  await finish(real);
  const wide = debugged(SPIN, {}, { amd64: true });
  assertEquals(await read(wide.client), AMD64.xml);
  await finish(wide);
  const long = debugged(SPIN, { mode: "long" });
  assertEquals(await read(long.client), AMD64.xml);
  await finish(long);
});

Deno.test("registers are read and written, one and all", async () => {
  const d = debugged(SPIN);
  const { client } = d;
  assertEquals(await client.register(EIP), BigInt(CODE));
  assertEquals(await client.register(CS), 8n);
  assertEquals(await client.register(CR0), 0x11n);
  assertEquals(await client.ask(`p${ST0.toString(16)}`), "x".repeat(20));
  assertEquals(await client.ask("P0=78563412"), "OK");
  assertEquals(await client.register(EAX), 0x1234_5678n);
  const all = await client.ask("g");
  assertEquals(all.slice(0, 8), "78563412");
  assertEquals(all.slice(8 * EIP, 8 * EIP + 8), word(CODE));
  // GDB sends zeros for what it does not know.
  const changed = `ffffffff${all.slice(8).replaceAll("x", "0")}`;
  assertEquals(await client.ask(`G${changed}`), "OK");
  assertEquals(await client.register(EAX), 0xffff_ffffn);
  assertEquals(await client.register(EIP), BigInt(CODE));
  assertEquals(
    await client.ask(`P${EFLAGS.toString(16)}=${word(0x203)}`),
    "OK",
  );
  assertEquals(d.machine.vcpus[0]!.getRegisters().rflags, 0x203n);
  for (
    const bad of ["pff", "Pff=00", "P0=00", "P0=zzzzzzzz", "P10=00", "G00", "P"]
  ) assertEquals(await client.ask(bad), "E16", bad);
  // A selector alone does not make a segment.
  assertEquals(await client.ask(`P${CS.toString(16)}=${word(16)}`), "E16");
  await finish(d);
});

Deno.test("a segment register that is written in real mode gets its base", async () => {
  const d = debugged(SPIN, { address: 0x7c00, mode: "real" });
  const DS = 12;
  assertEquals(await d.client.ask(`P${DS.toString(16)}=${word(0x1234)}`), "OK");
  const { ds } = d.machine.vcpus[0]!.getSystemRegisters();
  assertEquals([ds.selector, ds.base], [0x1234, 0x1_2340n]);
  await finish(d);
});

Deno.test("64-bit registers have all their bits in 64-bit code", async () => {
  const d = debugged(SPIN, { mode: "long" });
  const RBX = 1, R15 = 15, FS_BASE = 40, K_GS_BASE = 42;
  assertEquals(await d.client.ask(`P${RBX}=8877665544332211`), "OK");
  assertEquals(
    await d.client.ask(`P${R15.toString(16)}=0100000000000080`),
    "OK",
  );
  assertEquals(
    await d.client.ask(`P${FS_BASE.toString(16)}=0000000080ffffff`),
    "OK",
  );
  assertEquals(
    await d.client.ask(`P${K_GS_BASE.toString(16)}=0010000000000000`),
    "OK",
  );
  const vcpu = d.machine.vcpus[0]!;
  const { rbx, r15 } = vcpu.getRegisters();
  assertEquals([rbx, r15], [0x1122_3344_5566_7788n, 0x8000_0000_0000_0001n]);
  assertEquals(vcpu.getSystemRegisters().fs.base, 0xffff_ff80_0000_0000n);
  assertEquals(vcpu.getMsr(0xc000_0102), 0x1000n);
  assertEquals(await d.client.register(RBX), rbx);
  await finish(d);
});

Deno.test("memory is read and written as digits and as bytes", async () => {
  const d = debugged(SPIN);
  const { client } = d;
  const { memory } = d.machine.vm;
  assertEquals(await client.ask("m100000,2"), "ebfe");
  assertEquals(await client.ask("M3000,3:0a0b0c"), "OK");
  assertEquals(await client.ask("X3003,4:#$}*"), "OK");
  assertEquals(await client.ask("X3000,0:"), "OK");
  assertEquals(await client.ask("m3000,7"), "0a0b0c23247d2a");
  assertEquals(memory.read(0x3000, 7).toHex(), "0a0b0c23247d2a");
  // The end of RAM, and beyond.
  assertEquals(await client.ask("m1ffffe,10"), "0000");
  assertEquals(await client.ask("m1ffff0,100"), "00".repeat(16));
  assertEquals(await client.ask("m200000,1"), "E0e");
  assertEquals(await client.ask("mffffffffffffffff,8"), "E0e");
  assertEquals(await client.ask("M1fffff,2:0102"), "E0e");
  assertEquals(memory.bytes[0x1f_ffff], 0);
  for (const bad of ["m", "m0", "mx,1", "M0,2:00", "M0,1:0", "X0,2:a"]) {
    assertEquals(await client.ask(bad), "E16", bad);
  }
  assertEquals((await client.ask("m0,ffffffff")).length, 0x4000);
  await finish(d);
});

Deno.test("addresses are translated, or not, as QEMU's physical mode says", async () => {
  const d = debugged(SPIN, { mode: "long" });
  const { client } = d;
  const { memory } = d.machine.vm;
  // A second page table maps 512 GiB to a 2 MiB page at 0.
  memory.writeU64(0x6_0008, 0x6_1003n);
  memory.write(0x2000, Uint8Array.of(1, 2, 3));
  assertEquals(await client.ask("m8000002000,3"), "010203");
  assertEquals(await client.ask("M8000002001,1:ff"), "OK");
  assertEquals(memory.bytes[0x2001], 0xff);
  assertEquals(await client.ask("m800000000000,1"), "E0e", "not canonical");
  assertEquals(await client.ask("qqemu.PhyMemMode"), "0");
  assertEquals(await client.ask("Qqemu.PhyMemMode:1"), "OK");
  assertEquals(await client.ask("qqemu.PhyMemMode"), "1");
  assertEquals(await client.ask("m8000002000,3"), "E0e");
  assertEquals(await client.ask("m2000,3"), "01ff03");
  assertEquals(await client.ask("Qqemu.PhyMemMode:0"), "OK");
  assertEquals(await client.ask("m8000002000,3"), "01ff03");
  await finish(d);
});

Deno.test("monitor commands print, in as many packets as it takes", async () => {
  const d = debugged(SPIN, {}, {
    monitor: (command, vcpu) => `${command} ${vcpu.id} `.repeat(2000),
  });
  d.client.send(`qRcmd,${new TextEncoder().encode("hi").toHex()}`);
  let text = "";
  for (;;) {
    const part = await d.client.packet();
    if (part === "OK") break;
    assertMatch(part, /^O([0-9a-f]{2})+$/);
    assert(part.length <= 0x4000);
    text += new TextDecoder().decode(Uint8Array.fromHex(part.slice(1)));
  }
  assertEquals(text, "hi 0 ".repeat(2000));
  assertEquals(await d.client.ask("qRcmd,0"), "E16");
  await finish(d);
});

Deno.test("detach lets the guest run, and kill ends its run", async () => {
  const d = debugged("FE 05 00 30 00 00 EB F8"); // l: inc byte [0x3000]; jmp l
  assertEquals(await d.client.ask("Z0,100000,1"), "OK");
  assertEquals(await d.client.ask("D"), "OK");
  await d.client.served;
  assertEquals(d.machine.vm.memory.bytes[CODE], 0xfe);
  const again = new GdbClient(d.stub);
  assertEquals(await again.ask("?"), "T05thread:1;");
  assertEquals(await again.ask("vKill;1"), "OK");
  assertEquals((await d.run).kind, "aborted");
  await again.served;
  await finish(d);
});

Deno.test("a client that hangs up leaves a stopped guest stopped, without breakpoints", async () => {
  const d = debugged(SPIN);
  assertEquals(await d.client.ask("Z0,100000,1"), "OK");
  await d.client.close();
  assertEquals(d.machine.vm.memory.bytes[CODE], 0xeb);
  assert(d.machine.debugger!.holds(d.machine.vcpus[0]!));
  const again = new GdbClient(d.stub);
  again.send("vCont;c");
  assertEquals(await again.next(), { kind: "ack" });
  await again.close();
  assert(!d.machine.debugger!.holds(d.machine.vcpus[0]!), "it ran");
  await finish(d);
});

Deno.test("the end of the run is told as a process's exit", async () => {
  const d = debugged("B0 03 E6 F4"); // mov al, 3; out 0xf4, al
  d.client.send("vCont;c");
  const outcome = await d.run;
  assertEquals(outcome, { kind: "exit", code: 7 });
  const told = d.stub.ended(7);
  assertEquals(await d.client.packet(), "W07");
  await told;
  await finish(d);
});

Deno.test("a stub serves one client at a time", async () => {
  const d = debugged(SPIN);
  assert(d.stub.busy);
  const { served } = new GdbClient(d.stub);
  assertEquals(
    await served.catch((error) => error.message),
    "Cannot serve GDB: a client is there",
  );
  await finish(d);
});
