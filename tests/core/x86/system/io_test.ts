import { assertEquals } from "@std/assert";
import { At, Machine, Sel } from "./_machine.ts";

Deno.test("IN and OUT of all sizes", () => {
  const m = new Machine().protected();
  m.ports.set(0x60, 0x12);
  m.ports.set(0x61, 0x3456);
  m.ports.set(0x300, 0x789a_bcde);
  m.vcpu.setRegisters({ rax: 0xffff_ffffn });
  m.code(`
    E4 60       ; in al, 0x60
    89 C3       ; mov ebx, eax
    66 E5 61    ; in ax, 0x61
    89 C1       ; mov ecx, eax
    66 BA 00 03 ; mov dx, 0x300
    ED          ; in eax, dx
    E6 80       ; out 0x80, al
    66 E7 81    ; out 0x81, ax
    EF          ; out dx, eax
    F4          ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals([m.get("rbx"), m.get("rcx"), m.get("rax")], [
    0xffff_ff12,
    0xffff_3456,
    0x789a_bcde,
  ]);
  assertEquals(m.written, [[0x80, 1, 0xde], [0x81, 2, 0xbcde], [
    0x300,
    4,
    0x789a_bcde,
  ]]);
});

/** Runs OUT DX, AL at CPL 3: whether it got through. */
function allowed(m: Machine, port: number, code = "EE"): boolean {
  m.vcpu.setRegisters({ rdx: BigInt(port) });
  m.code(`${code} 0F 0B`);
  return m.trap() === 6;
}

Deno.test("IOPL or the permission bitmap lets CPL 3 through", () => {
  const open = (...ports: number[]): Machine => {
    const m = new Machine().user();
    for (const port of ports) {
      m.memory.bytes[At.tss + 104 + (port >> 3)]! &= ~(1 << (port & 7));
    }
    return m;
  };
  assertEquals(allowed(new Machine().user(3), 0x80), true, "IOPL 3");
  assertEquals(allowed(open(), 0x80), false);
  assertEquals(allowed(open(0x80), 0x80), true);
  assertEquals(allowed(open(0x87, 0x88), 0x87, "66 EF"), true, "across bytes");
  assertEquals(allowed(open(0x87), 0x87, "66 EF"), false);
  assertEquals(allowed(open(0x80, 0x81, 0x82), 0x80, "EF"), false, "all four");
  const short = open(0x80);
  short.vcpu.setSystemRegisters({
    tr: { ...short.vcpu.getSystemRegisters().tr, limit: 104 + 0x10 },
  });
  assertEquals(
    allowed(short, 0x80),
    false,
    "the byte behind is beyond the limit",
  );
});

Deno.test("CPL 0 with any IOPL needs no bitmap", () => {
  assertEquals(allowed(new Machine().protected(), 0x80), true);
});

Deno.test("virtual-8086 mode always asks the bitmap", () => {
  const m = new Machine().protected();
  m.memory.write(0x6000, Uint8Array.of(0xe6, 0x80));
  m.code(`
    6A 00          ; push 0
    6A 00          ; push 0
    6A 00          ; push 0
    6A 00          ; push 0
    6A 00          ; push 0
    68 00 10 00 00 ; push 0x1000
    68 02 30 02 00 ; push 0x23002
    68 00 06 00 00 ; push 0x600
    6A 00          ; push 0
    CF             ; iret
  `);
  assertEquals(m.trap(), 13);
});

Deno.test("REP INS stops at a fault with count and pointer in step, and no port is read in vain", () => {
  const m = new Machine().long();
  m.memory.writeU64(m.pageEntry(0x7000), 0n);
  m.ports.set(0x300, 0x41);
  m.vcpu.setRegisters({ rdx: 0x300n, rcx: 10n, rdi: 0x6ffcn });
  m.code("F3 6C");
  assertEquals(m.trap(), 14);
  assertEquals([m.get("rcx"), m.get("rdi")], [6, 0x7000]);
  assertEquals(m.word(0x6ffc), 0x4141_4141);
  assertEquals(m.pushed(2, 8), [2, At.code]);
});

Deno.test("REP OUTS writes in order and lets interrupts in between", () => {
  const m = new Machine().protected();
  m.memory.write(0x7000, new TextEncoder().encode("abcd"));
  m.memory.write(At.handlers + 8 * 0x50, Uint8Array.of(0x43, 0xcf)); // inc ebx; iret
  m.vcpu.setRegisters({ rdx: 0xe9n, rcx: 4n, rsi: 0x7000n, rflags: 0x202n });
  m.interrupt(0x50);
  m.code("F3 6E F4");
  assertEquals(m.run(), "hlt");
  assertEquals(
    m.written.map(([, , value]) => value),
    [..."abcd"].map((c) => c.charCodeAt(0)),
  );
  assertEquals([m.get("rbx"), m.get("rcx"), m.get("rsi")], [1, 0, 0x7004]);
});

Deno.test("segments of INS and OUTS are checked", () => {
  const m = new Machine().protected();
  m.descriptor(Sel.free, 0x7000, 3, 0x93);
  m.vcpu.setRegisters({ rdx: 0xe9n, rcx: 9n });
  m.code("66 B8 90 00 8E C0 31 FF F3 6C"); // mov ax, 0x90; mov es, ax; xor edi, edi; rep insb
  assertEquals(m.trap(), 13);
  assertEquals([m.get("rcx"), m.get("rdi")], [5, 4]);
});
