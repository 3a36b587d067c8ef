import { assertEquals } from "@std/assert";
import { At, Machine, Sel } from "./_machine.ts";

/** Loads a segment register from AX: vector and error code, or [-1, 0]. */
function load(m: Machine, opcode: string, selector: number): [number, number] {
  m.vcpu.setRegisters({ rax: BigInt(selector) });
  m.code(`${opcode} 0F 0B`);
  const vector = m.trap();
  return vector === 6 ? [-1, 0] : [vector, m.pushed(1, 4)[0]!];
}
const DS = "8E D8", SS = "8E D0";

Deno.test("data segment loads are checked", () => {
  const user = (selector: number): [number, number] =>
    load(new Machine().user(), DS, selector);
  const kernel = (selector: number): [number, number] =>
    load(new Machine().protected(), DS, selector);
  assertEquals(kernel(Sel.data), [-1, 0]);
  assertEquals(kernel(0), [-1, 0], "null");
  assertEquals(kernel(3), [-1, 0], "null with an RPL");
  assertEquals(kernel(Sel.data | 3), [13, Sel.data], "RPL beyond DPL");
  assertEquals(kernel(Sel.code32), [-1, 0], "readable code");
  assertEquals(kernel(Sel.tss), [13, Sel.tss], "system segment");
  assertEquals(kernel(Sel.notPresent), [11, Sel.notPresent]);
  assertEquals(kernel(0x3f8), [13, 0x3f8], "empty descriptor");
  assertEquals(kernel(0xfff8), [13, 0xfff8], "beyond the GDT");
  assertEquals(kernel(0x0c), [13, 0x0c], "no LDT entry");
  assertEquals(user(Sel.data), [13, Sel.data], "DPL below CPL");
  assertEquals(user(Sel.conforming), [-1, 0], "conforming code");
});

Deno.test("stack segment loads are checked", () => {
  const kernel = (selector: number): [number, number] =>
    load(new Machine().protected(), SS, selector);
  assertEquals(kernel(Sel.data), [-1, 0]);
  assertEquals(kernel(0), [13, 0]);
  assertEquals(kernel(Sel.readOnly), [13, Sel.readOnly]);
  assertEquals(kernel(Sel.code32), [13, Sel.code32]);
  assertEquals(kernel(Sel.userData), [13, Sel.userData & ~3]);
  assertEquals(kernel(Sel.notPresent), [12, Sel.notPresent]);
  const long = new Machine().long().code("31 C0 8E D0 F4"); // a null SS in 64-bit mode
  assertEquals(long.run(), "hlt");
});

Deno.test("a load sets the accessed bit", () => {
  const m = new Machine().protected();
  m.descriptor(Sel.free, 0, 0xffff, 0x92);
  assertEquals(load(m, DS, Sel.free), [-1, 0]);
  assertEquals(m.memory.bytes[At.gdt + Sel.free + 5], 0x93);
});

Deno.test("limits: byte and page granular, expand-down", () => {
  const touch = (
    limit: number,
    access: number,
    flags: number,
    at: number,
  ): number => {
    const m = new Machine().protected();
    m.descriptor(Sel.free, 0x10_0000, limit, access, flags);
    m.vcpu.setRegisters({ rbx: BigInt(at) });
    m.code("66 B8 90 00 8E D8 8B 03 0F 0B"); // mov ax, 0x90; mov ds, ax; mov eax, [ebx]; ud2
    return m.trap();
  };
  assertEquals(touch(0xfff, 0x93, 4, 0xffc), 6);
  assertEquals(touch(0xfff, 0x93, 4, 0xffd), 13);
  assertEquals(touch(0, 0x93, 0xc, 0xffc), 6);
  assertEquals(touch(0, 0x93, 0xc, 0xffd), 13);
  assertEquals(touch(0xfff, 0x97, 4, 0xfff), 13, "expand-down");
  assertEquals(touch(0xfff, 0x97, 4, 0x1000), 6);
  assertEquals(touch(0xfff, 0x97, 0, 0xfffd), 13, "beyond 64 KiB");
  assertEquals(
    touch(0xfff, 0x99, 4, 0),
    13,
    "execute-only code cannot be loaded",
  );
});

Deno.test("writes need a writable segment, null segments none at all", () => {
  const write = (selector: number): number[] => {
    const m = new Machine().protected();
    m.vcpu.setRegisters({ rax: BigInt(selector), rbx: 0x7000n });
    m.code("8E D8 89 03 0F 0B");
    return [m.trap(), m.pushed(2, 4)[1]!];
  };
  assertEquals(write(Sel.readOnly), [13, At.code + 2]);
  assertEquals(write(0), [13, At.code + 2]);
  assertEquals(write(Sel.data)[0], 6);
});

Deno.test("POP SS moves the stack pointer by the old stack's size", () => {
  const m = new Machine().protected();
  m.code(`
    66 B8 40 00    ; mov ax, 0x40
    8E D0          ; mov ss, ax
    BC FE FF 01 00 ; mov esp, 0x0001fffe
    66 17          ; o16 pop ss
    89 E0          ; mov eax, esp
    F4             ; hlt
  `);
  m.memory.write(0xfffe, Uint8Array.of(Sel.data, 0));
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rax"), 0x1_0000);
});

Deno.test("POP of a bad selector leaves the stack pointer", () => {
  const m = new Machine().protected();
  m.code("6A 70 1F"); // push 0x70; pop ds
  assertEquals(m.trap(), 13);
  assertEquals(m.get("rsp"), At.stack - 4 - 16);
});

Deno.test("LAR, LSL, VERR and VERW", () => {
  const query = (
    code: string,
    selector: number,
    user = false,
  ): [number, number] => {
    const m = user ? new Machine().user() : new Machine().protected();
    m.vcpu.setRegisters({ rax: BigInt(selector), rbx: 0x5555n });
    m.code(`${code} 0F 94 C1 0F B6 C9 0F 0B`); // ...; setz cl; movzx ecx, cl; ud2
    m.trap();
    return [m.get("rcx"), m.get("rbx")];
  };
  const LAR = "0F 02 D8",
    LSL = "0F 03 D8",
    VERR = "0F 00 E0",
    VERW = "0F 00 E8";
  assertEquals(query(LAR, Sel.code32), [1, 0xc0_9b00]);
  assertEquals(query(LAR, Sel.tss), [1, 0x8b00]);
  assertEquals(query(LAR, 0), [0, 0x5555]);
  assertEquals(query(LAR, Sel.data, true), [0, 0x5555], "DPL below CPL");
  assertEquals(query(LAR, 0xfff8), [0, 0x5555]);
  assertEquals(query(LSL, Sel.data), [1, 0xffff_ffff]);
  assertEquals(query(LSL, Sel.tss), [1, 0x2067]);
  assertEquals(query(VERR, Sel.readOnly)[0], 1);
  assertEquals(query(VERW, Sel.readOnly)[0], 0);
  assertEquals(query(VERW, Sel.code32)[0], 0);
  assertEquals(query(VERR, Sel.tss)[0], 0);
  assertEquals(query(VERW, Sel.userData, true)[0], 1);
});

Deno.test("LLDT and the LDT's descriptors", () => {
  const m = new Machine().protected();
  m.descriptor(8, 0x7000, 0xff, 0x93, 4, At.ldt);
  m.memory.writeU32(0x7000, 0x1234);
  m.code(`
    66 B8 78 00          ; mov ax, 0x78
    0F 00 D0             ; lldt ax
    66 B8 0C 00          ; mov ax, 0x0c
    8E E0                ; mov fs, ax
    64 8B 1D 00 00 00 00 ; mov ebx, [fs:0]
    0F 00 C1             ; sldt ecx
    F4                   ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals([m.get("rbx"), m.get("rcx")], [0x1234, Sel.ldt]);
});

Deno.test("LTR marks a TSS busy and refuses a busy one", () => {
  const m = new Machine().protected().code("66 B8 70 00 0F 00 D8 0F 00 D8"); // mov ax, 0x70; ltr ax; ltr ax
  assertEquals(m.trap(), 13);
  assertEquals(m.pushed(1, 4), [Sel.task]);
  assertEquals(m.memory.bytes[At.gdt + Sel.task + 5], 0x8b);
});

Deno.test("LGDT and LIDT are for CPL 0; UMIP guards what reads them", () => {
  for (
    const code of [
      "0F 01 15 00 70 00 00",
      "0F 01 1D 00 70 00 00",
      "0F 00 D0",
      "0F 00 D8",
      "0F 01 F0",
    ]
  ) {
    assertEquals(new Machine().user().code(code).trap(), 13, code);
  }
  for (
    const code of [
      "0F 01 05 00 70 00 00",
      "0F 01 0D 00 70 00 00",
      "0F 00 C0",
      "0F 00 C8",
      "0F 01 E0",
    ]
  ) {
    assertEquals(new Machine().user().code(`${code} 0F 0B`).trap(), 6, code);
    const m = new Machine().user();
    m.vcpu.setSystemRegisters({ cr4: 0x800n });
    assertEquals(m.code(`${code} 0F 0B`).trap(), 13, code);
  }
});

Deno.test("SGDT gives back what LGDT took; a 16-bit LGDT takes 24 bits of the base", () => {
  const m = new Machine().protected();
  m.memory.write(0x7000, Uint8Array.of(0x34, 0x12, 0x78, 0x56, 0x34, 0x12));
  m.code(`
    0F 01 1D 00 70 00 00    ; lidt [0x7000]
    0F 01 0D 00 71 00 00    ; sidt [0x7100]
    66 0F 01 1D 00 70 00 00 ; o16 lidt [0x7000]
    0F 01 0D 00 72 00 00    ; sidt [0x7200]
    F4                      ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals(m.memory.read(0x7100, 6), m.memory.read(0x7000, 6));
  assertEquals(m.word(0x7202), 0x0034_5678);
});

Deno.test("ARPL raises the RPL", () => {
  const m = new Machine().protected();
  m.vcpu.setRegisters({ rax: 0x10n, rbx: 0x23n });
  m.code("63 D8 0F 94 C1 F4");
  m.run();
  assertEquals([m.get("rax"), m.get("rcx")], [0x13, 1]);
  const n = new Machine().real();
  n.code("63 D8");
  assertEquals(n.trap(), 6, "no ARPL in real mode");
});

Deno.test("unreal mode: limits stay when real mode loads a segment", () => {
  const m = new Machine().protected();
  m.memory.writeU32(0x10_0000, 0x1234_5678);
  m.code(`
    B8 10 00 00 00    ; mov eax, 0x10
    0F 22 C0          ; mov cr0, eax
    66 B8 00 00       ; mov ax, 0
    8E D8             ; mov ds, ax
    8B 1D 00 00 10 00 ; mov ebx, [0x100000]
    F4                ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rbx"), 0x1234_5678);
});
