import { assertEquals } from "@std/assert";
import { At, Machine, Sel } from "./_machine.ts";

const TF = 0x100;

/**
 * A machine whose #DB handler stores the return address and DR6, clears DR6, and returns;
 * {@linkcode log} reads what it stored.
 */
function logging(m: Machine): Machine {
  m.memory.write(At.idt + 8, Uint8Array.of(0, 0x60));
  m.memory.writeU32(At.data, At.data + 8);
  return m.code(
    `
    50                   ; push eax
    53                   ; push ebx
    8B 1D 00 00 01 00    ; mov ebx, [0x10000]
    8B 44 24 08          ; mov eax, [esp + 8]
    89 03                ; mov [ebx], eax
    0F 21 F0             ; mov eax, dr6
    89 43 04             ; mov [ebx + 4], eax
    83 05 00 00 01 00 08 ; add dword [0x10000], 8
    31 C0                ; xor eax, eax
    0F 23 F0             ; mov dr6, eax
    5B                   ; pop ebx
    58                   ; pop eax
    CF                   ; iret
  `,
    0x6000,
  );
}

/** Pairs of offset in the code and DR6 without its fixed bits. */
function log(m: Machine): number[][] {
  const pairs: number[][] = [];
  for (let at = At.data + 8; at < m.word(At.data); at += 8) {
    pairs.push([m.word(at) - At.code, m.word(at + 4) & 0xe00f]);
  }
  return pairs;
}

Deno.test("TF traps after the instruction that follows the one that set it", () => {
  const m = logging(new Machine().protected());
  m.code(`
    9C                   ; pushf
    81 0C 24 00 01 00 00 ; or dword [esp], 0x100
    9D                   ; popf
    90                   ; nop
    9C                   ; pushf
    81 24 24 FF FE FF FF ; and dword [esp], ~0x100
    9D                   ; popf
    90                   ; nop
    F4                   ; hlt
  `);
  assertEquals(m.run(), "hlt");
  const BS = 0x4000;
  assertEquals(log(m), [[10, BS], [11, BS], [18, BS], [19, BS]]);
});

Deno.test("TF does not trap into the handler of INT n", () => {
  const m = logging(new Machine().protected());
  m.memory.write(0x7000, Uint8Array.of(0x90, 0xcf)); // nop; iret
  m.memory.write(At.idt + 8 * 0x30, Uint8Array.of(0, 0x70));
  m.vcpu.setRegisters({ rflags: BigInt(2 | TF) });
  m.code("CD 30 90 90 0F 0B"); // int 0x30; nop; nop; ud2
  assertEquals(m.trap(), 6);
  assertEquals(log(m).map(([at]) => at), [3, 4]);
});

Deno.test("TF traps between the iterations of a repeated string instruction", () => {
  const m = logging(new Machine().protected());
  m.vcpu.setRegisters({
    rflags: BigInt(2 | TF),
    rcx: 3n,
    rdi: 0x7000n,
    rsi: 0x7100n,
  });
  m.code("F3 A4 90 0F 0B"); // rep movsb; nop; ud2
  assertEquals(m.trap(), 6);
  assertEquals(log(m).map(([at]) => at), [0, 0, 2, 3]);
});

Deno.test("a trap wakes the vCPU from HLT", () => {
  const m = logging(new Machine().protected());
  m.vcpu.setRegisters({ rflags: BigInt(2 | TF) });
  m.code("F4 90 0F 0B"); // hlt; nop; ud2
  assertEquals(m.trap(), 6);
  assertEquals(log(m).map(([at]) => at), [1, 2]);
});

Deno.test("an instruction breakpoint is a fault that RF passes once", () => {
  const m = logging(new Machine().protected());
  // The handler sets RF in the frame.
  m.code(
    `
    50                      ; push eax
    FF 05 00 00 01 00       ; inc dword [0x10000]
    0F 21 F0                ; mov eax, dr6
    A3 04 00 01 00          ; mov [0x10004], eax
    8B 44 24 04             ; mov eax, [esp + 4]
    A3 08 00 01 00          ; mov [0x10008], eax
    81 4C 24 0C 00 00 01 00 ; or dword [esp + 12], 0x10000
    58                      ; pop eax
    CF                      ; iret
  `,
    0x6000,
  );
  m.memory.writeU32(At.data, 0);
  m.code(`
    B8 15 80 00 00 ; mov eax, target
    0F 23 C0       ; mov dr0, eax
    B8 02 04 00 00 ; mov eax, 0x402
    0F 23 F8       ; mov dr7, eax
    B9 02 00 00 00 ; mov ecx, 2
    90             ; nop
    E2 FD          ; loop target
    F4             ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals(m.word(At.data), 2, "hit in each turn");
  assertEquals(m.word(At.data + 8), At.code + 21);
  assertEquals(m.word(At.data + 4), 0xffff_0ff1);
});

Deno.test("data breakpoints trap after the access", () => {
  const m = logging(new Machine().protected());
  m.code(`
    B8 04 70 00 00       ; mov eax, 0x7004
    0F 23 C8             ; mov dr1, eax
    B8 08 04 D0 00       ; mov eax, 0x00d00408 ; DR1: writes, 4 bytes
    0F 23 F8             ; mov dr7, eax
    A3 00 70 00 00       ; mov [0x7000], eax
    8B 1D 04 70 00 00    ; mov ebx, [0x7004]
    A2 03 70 00 00       ; mov [0x7003], al
    A2 07 70 00 00       ; mov [0x7007], al
    83 05 02 70 00 00 01 ; add dword [0x7002], 1
    F4                   ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals(log(m), [[37, 2], [44, 2]]);
});

Deno.test("a data breakpoint that MOV SS hits waits for one more instruction", () => {
  const m = logging(new Machine().protected());
  m.memory.writeU32(0x7000, Sel.data);
  m.code(`
    B8 00 70 00 00    ; mov eax, 0x7000
    0F 23 C0          ; mov dr0, eax
    B8 02 04 0F 00    ; mov eax, 0x000f0402 ; DR0: reads and writes
    0F 23 F8          ; mov dr7, eax
    8E 15 00 70 00 00 ; mov ss, [0x7000]
    90                ; nop
    90                ; nop
    F4                ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals(log(m), [[23, 1]]);
});

Deno.test("DR7.GD guards the debug registers", () => {
  const m = logging(new Machine().protected());
  m.code(`
    B8 00 24 00 00 ; mov eax, 0x2400
    0F 23 F8       ; mov dr7, eax
    0F 21 C3       ; mov ebx, dr0
    0F 21 F9       ; mov ecx, dr7
    F4             ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals(log(m), [[8, 0x2000]]);
  assertEquals(m.get("rcx"), 0x400);
});

Deno.test("DR4 and DR5 are DR6 and DR7 unless CR4.DE is set", () => {
  const m = new Machine().protected().code("0F 21 E8 F4"); // mov eax, dr5
  m.run();
  assertEquals(m.get("rax"), 0x400);
  const n = new Machine().protected().code("0F 21 E8");
  n.vcpu.setSystemRegisters({ cr4: 8n });
  assertEquals(n.trap(), 6);
});

Deno.test("debug registers are for CPL 0", () => {
  assertEquals(new Machine().user().code("0F 21 F0").trap(), 13);
});

Deno.test("SYSRET with TF in R11 traps at once, SYSCALL that clears it does not", () => {
  const m = new Machine().longUser();
  m.vcpu.setMsr(0xc000_0081, 0x0023_0018_0000_0000n);
  m.vcpu.setMsr(0xc000_0082, 0x6000n);
  m.vcpu.setMsr(0xc000_0084, 0x100n);
  m.memory.write(0x6000, Uint8Array.of(0x0f, 0x0b));
  m.vcpu.setRegisters({ rflags: BigInt(2 | TF) });
  m.code("0F 05");
  assertEquals(m.trap(), 6);
  assertEquals(m.pushed(1, 8), [0x6000]);

  const n = new Machine().long();
  n.vcpu.setMsr(0xc000_0081, 0x0023_0018_0000_0000n);
  n.vcpu.setRegisters({ rcx: 0x6000n, r11: 0x102n });
  n.code("48 0F 07");
  assertEquals(n.trap(), 1);
  assertEquals(n.pushed(2, 8), [0x6000, Sel.userCode64]);
});

Deno.test("the host steps without the guest seeing it", () => {
  const m = new Machine().protected().code("9C 58 40 CD 30"); // pushf; pop eax; inc eax; int 0x30
  m.vcpu.setGuestDebug({ singleStep: true });
  const stops: bigint[] = [];
  for (let n = 0; n < 4; n++) {
    const exit = m.vcpu.run(10);
    if (exit.reason !== "debug") throw new Error(exit.reason);
    assertEquals([exit.dr6 & 0x4000n, exit.breakpoint], [0x4000n, false]);
    stops.push(exit.rip);
  }
  assertEquals(
    stops.map(Number),
    [At.code + 1, At.code + 2, At.code + 3, At.handlers + 8 * 0x30],
  );
  assertEquals(m.get("rax"), 3);
  m.vcpu.setGuestDebug(undefined);
  assertEquals(m.trap(), 0x30);
});

Deno.test("a vCPU that the host steps over HLT stays halted", () => {
  const m = new Machine().protected().code("F4 40 F4");
  m.vcpu.setGuestDebug({ singleStep: true });
  assertEquals(m.vcpu.run(10).reason, "debug");
  m.vcpu.setGuestDebug(undefined);
  assertEquals(m.vcpu.run(10).reason, "hlt");
  assertEquals(m.get("rax"), 0);
});

Deno.test("the host takes INT3, with RIP at it", () => {
  const m = new Machine().protected().code("90 CC F4");
  m.vcpu.setGuestDebug({ softwareBreakpoints: true });
  const exit = m.vcpu.run(10);
  assertEquals(exit.reason, "debug");
  if (exit.reason !== "debug") return;
  assertEquals([exit.breakpoint, Number(exit.rip)], [true, At.code + 1]);
});

Deno.test("the host's breakpoint registers hide the guest's", () => {
  const m = new Machine().protected().code(`
    B8 02 04 00 00 ; mov eax, 0x402
    0F 23 F8       ; mov dr7, eax
    A3 00 70 00 00 ; mov [0x7000], eax
    90             ; nop
    F4             ; hlt
  `);
  const address = (n: number): bigint => BigInt(n);
  m.vcpu.setGuestDebug({
    hardwareBreakpoints: {
      addresses: [address(At.code + 13), address(0x7000), 0n, 0n],
      dr7: 0x00d0_040an,
    },
  });
  const first = m.vcpu.run(10);
  assertEquals(first.reason === "debug" && [first.rip, first.dr6], [
    address(At.code + 13),
    2n,
  ]);
  m.vcpu.setGuestDebug(undefined);
  assertEquals(m.run(), "hlt");
});

/** Offset in the code at which the host's debugging has stopped the vCPU. */
function stopAt(m: Machine): number {
  const exit = m.vcpu.run(10);
  if (exit.reason !== "debug") throw new Error(exit.reason);
  return Number(exit.rip);
}

Deno.test("a step of the host ends where a fault or an interrupt is handled", () => {
  const m = new Machine().protected().code("FB 90 0F 0B"); // sti; nop; ud2
  m.vcpu.setGuestDebug({ singleStep: true });
  assertEquals([stopAt(m), stopAt(m)], [At.code + 1, At.code + 2]);
  assertEquals(stopAt(m), At.handlers + 8 * 6);

  const n = new Machine().protected().code("FB 90 90 F4");
  n.vcpu.setGuestDebug({ singleStep: true });
  n.vectors.push(0x30);
  n.vcpu.setInterruptRequest(true);
  assertEquals([stopAt(n), stopAt(n)], [At.code + 1, At.code + 2]);
  assertEquals(stopAt(n), At.handlers + 8 * 0x30);
});

Deno.test("interrupts that the host blocks wait until the vCPU halts", () => {
  const m = new Machine().protected().code("FB 90 90 F4 90");
  m.vcpu.setGuestDebug({ singleStep: true, blockInterrupts: true });
  m.vectors.push(0x30);
  m.vcpu.setInterruptRequest(true);
  for (const next of [1, 2, 3, 4]) assertEquals(stopAt(m), At.code + next);
  assertEquals(stopAt(m), At.handlers + 8 * 0x30);
});

Deno.test("the guest gets its own INT3 when the host passes it", () => {
  for (const singleStep of [false, true]) {
    const m = new Machine().protected().code("90 66 CC F4"); // with a prefix
    m.vcpu.setRegisters({ rip: BigInt(At.code + 1) });
    m.vcpu.setGuestDebug({ softwareBreakpoints: true, singleStep });
    const exit = m.vcpu.run(10);
    if (exit.reason !== "debug") throw new Error(exit.reason);
    assertEquals([exit.breakpoint, Number(exit.rip)], [true, At.code + 1]);
    m.vcpu.passBreakpoint();
    if (singleStep) {
      assertEquals(stopAt(m), At.handlers + 8 * 3);
      m.vcpu.setGuestDebug(undefined);
    }
    assertEquals(m.trap(), 3);
    assertEquals(m.pushed(1, 4), [At.code + 3]);
  }
});

Deno.test("the guest's trap flag works while the host's breakpoint registers are in force", () => {
  const m = new Machine().protected().code("90 90");
  m.vcpu.setRegisters({ rflags: BigInt(2 | TF) });
  m.vcpu.setGuestDebug({
    hardwareBreakpoints: { addresses: [0x7000n, 0n, 0n, 0n], dr7: 0x402n },
  });
  assertEquals(m.trap(), 1);
  assertEquals(m.pushed(1, 4), [At.code + 1]);
});
