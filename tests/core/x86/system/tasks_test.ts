import { assertEquals } from "@std/assert";
import { Access, At, Machine, Sel } from "./_machine.ts";

/** Access byte of a descriptor of the GDT. */
function access(m: Machine, selector: number): number {
  return m.memory.bytes[At.gdt + selector + 5]!;
}

const NT = 0x4000, TS = 8n;
const JMP = "EA 00 00 00 00 70 00";
const CALL = "9A 00 00 00 00 70 00";

Deno.test("JMP to a TSS saves one task and loads the other", () => {
  const m = new Machine().protected().task(0x6000, 0x7000, 0x803);
  m.memory.writeU32(At.task + 0x28, 0x1234_5678);
  m.memory.write(0x6000, Uint8Array.of(0xf4));
  m.vcpu.setRegisters({ rbx: 0xb0bn });
  m.code(`${JMP} F4`);
  assertEquals(m.run(), "hlt");
  assertEquals([m.get("rip"), m.get("rsp"), m.get("rax")], [
    0x6001,
    0x7000,
    0x1234_5678,
  ]);
  assertEquals(m.flags, 0x803);
  assertEquals([m.word(At.tss + 0x20), m.word(At.tss + 0x34)], [
    At.code + 7,
    0xb0b,
  ]);
  assertEquals([access(m, Sel.tss), access(m, Sel.task)], [0x89, 0x8b]);
  const { tr, cr0 } = m.vcpu.getSystemRegisters();
  assertEquals([tr.selector, cr0 & TS], [Sel.task, TS]);
});

Deno.test("CALL nests: link, NT, both busy; IRET comes back", () => {
  const m = new Machine().protected().task(0x6000, 0x7000);
  m.code(
    `
    9C                ; pushf
    8F 05 00 00 01 00 ; pop dword [0x10000]
    CF                ; iret
    F4                ; hlt
  `,
    0x6000,
  );
  m.code(`${CALL} 40 F4`);
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rip"), At.code + 9);
  assertEquals(m.word(At.data) & NT, NT);
  assertEquals(m.memory.view.getUint16(At.task, true), Sel.tss);
  assertEquals([access(m, Sel.tss), access(m, Sel.task)], [0x8b, 0x89]);
  assertEquals(
    m.word(At.task + 0x20),
    0x6008,
    "the nested task goes on after its IRET",
  );
  assertEquals(m.word(At.task + 0x24) & NT, 0);
});

Deno.test("a busy task cannot be called, a short TSS is invalid", () => {
  const m = new Machine().protected().task(0x6000, 0x7000);
  m.descriptor(Sel.task, At.task, 103, 0x8b);
  m.code(CALL);
  assertEquals(m.trap(), 13);
  assertEquals(m.frame().slice(0, 2), [Sel.task, At.code]);
  const n = new Machine().protected().task(0x6000, 0x7000);
  n.descriptor(Sel.task, At.task, 102, 0x89);
  n.code(CALL);
  assertEquals(n.trap(), 10);
  assertEquals(n.frame().slice(0, 2), [Sel.task, At.code]);
});

Deno.test("a bad segment faults in the new task, before its first instruction", () => {
  const m = new Machine().protected().task(0x6000, 0x7000);
  m.memory.writeU32(At.task + 0x54, Sel.notPresent); // DS
  m.code(JMP);
  assertEquals(m.trap(), 11);
  assertEquals(m.frame(), [Sel.notPresent, 0x6000, Sel.code32]);
  assertEquals(m.vcpu.getSystemRegisters().tr.selector, Sel.task);
});

Deno.test("the T flag traps on entry to the task", () => {
  const m = new Machine().protected().task(0x6000, 0x7000);
  m.memory.writeU32(At.task + 100, (104 << 16) | 1);
  m.code(JMP);
  m.code("0F 21 F0 F4", At.handlers + 8); // mov eax, dr6; hlt
  m.memory.write(At.idt + 8, Uint8Array.of(0x08, 0x40));
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rax"), 0xffff_8ff0);
  assertEquals(m.pushed(1, 4), [0x6000]);
});

Deno.test("a 16-bit TSS", () => {
  const m = new Machine().protected();
  m.descriptor(Sel.task, At.task, 43, Access.tss16);
  m.memory.fill(At.task, 44);
  const words = [
    [14, 0x6000],
    [16, 2],
    [18, 0x1111],
    [26, 0x7000],
    [34, Sel.data],
    [36, Sel.code16],
    [38, Sel.data16],
    [40, Sel.data],
  ];
  for (const [at, value] of words) {
    m.memory.write(At.task + at!, Uint8Array.of(value! & 255, value! >> 8));
  }
  m.memory.write(0x6000, Uint8Array.of(0xf4));
  m.code(JMP);
  assertEquals(m.run(), "hlt");
  assertEquals([m.get("rip"), m.get("rax") & 0xffff, m.get("rsp") & 0xffff], [
    0x6001,
    0x1111,
    0x7000,
  ]);
  const { fs, cs } = m.vcpu.getSystemRegisters();
  assertEquals([fs.selector, cs.db], [0, false]);
});

Deno.test("a task switch changes the LDT and CR3, and clears local breakpoints", () => {
  const m = new Machine().protected().task(0x6000, 0x7000);
  m.memory.writeU32(At.task + 0x60, Sel.ldt);
  m.memory.writeU32(At.task + 0x1c, 0x5000);
  m.memory.write(
    0x6000,
    Uint8Array.of(0x0f, 0x21, 0xf8, 0x0f, 0x00, 0xc3, 0xf4),
  ); // mov eax, dr7; sldt bx
  // Paging on: one page directory with a 4 MiB page, at 0x5000 for both tasks.
  m.memory.writeU32(0x5000, 0x83);
  m.memory.writeU32(0x3000 + 0x1c, 0x5000);
  m.vcpu.setSystemRegisters({ cr0: 0x8000_0011n, cr3: 0x5000n, cr4: 0x10n });
  m.code(`
    B8 03 05 00 00       ; mov eax, 0x503
    0F 23 F8             ; mov dr7, eax
    EA 00 00 00 00 70 00 ; jmp 0x70:0
  `);
  assertEquals(m.run(), "hlt");
  assertEquals([m.get("rax"), m.get("rbx")], [0x402, Sel.ldt]);
  assertEquals(m.vcpu.getSystemRegisters().ldt.base, BigInt(At.ldt));
});
