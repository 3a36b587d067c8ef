import { assert, assertEquals } from "@std/assert";
import { Access, At, Machine, Sel } from "./_machine.ts";

const TF = 0x100, IF = 0x200, NT = 0x4000, RF = 0x1_0000;

/** Makes a gate of the IDT reachable from CPL 3. */
function open(
  m: Machine,
  vector: number,
  access: number = Access.interruptGate,
): void {
  m.gate(
    At.idt + 8 * vector,
    Sel.code32,
    At.handlers + 8 * vector,
    access | 0x60,
  );
}

Deno.test("real mode goes through the vector table and IRET comes back", () => {
  const m = new Machine().real();
  m.memory.write(0x6000, Uint8Array.of(0x9c, 0x5b, 0xcf)); // pushf; pop bx; iret
  m.memory.writeU32(4 * 0x21, 0x6000);
  m.code(`
    FB    ; sti
    CD 21 ; int 0x21
    9C    ; pushf
    5A    ; pop dx
    F4    ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rbx") & IF, 0);
  assertEquals(m.get("rdx") & IF, IF);
});

Deno.test("a real-mode fault pushes no error code and points at the instruction", () => {
  const m = new Machine().real().code("31 C9 F7 F1"); // xor cx, cx; div cx
  assertEquals(m.trap(), 0);
  assertEquals(m.pushed(2, 2), [At.code + 2, 0]);
});

Deno.test("interrupt gates clear IF, trap gates keep it; both clear TF and NT", () => {
  for (
    const [access, flag] of [[Access.interruptGate, 0], [Access.trapGate, IF]]
  ) {
    const m = new Machine().protected();
    open(m, 0x30, access);
    m.vcpu.setRegisters({ rflags: BigInt(2 | IF | NT) });
    m.code("CD 30");
    assertEquals(m.trap(), 0x30);
    assertEquals(m.flags & (IF | NT | TF), flag);
    assertEquals(m.pushed(3, 4), [At.code + 2, Sel.code32, 2 | IF | NT]);
  }
});

Deno.test("INT n from CPL 3 switches to the TSS's stack", () => {
  const m = new Machine().user();
  open(m, 0x30);
  m.code("CD 30");
  assertEquals(m.trap(), 0x30);
  assertEquals(m.get("rsp"), At.kernelStack - 20);
  assertEquals(m.pushed(5, 4), [
    At.code + 2,
    Sel.userCode32,
    2,
    At.userStack,
    Sel.userData,
  ]);
  assertEquals(m.vcpu.getSystemRegisters().ss.selector, Sel.data);
});

Deno.test("gates are checked: DPL, presence, type, limit, target", () => {
  const error = (prepare: (m: Machine) => void): number[] => {
    const m = new Machine().user();
    prepare(m);
    m.code("CD 30");
    return [m.trap(), m.pushed(1, 4)[0]!];
  };
  const gate = (m: Machine, selector: number, access: number): void =>
    m.gate(At.idt + 8 * 0x30, selector, At.handlers + 8 * 0x30, access);
  assertEquals(error(() => {}), [13, 0x182], "DPL 0");
  assertEquals(
    error((m) => gate(m, Sel.code32, 0x6e)),
    [11, 0x182],
    "not present",
  );
  assertEquals(
    error((m) => gate(m, Sel.code32, 0xec)),
    [13, 0x182],
    "call gate",
  );
  assertEquals(error((m) => gate(m, 0, 0xee)), [13, 0], "null selector");
  assertEquals(
    error((m) => gate(m, Sel.data, 0xee)),
    [13, Sel.data],
    "no code",
  );
  assertEquals(error((m) => gate(m, 0x3f8, 0xee)), [13, 0x3f8], "free entry");
  assertEquals(
    error((m) => {
      m.descriptor(Sel.free, 0, 0xfffff, 0x1b, 0xc);
      gate(m, Sel.free, 0xee);
    }),
    [11, Sel.free],
    "code not present",
  );
  assertEquals(
    error((m) =>
      m.vcpu.setSystemRegisters({ idt: { base: BigInt(At.idt), limit: 0x17f } })
    ),
    [13, 0x182],
    "beyond the limit",
  );
  assertEquals(
    error((m) => {
      open(m, 0x30);
      m.memory.writeU32(At.tss + 8, Sel.userData);
      // The handler of #TS needs a stack of its own.
      m.task(At.handlers + 80, 0x7000);
      m.gate(At.idt + 80, Sel.task, 0, Access.taskGate);
    }),
    [10, Sel.userData & ~3],
    "SS0 with the wrong RPL",
  );
});

Deno.test("faults while an external interrupt is delivered have the EXT bit", () => {
  const m = new Machine().protected();
  m.gate(At.idt + 8 * 0x40, Sel.code32, 0x6000, 0x0e);
  m.vcpu.setRegisters({ rflags: BigInt(2 | IF) });
  m.interrupt(0x40);
  m.code("90 F4");
  assertEquals(m.trap(), 11);
  assertEquals(m.pushed(2, 4), [0x203, At.code]);
});

Deno.test("a fault while a contributory one is delivered is a double fault, then shutdown", () => {
  const m = new Machine().protected();
  m.gate(At.idt + 8 * 13, Sel.code32, 0, 0x0e); // #GP: not present
  m.code("CD 30");
  m.gate(At.idt + 8 * 0x30, 0, 0, Access.interruptGate);
  assertEquals(m.trap(), 8);
  assertEquals(m.pushed(2, 4), [0, At.code]);

  const dead = new Machine().protected();
  dead.vcpu.setSystemRegisters({ idt: { base: 0n, limit: 0 } });
  dead.code("0F 0B");
  assertEquals(dead.run(), "shutdown");
  assertEquals(dead.run(), "shutdown", "until RESET");
});

Deno.test("a benign exception whose delivery faults is no double fault", () => {
  const m = new Machine().protected();
  m.gate(At.idt + 8 * 6, Sel.code32, 0, 0x0e); // #UD: not present
  m.code("0F 0B");
  assertEquals(m.trap(), 11);
  assertEquals(m.pushed(2, 4), [6 * 8 + 3, At.code]);
});

Deno.test("faults push RF, software interrupts do not", () => {
  const m = new Machine().protected().code("0F 0B");
  assertEquals(m.trap(), 6);
  assertEquals(m.pushed(3, 4)[2]! & RF, RF);
  const n = new Machine().protected().code("CC");
  assertEquals(n.trap(), 3);
  assertEquals(n.pushed(3, 4).map((word) => word & 0xffff_ffff), [
    At.code + 1,
    Sel.code32,
    2,
  ]);
});

Deno.test("long mode aligns the stack, pushes SS:RSP always, and has ISTs", () => {
  const m = new Machine().long();
  m.vcpu.setRegisters({ rsp: BigInt(At.stack - 3) });
  m.code("CD 30");
  assertEquals(m.trap(), 0x30);
  assertEquals(m.get("rsp"), At.stack - 16 - 40);
  assertEquals(m.pushed(5, 8), [
    At.code + 2,
    Sel.code64,
    2,
    At.stack - 3,
    Sel.data,
  ]);

  const user = new Machine().longUser();
  user.gate(At.idt + 16 * 14, Sel.code64, At.handlers + 8 * 14, 0x8e, 1, true);
  user.code("8B 04 25 00 00 30 00"); // mov eax, [0x300000]
  assertEquals(user.trap(), 14);
  assertEquals(user.get("rsp"), At.ist - 48);
  assertEquals(user.pushed(6, 8), [
    4,
    At.code,
    Sel.userCode64,
    2 | RF,
    At.userStack,
    Sel.userData,
  ]);
  const { ss, cr2 } = user.vcpu.getSystemRegisters();
  assertEquals([ss.selector, cr2], [0, 0x30_0000n]);
});

Deno.test("long mode's gates lead to 64-bit code only", () => {
  const m = new Machine().long();
  m.gate(At.idt + 16 * 0x30, Sel.code32, 0x6000, 0x8e, 0, true);
  m.code("CD 30");
  assertEquals(m.trap(), 13);
  assertEquals(m.pushed(1, 8), [Sel.code32]);
});

Deno.test("a stack that is not there turns a page fault into a double fault", () => {
  const m = new Machine().long();
  m.gate(At.idt + 16 * 8, Sel.code64, At.handlers + 64, 0x8e, 1, true);
  m.vcpu.setRegisters({ rsp: 0x30_0000n });
  m.code("50"); // push rax
  assertEquals(m.trap(), 8);
  assertEquals(m.pushed(2, 8), [0, At.code]);
  assertEquals(m.get("rsp"), At.ist - 48);
  assertEquals(m.vcpu.getSystemRegisters().cr2, 0x2f_fff8n);
});

Deno.test("STI lets one instruction pass before an interrupt", () => {
  const m = new Machine().protected().code("FB 40 40 F4"); // sti; inc eax; inc eax
  m.interrupt(0x50);
  assertEquals(m.trap(), 0x50);
  assertEquals(m.get("rax"), 1);
  assertEquals(m.pushed(1, 4), [At.code + 2]);
});

Deno.test("STI and HLT cannot be separated", () => {
  const m = new Machine().protected().code("FB F4 40 F4");
  m.interrupt(0x50);
  assertEquals(m.trap(), 0x50);
  assertEquals(m.pushed(1, 4), [At.code + 2]);
  assertEquals(m.get("rax"), 0);
});

Deno.test("MOV SS and POP SS hold interrupts back for one instruction", () => {
  for (const [code, length] of [["8E D3", 2], ["17", 1]] as const) {
    const m = new Machine().protected().code(`${code} 40 40 F4`);
    m.memory.writeU32(At.stack, Sel.data);
    m.vcpu.setRegisters({ rbx: BigInt(Sel.data), rflags: BigInt(2 | IF) });
    m.vcpu.setGuestDebug({ singleStep: true });
    assertEquals(m.vcpu.run(10).reason, "debug");
    m.vcpu.setGuestDebug(undefined);
    m.interrupt(0x50);
    assertEquals(m.trap(), 0x50);
    assertEquals(m.get("rax"), 1);
    assertEquals(m.pushed(1, 4), [At.code + length + 1]);
  }
});

Deno.test("a halted vCPU wakes for an interrupt if IF is set, and for an NMI", () => {
  const m = new Machine().protected().code("F4 40 F4");
  assertEquals(m.run(), "hlt");
  m.interrupt(0x50);
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rip"), At.code + 1, "IF is clear");
  m.vcpu.injectNmi();
  assertEquals(m.trap(), 2);
});

Deno.test("an NMI waits for IRET of the one before", () => {
  const m = new Machine().protected();
  open(m, 0x50);
  m.memory.writeU32(At.idt + 16, (Sel.code32 << 16) | 0x6000);
  // The handler counts, waits for an interrupt in the middle, and returns.
  m.memory.write(0x6000, Uint8Array.of(0x43, 0xfb, 0xf4, 0xcf)); // inc ebx; sti; hlt; iret
  m.memory.write(At.handlers + 8 * 0x50, Uint8Array.of(0xcf)); // iret
  m.code("90 FA F4"); // nop; cli; hlt
  m.vcpu.injectNmi();
  assertEquals(m.run(), "hlt");
  m.vcpu.injectNmi();
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rbx"), 1, "blocked");
  m.interrupt(0x50);
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rbx"), 2, "any IRET unblocks");
});

Deno.test("an interrupt that has gone is not delivered", () => {
  const m = new Machine().protected();
  m.vcpu.setRegisters({ rflags: BigInt(2 | IF) });
  m.vcpu.setInterruptRequest(true);
  m.code("40 F4");
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rip"), At.code + 2);
});

Deno.test("INTO traps on overflow, INT1 is a #DB that any DPL allows", () => {
  const m = new Machine().user();
  open(m, 4);
  m.code("B0 7F FE C0 CE"); // mov al, 0x7f; inc al; into
  assertEquals(m.trap(), 4);
  assertEquals(m.pushed(1, 4), [At.code + 5]);
  const n = new Machine().user().code("F1");
  assertEquals(n.trap(), 1);
  assertEquals(n.pushed(1, 4), [At.code + 1]);
});

Deno.test("interrupts leave virtual-8086 mode with its segments on the stack", () => {
  const m = new Machine().protected();
  m.memory.write(0x6000, Uint8Array.of(0x0f, 0x0b));
  m.code(`
    6A 44          ; push 0x44           ; GS
    6A 33          ; push 0x33           ; FS
    6A 22          ; push 0x22           ; DS
    6A 11          ; push 0x11           ; ES
    6A 55          ; push 0x55           ; SS
    68 00 10 00 00 ; push 0x1000         ; ESP
    68 02 30 02 00 ; push 0x23002        ; EFLAGS: VM, IOPL 3
    68 00 06 00 00 ; push 0x600          ; CS
    6A 00          ; push 0              ; EIP
    CF             ; iret
  `);
  assertEquals(m.trap(), 6);
  assertEquals(
    m.pushed(9, 4),
    [0, 0x600, 0x3_3002, 0x1000, 0x55, 0x11, 0x22, 0x33, 0x44],
  );
  const { ds, es, ss, cs } = m.vcpu.getSystemRegisters();
  assertEquals([ds.selector, es.selector, ss.selector, cs.selector], [
    0,
    0,
    Sel.data,
    Sel.code32,
  ]);
  assertEquals(m.flags & 0x2_0000, 0);
});

Deno.test("virtual-8086 mode without IOPL 3 may not touch IF or interrupt", () => {
  for (const code of ["FA", "FB", "9C", "9D", "CD 21", "CF", "F4"]) {
    const m = new Machine().protected();
    m.memory.write(0x6000, Uint8Array.fromHex(code.replaceAll(" ", "")));
    m.code(`
      6A 00          ; push 0
      6A 00          ; push 0
      6A 00          ; push 0
      6A 00          ; push 0
      6A 00          ; push 0
      68 00 10 00 00 ; push 0x1000
      68 02 00 02 00 ; push 0x20002
      68 00 06 00 00 ; push 0x600
      6A 00          ; push 0
      CF             ; iret
    `);
    assertEquals(m.trap(), 13, code);
    assertEquals(m.pushed(2, 4), [0, 0], code);
  }
});

Deno.test("a task gate takes an exception in a task of its own", () => {
  const m = new Machine().protected();
  m.task(0x6000, 0x7000);
  m.memory.write(0x6000, Uint8Array.of(0xf4));
  m.gate(At.idt + 8 * 13, Sel.task, 0, Access.taskGate);
  m.code("CD 30");
  m.gate(At.idt + 8 * 0x30, 0, 0, 0x8e);
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rip"), 0x6001);
  assertEquals(m.pushed(1, 4), [0], "the error code is on the new stack");
  assertEquals(
    m.word(At.tss + 0x20),
    At.code,
    "the old task restarts the instruction",
  );
  assertEquals(m.memory.view.getUint16(At.task, true), Sel.tss);
  assert((m.flags & NT) !== 0);
});

Deno.test("a full inner stack is named in the error code of #SS", () => {
  for (const [code, ext] of [["CD 30", 0], ["0F 0B", 1]] as const) {
    const m = new Machine().user();
    open(m, 0x30);
    m.descriptor(Sel.free, 0, 0xfff, Access.data, 4);
    m.memory.writeU32(At.tss + 4, 0x2000);
    m.memory.writeU32(At.tss + 8, Sel.free);
    m.task(At.handlers + 8 * 12, 0x7000);
    m.gate(At.idt + 8 * 12, Sel.task, 0, Access.taskGate);
    m.code(code);
    assertEquals(m.trap(), 12);
    assertEquals(m.pushed(1, 4), [Sel.free | ext]);
    assertEquals(m.word(At.tss + 0x4c), Sel.userCode32, "nothing had changed");
    assertEquals(m.word(At.tss + 0x38), At.userStack);
  }
});
