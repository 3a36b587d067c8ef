import { assert, assertEquals } from "@std/assert";
import { CODE, type Debugged, debugged, finish } from "./_client.ts";

const EAX = 0, ECX = 1, EIP = 8;
/** Seconds of a test that waits for what must not come. */
const SOON = 60;

/** Where EIP is from {@linkcode CODE} on. */
async function at({ client }: Debugged): Promise<number> {
  return Number(await client.register(EIP)) - CODE;
}

/** A client that was asked which reasons of stops it knows. */
async function introduced(d: Debugged): Promise<Debugged> {
  await d.client.ask("qSupported:swbreak+;hwbreak+");
  return d;
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

const COUNT = `
  40                ; l: inc eax
  A3 00 30 00 00    ; mov [0x3000], eax
  90                ; nop
  EB F7             ; jmp l
`;
const TRAP = "T05thread:1;";
const SWBREAK = `${TRAP}swbreak:;`;
const HWBREAK = `${TRAP}hwbreak:;`;

Deno.test("the guest waits for its first client, which steps it", async () => {
  const d = debugged(COUNT);
  await pause(SOON);
  assertEquals(await d.client.ask("?"), TRAP);
  assertEquals(await at(d), 0);
  for (const next of [1, 6, 7, 0]) {
    assertEquals(await d.client.ask("vCont;s:1"), TRAP);
    assertEquals(await at(d), next);
  }
  assertEquals(await d.client.ask("s"), TRAP);
  assertEquals(await at(d), 1);
  assertEquals(await d.client.register(EAX), 2n);
  await finish(d);
});

Deno.test("a software breakpoint is hit in each turn and hidden from reads", async () => {
  const d = await introduced(debugged(COUNT));
  const { client } = d;
  assertEquals(await client.ask("Z0,100006,1"), "OK");
  assertEquals(await client.ask("Z0,100006,1"), "OK");
  assertEquals(d.machine.vm.memory.bytes[CODE + 6], 0xcc);
  assertEquals(await client.ask("m100005,3"), "0090eb");
  for (const turn of [1n, 2n, 3n]) {
    assertEquals(await client.ask("vCont;c"), SWBREAK);
    assertEquals(await at(d), 6);
    assertEquals(await client.register(EAX), turn);
  }
  // A step from it executes the guest's instruction.
  assertEquals(await client.ask("vCont;s:1"), TRAP);
  assertEquals(await at(d), 7);
  assertEquals(await client.ask("z0,100006,1"), "OK");
  assertEquals(d.machine.vm.memory.bytes[CODE + 6], 0x90);
  await finish(d);
});

Deno.test("what is written under a breakpoint is the guest's after it", async () => {
  const d = debugged(COUNT);
  const { client } = d;
  assertEquals(await client.ask("Z0,100006,1"), "OK");
  // inc ecx in place of nop
  assertEquals(await client.ask("M100006,1:41"), "OK");
  assertEquals(d.machine.vm.memory.bytes[CODE + 6], 0xcc);
  assertEquals(await client.ask("m100006,1"), "41");
  assertEquals(await client.ask("vCont;c"), TRAP);
  assertEquals(await client.ask("vCont;c"), TRAP);
  assertEquals(await client.register(ECX), 1n);
  assertEquals(await client.ask("z0,100006,1"), "OK");
  assertEquals(d.machine.vm.memory.bytes[CODE + 6], 0x41);
  await finish(d);
});

Deno.test("a breakpoint where the client moves RIP to is hit", async () => {
  const d = await introduced(debugged(COUNT));
  const { client } = d;
  assertEquals(await client.ask("Z0,100006,1"), "OK");
  assertEquals(await client.ask("c100006"), SWBREAK);
  assertEquals(await client.register(EAX), 0n);
  await finish(d);
});

Deno.test("a breakpoint where nothing is mapped is refused", async () => {
  const d = debugged(COUNT);
  assertEquals(await d.client.ask("Z0,fff00000,1"), "E1c", "no RAM");
  await finish(d);
  const long = debugged("EB FE", { mode: "long" });
  assertEquals(await long.client.ask("Z0,ffffffff80000000,1"), "E0e");
  await finish(long);
});

Deno.test("a hardware breakpoint is hit in each turn and leaves RAM alone", async () => {
  const d = await introduced(debugged(COUNT));
  const { client } = d;
  assertEquals(await client.ask("Z1,100006,1"), "OK");
  assertEquals(d.machine.vm.memory.bytes[CODE + 6], 0x90);
  for (const turn of [1n, 2n]) {
    assertEquals(await client.ask("vCont;c"), HWBREAK);
    assertEquals(await client.register(EAX), turn);
  }
  assertEquals(await client.ask("z1,100006,1"), "OK");
  await finish(d);
});

Deno.test("watchpoints stop after the access, and there are as many as debug registers", async () => {
  const d = debugged(`
    A1 00 30 00 00    ; mov eax, [0x3000]
    A3 04 30 00 00    ; mov [0x3004], eax
    A3 00 30 00 00    ; mov [0x3000], eax
    EB FE
  `);
  const { client } = d;
  assertEquals(await client.ask("Z2,3002,2"), "OK");
  assertEquals(await client.ask("Z4,3004,4"), "OK");
  assertEquals(await client.ask("Z3,3000,4"), "", "reads alone");
  assertEquals(await client.ask("vCont;c"), `${TRAP}awatch:3004;`);
  assertEquals(await at(d), 10);
  assertEquals(await client.ask("vCont;c"), `${TRAP}watch:3002;`);
  assertEquals(await at(d), 15);
  // Two registers are left: 1 + 8 bytes fit in, 1 + 8 + 1 do not.
  assertEquals(await client.ask("Z2,4007,a"), "E1c");
  assertEquals(await client.ask("Z2,4007,9"), "OK");
  assertEquals(await client.ask("Z1,5000,1"), "E1c");
  for (const bad of ["Z2,4000,0", "Z2,4000,ffffffff"]) {
    assertEquals(await client.ask(bad), "E1c", bad);
  }
  assertEquals(await client.ask("z2,4007,9"), "OK");
  assertEquals(await client.ask("Z1,5000,1"), "OK");
  await finish(d);
});

Deno.test("a breakpoint and a watchpoint on one instruction are both hit", async () => {
  const d = await introduced(debugged(COUNT));
  const { client } = d;
  assertEquals(await client.ask("Z0,100001,1"), "OK");
  assertEquals(await client.ask("Z2,3000,4"), "OK");
  assertEquals(await client.ask("vCont;c"), SWBREAK);
  assertEquals(await client.ask("vCont;c"), `${TRAP}watch:3000;`);
  assertEquals(await at(d), 6);
  await finish(d);
});

Deno.test("a range is stepped through until RIP leaves it", async () => {
  const d = debugged(COUNT);
  assertEquals(await d.client.ask("vCont;r100000,100007:1;c"), TRAP);
  assertEquals(await at(d), 7);
  assertEquals(await d.client.register(EAX), 1n);
  await finish(d);
});

Deno.test("Ctrl-C stops a guest that spins, and one that is stepped in a circle", async () => {
  const d = debugged("EB FE");
  for (const command of ["vCont;c", "vCont;r100000,100002:1"]) {
    d.client.send(command);
    await pause(SOON);
    d.client.raw("\x03");
    assertEquals(await d.client.packet(), "T02thread:1;");
    assertEquals(await at(d), 0);
  }
  await finish(d);
});

Deno.test("Ctrl-C stops a guest that is halted", async () => {
  const d = debugged("FB F4 EB FE"); // sti; hlt; jmp $
  d.client.send("vCont;c");
  await pause(SOON);
  d.client.raw("\x03");
  assertEquals(await d.client.packet(), "T02thread:1;");
  assertEquals(await at(d), 2);
  await finish(d);
});

Deno.test("a guest that halts for ever is shown, not ended", async () => {
  const d = debugged("F4"); // hlt
  d.client.send("vCont;c");
  const text = "syndbg: the guest halted with interrupts off\n";
  assertEquals(
    await d.client.packet(),
    `O${new TextEncoder().encode(text).toHex()}`,
  );
  assertEquals(await d.client.packet(), "T11thread:1;");
  assertEquals(await at(d), 1);
  await finish(d);
});

Deno.test("a triple fault is shown, and ends the run without a client", async () => {
  const d = debugged("0F 0B"); // ud2, with no IDT
  d.client.send("vCont;c");
  assert((await d.client.packet()).startsWith("O"));
  assertEquals(await d.client.packet(), "T0bthread:1;");
  assertEquals(await at(d), 0);
  await d.client.ask("D");
  assertEquals((await d.run).kind, "shutdown");
  await finish(d);
});

/** An IDT at 0x5000 whose gate `vector` leads to `handler`, and its pseudo-descriptor. */
function gate(d: Debugged, vector: number, handler: number): void {
  const { memory } = d.machine.vm;
  memory.writeU32(0x5000 + 8 * vector, (8 << 16) | (handler & 0xffff));
  memory.writeU32(0x5004 + 8 * vector, (handler & ~0xffff) | 0x8e00);
  d.machine.vcpus[0]!.setSystemRegisters({
    idt: { base: 0x5000n, limit: 0x7ff },
  });
}

Deno.test("the guest's own INT3 is the guest's while breakpoints are set", async () => {
  const d = await introduced(debugged(`
    CC    ; int3
    90    ; nop
    EB FE ; jmp $
    40    ; handler: inc eax
    CF    ; iret
  `));
  gate(d, 3, CODE + 4);
  const { client } = d;
  assertEquals(await client.ask("Z0,100001,1"), "OK");
  assertEquals(await client.ask("vCont;c"), SWBREAK);
  assertEquals(await at(d), 1);
  assertEquals(await client.register(EAX), 1n);
  // A breakpoint on it is the debugger's, and a step from it the guest's.
  assertEquals(await client.ask("Z0,100000,1"), "OK");
  assertEquals(await client.ask("c100000"), SWBREAK);
  assertEquals(await at(d), 0);
  assertEquals(await client.ask("vCont;s:1"), TRAP);
  assertEquals(await at(d), 4);
  await finish(d);
});

Deno.test("steps do not run into interrupt handlers, and a halted guest's step waits for one", async () => {
  const d = debugged(`
    FB       ; sti
    90 90 90 ; nop
    F4       ; hlt
    EB FD    ; jmp back to hlt
    40       ; handler: inc eax
    CF       ; iret
  `);
  // The timer interrupts by vector 8, where the PIC's reset state and the PC's timer have it.
  gate(d, 8, CODE + 7);
  const { ports } = d.machine;
  const out = (port: number, ...values: number[]): void =>
    values.forEach((value) => ports.write(port, 1, value));
  out(0x20, 0x11);
  out(0x21, 8, 4, 1, 0xfe);
  out(0x43, 0x34);
  out(0x40, 0, 0x10);
  const places: number[] = [];
  for (let n = 0; n < 6; n++) {
    await pause(10);
    assertEquals(await d.client.ask("vCont;s:1"), TRAP);
    places.push(await at(d));
  }
  // From HLT the step waits, and ends where the handler begins.
  assertEquals(places, [1, 2, 3, 4, 5, 7]);
  await finish(d);
});

Deno.test("a breakpoint in a segment with a base is hit at its linear address", async () => {
  const d = await introduced(debugged(
    `
    40    ; l: inc ax
    90    ; nop
    EB FC ; jmp l
  `,
    { address: 0x2_0000, mode: "real" },
  ));
  const { client } = d;
  assertEquals(await client.ask("Z0,20001,1"), "OK");
  for (const turn of [1n, 2n]) {
    // No reason: GDB would look for the breakpoint at RIP.
    assertEquals(await client.ask("vCont;c"), TRAP);
    assertEquals(await client.register(EIP), 1n);
    assertEquals(await client.register(EAX), turn);
  }
  await finish(d);
});

Deno.test("a breakpoint is not hit at another address of its byte", async () => {
  const d = await introduced(debugged(
    `
    B8 0C 00 10 40 ; mov eax, 0x4010000c
    FF E0          ; jmp rax: 1 GiB and 5 bytes on
    90 90 90 90 90 ; nop
    90             ; nop, here
    EB FE          ; jmp $
  `,
    { mode: "long" },
  ));
  const { client, machine: { vm } } = d;
  // The second GiB is the first once more.
  vm.memory.writeU64(0x6_1008, 0x6_2003n);
  assertEquals(await client.ask("Z0,10000c,1"), "OK");
  assertEquals(await client.ask("Z0,4010000d,1"), "OK");
  assertEquals(await client.ask("vCont;c"), SWBREAK);
  assertEquals(await client.register(16), 0x4010_000dn);
  await finish(d);
});
