import { assert, assertEquals } from "@std/assert";
import { At, Machine } from "./_machine.ts";

Deno.test("real mode switches to protected mode, long mode, and back", () => {
  const m = new Machine().real().prepareLong();
  m.memory.write(0x7000, Uint8Array.of(0xff, 0x03, 0x00, 0x10, 0, 0)); // GDTR
  m.code(`
    0F 01 16 00 70                ; lgdt [0x7000]
    0F 20 C0                      ; mov eax, cr0
    40                            ; inc ax
    0F 22 C0                      ; mov cr0, eax
    EA 11 80 08 00                ; jmp 0x08:prot
    66 B8 10 00                   ; mov ax, 0x10
    8E D8                         ; mov ds, ax
    8E D0                         ; mov ss, ax
    0F 20 E0                      ; mov eax, cr4
    0C 20                         ; or al, 0x20
    0F 22 E0                      ; mov cr4, eax
    B8 00 00 02 00                ; mov eax, 0x20000
    0F 22 D8                      ; mov cr3, eax
    B9 80 00 00 C0                ; mov ecx, 0xc0000080
    B8 00 01 00 00                ; mov eax, 0x100
    31 D2                         ; xor edx, edx
    0F 30                         ; wrmsr
    B8 11 00 00 80                ; mov eax, 0x80000011
    0F 22 C0                      ; mov cr0, eax
    0F 32                         ; rdmsr
    89 C3                         ; mov ebx, eax
    EA 4A 80 00 00 18 00          ; jmp 0x18:inlong
    48 BE F0 DE BC 9A 78 56 34 12 ; mov rsi, 0x123456789abcdef0
    0F 20 C7                      ; mov rdi, cr0
    6A 08                         ; push 0x08
    68 60 80 00 00                ; push back
    48 CB                         ; retfq
    B8 11 00 00 00                ; mov eax, 0x11
    0F 22 C0                      ; mov cr0, eax
    0F 32                         ; rdmsr
    89 C2                         ; mov edx, eax
    EA 73 80 00 00 38 00          ; jmp 0x38:bits16
    66 B8 10 00 00 00             ; mov eax, 0x10
    0F 22 C0                      ; mov cr0, eax
    EA 81 80 00 00                ; jmp 0:real
    8C CD                         ; mov bp, cs
    F4                            ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rbx"), 0x500, "LME and LMA");
  assertEquals(m.get("rdi"), 0x8000_0011);
  assertEquals(m.vcpu.getRegisters().rsi, 0x1234_5678_9abc_def0n);
  assertEquals(m.get("rdx"), 0x100, "LMA is gone with paging");
  const system = m.vcpu.getSystemRegisters();
  assertEquals([system.cs.selector, system.cr0], [0, 0x10n]);
});

Deno.test("32-bit writes clear the upper half, compatibility mode keeps r8 to r15", () => {
  const m = new Machine().long();
  m.vcpu.setRegisters({
    r8: 0x1_2345_6789n,
    rax: -1n & 0xffff_ffff_ffff_ffffn,
  });
  m.code(`
    6A 08                ; push 0x08
    48 8D 1D 03 00 00 00 ; lea rbx, [rel compat]
    53                   ; push rbx
    48 CB                ; retfq
    B8 05 00 00 00       ; mov eax, 5
    F4                   ; hlt
  `);
  m.run();
  assertEquals(m.vcpu.getRegisters().r8, 0x1_2345_6789n);
  assertEquals(m.vcpu.getRegisters().rax, 5n);
});

/** Runs MOV to a control register in 64-bit mode: the vector it ends in, or -1. */
function moveTo(m: Machine, opcode: string, value: bigint): number {
  m.vcpu.setRegisters({ rax: value, rsp: BigInt(At.stack) });
  m.code(`${opcode} F4`);
  m.run();
  const rip = m.get("rip");
  return rip >= At.code ? -1 : (rip - 1 - At.handlers) / 8;
}

Deno.test("CR0 refuses combinations that do not exist", () => {
  const cr0 = (value: bigint): number =>
    moveTo(new Machine().long(), "0F 22 C0", value);
  assertEquals(cr0(0x8001_0011n), -1);
  assertEquals(cr0(0x8001_0010n), 13, "PG without PE");
  assertEquals(cr0(0x0001_0011n), 13, "PG cleared in 64-bit mode");
  assertEquals(cr0(0xa001_0011n), 13, "NW without CD");
  assertEquals(cr0(0x1_8001_0011n), 13, "upper half");
  assertEquals(cr0(0x8001_0011n | 0x1ff8_0000n & ~0x4_0000n), -1, "reserved");
});

Deno.test("CR4, CR3, CR8 and EFER refuse reserved bits", () => {
  const to = (opcode: string, value: bigint): number =>
    moveTo(new Machine().long(), opcode, value);
  assertEquals(to("0F 22 E0", 0xa0n), -1, "PAE and PGE");
  assertEquals(to("0F 22 E0", 0x80n), 13, "PAE cleared in long mode");
  assertEquals(to("0F 22 E0", 0x1020n), 13, "LA57 is not offered");
  assertEquals(to("0F 22 E0", 0x1_0000_0020n), 13);
  assertEquals(to("0F 22 D8", 0x1_0000_0002_0000n), 13, "beyond MAXPHYADDR");
  assertEquals(to("44 0F 22 C0", 15n), -1);
  assertEquals(to("44 0F 22 C0", 16n), 13);
  assertEquals(to("0F 22 C8", 0n), 6, "CR1");
  assertEquals(to("B9 80 00 00 C0 31 D2 0F 30", 0x801n), 13, "LME cleared");
  assertEquals(to("B9 80 00 00 C0 31 D2 0F 30", 0xd03n), 13, "bit 1");
  assertEquals(to("B9 80 00 00 C0 31 D2 0F 30", 0xd00n), -1);
});

Deno.test("PCIDs need long mode and an empty CR3 field", () => {
  assertEquals(moveTo(new Machine().long(), "0F 22 E0", 0x2_0020n), -1);
  const m = new Machine().long();
  m.vcpu.setSystemRegisters({ cr4: 0x2_0020n });
  assertEquals(moveTo(m, "0F 22 D8", 0x8000_0000_0002_0123n), -1);
  assertEquals(m.vcpu.getSystemRegisters().cr3, 0x2_0123n);
  const other = new Machine().long();
  other.vcpu.setSystemRegisters({ cr3: 0x2_0008n });
  assertEquals(moveTo(other, "0F 22 E0", 0x2_0020n), 13);
  const legacy = new Machine().protected();
  assertEquals(moveTo(legacy, "0F 22 E0", 0x2_0000n), 13);
});

Deno.test("LMSW sets PE and never clears it, CLTS clears TS", () => {
  const m = new Machine().protected().code(`
    B8 0E 00 00 00 ; mov eax, 0x0e
    0F 01 F0       ; lmsw ax
    0F 01 E3       ; smsw ebx
    0F 06          ; clts
    0F 01 E1       ; smsw ecx
    F4             ; hlt
  `);
  m.run();
  assertEquals([m.get("rbx"), m.get("rcx")], [0x1f, 0x17]);
});

Deno.test("control registers ignore ModRM.mod", () => {
  const m = new Machine().long().code("0F 20 03 0F 20 44 F4");
  m.run();
  assertEquals(m.get("rbx"), 0x8001_0011);
  assertEquals(m.get("rsp"), 0x8001_0011);
});

Deno.test("RESET leaves what the SDM says", () => {
  const m = new Machine();
  const r = m.vcpu.getRegisters(), s = m.vcpu.getSystemRegisters();
  assertEquals([r.rip, r.rflags, r.rax, r.rsp], [0xfff0n, 2n, 0n, 0n]);
  assertEquals([s.cs.selector, s.cs.base, s.cs.limit], [
    0xf000,
    0xffff_0000n,
    0xffff,
  ]);
  assertEquals([s.cr0, s.cr3, s.cr4, s.efer], [0x6000_0010n, 0n, 0n, 0n]);
  assertEquals([s.idt.limit, s.gdt.limit], [0xffff, 0xffff]);
  assert(s.tr.present && s.tr.type === 11);
  m.long();
  m.vcpu.reset();
  assertEquals(m.vcpu.getSystemRegisters(), s);
});
