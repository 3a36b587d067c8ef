import { assertEquals, assertLess } from "@std/assert";
import { At, Machine } from "./_machine.ts";

Deno.test("a repeated read of slow memory does not stretch the slice", () => {
  // Time passes only where the guest reaches outside RAM: a microsecond each.
  const m: Machine = new Machine(() => m?.mmioReads * 1000 || 0).protected();
  m.vcpu.setRegisters({ rsi: 0xf000_0000n, rcx: 0x7fff_ffffn });
  m.code("F3 AC F4"); // rep lodsb; hlt
  assertEquals(m.vcpu.run(1).reason, "interrupted");
  assertLess(m.mmioReads, 10_000);
  assertEquals(m.get("rip"), At.code, "it goes on with the next slice");
  assertEquals(m.get("rcx"), 0x7fff_ffff - m.mmioReads);
});

Deno.test("x87 instructions, which are slow, count for more than others", () => {
  // Every look at the clock is half a slice.
  let now = 0;
  const m = new Machine(() => now += 0.5e6).protected();
  m.code("DB E3 D9 E8 40 D8 C0 EB FB"); // fninit; fld1; next: inc eax; fadd st0, st0; jmp next
  assertEquals(m.vcpu.run(1).reason, "interrupted");
  assertLess(m.get("rax"), 3000);
});

Deno.test("a kick ends a run", () => {
  const m = new Machine().protected();
  m.code("EB FE"); // jmp $
  m.vcpu.kick();
  assertEquals(m.vcpu.run(10_000).reason, "interrupted");
});

Deno.test("LOOP and JCXZ count at the address size", () => {
  const m = new Machine().protected();
  m.code(`
    B9 00 00 01 00 ; mov ecx, 0x10000
    67 E3 02       ; jcxz short_zero
    0F 0B          ; ud2
    E3 13          ; jecxz wrong
    B9 01 00 02 00 ; mov ecx, 0x20001
    67 E2 0B       ; a16 loop wrong
    89 CB          ; mov ebx, ecx
    B9 03 00 00 00 ; mov ecx, 3
    40             ; inc eax
    E2 FD          ; loop next
    F4             ; hlt
    0F 0B          ; ud2
  `);
  assertEquals(m.run(), "hlt");
  assertEquals([m.get("rbx"), m.get("rax"), m.get("rcx")], [0x2_0000, 3, 0]);
});
