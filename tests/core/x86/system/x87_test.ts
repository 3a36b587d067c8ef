import { assertEquals } from "@std/assert";
import { At, Machine, Sel } from "./_machine.ts";

/** CR0 bits. */
const MP = 2n, EM = 4n, TS = 8n, NE = 32n;

function withCr0(m: Machine, bits: bigint): Machine {
  const { cr0 } = m.vcpu.getSystemRegisters();
  m.vcpu.setSystemRegisters({ cr0: cr0 | bits });
  return m;
}

Deno.test("after RESET the x87 is as RESET leaves it, after FNINIT as FNINIT does", () => {
  const m = new Machine().protected();
  m.code("D9 35 00000100 DB E3 D9 35 20000100 F4");
  m.run();
  const words = (at: number): number[] =>
    Array.from({ length: 7 }, (_, n) => m.word(at + 4 * n));
  const ones = 0xffff_0000;
  // Zeros in all registers, and none empty.
  assertEquals(words(At.data), [
    ones + 0x40,
    ones,
    ones + 0x5555,
    0,
    0,
    0,
    ones,
  ]);
  assertEquals(words(At.data + 0x20), [
    ones + 0x37f,
    ones,
    ones + 0xffff,
    0,
    0,
    0,
    ones,
  ]);
});

Deno.test("CR0.EM and CR0.TS make x87 instructions unavailable before their operand is looked at", () => {
  const trap = (bits: bigint, code: string): number => {
    const m = withCr0(new Machine().long(), bits).code(code);
    return m.trap();
  };
  const far = "D9 04 25 000000F0 F4"; // fld dword [-0x10000000]
  assertEquals(trap(0n, far), 14);
  assertEquals(trap(TS, far), 7);
  assertEquals(trap(EM, far), 7);
  for (const code of ["DB E3 F4", "DF E0 F4", "DB E2 F4", "D9 3C 24 F4"]) {
    assertEquals(trap(EM, code), 7, code);
    assertEquals(trap(TS, code), 7, code);
  }
});

Deno.test("WAIT asks for CR0.MP and CR0.TS together", () => {
  const m = (bits: bigint): Machine =>
    withCr0(new Machine().protected(), bits).code("9B F4");
  for (const bits of [0n, MP, TS, EM]) {
    const machine = m(bits);
    machine.run();
    assertEquals(machine.get("rip"), At.code + 2, `${bits}`);
  }
  assertEquals(m(MP | TS).trap(), 7);
});

Deno.test("an exception that is not masked is reported by the next waiting instruction", () => {
  for (const ne of [0n, NE]) {
    const m = withCr0(new Machine().protected(), ne);
    m.memory.writeU32(At.data, 0x37b); // ZE not masked
    // fninit; fldcw [0x10000]; fldz; fld1; fdivrp; nop; fnstsw ax; fld1
    m.code("DB E3 D9 2D 00000100 D9 EE D9 E8 DE F1 90 DF E0 D9 E8 F4");
    assertEquals(m.trap(), 16);
    assertEquals(m.pushed(1, 4), [At.code + 17]);
    assertEquals(m.get("rax") & 0xffff, 0xb084);
  }
});

Deno.test("FNCLEX takes back an exception, and FLDCW brings up one that was masked", () => {
  const m = new Machine().protected();
  m.memory.writeU32(At.data, 0x37b);
  // fninit; fldz; fld1; fdivrp (masked); fldcw; fnclex; fnop; fnstsw ax
  m.code("DB E3 D9 EE D9 E8 DE F1 D9 2D 00000100 DB E2 D9 D0 DF E0 F4");
  m.run();
  assertEquals(m.get("rax") & 0xffff, 0x3800);
  const other = new Machine().protected();
  other.memory.writeU32(At.data, 0x37b);
  other.code("DB E3 D9 EE D9 E8 DE F1 D9 2D 00000100 D9 D0 F4");
  assertEquals(other.trap(), 16);
});

Deno.test("real mode's environment has linear pointers", () => {
  const m = new Machine().real();
  m.vcpu.setSystemRegisters({
    ds: { ...m.vcpu.getSystemRegisters().ds, selector: 0x1234, base: 0x12340n },
  });
  // fninit; fld dword [0x20]; fnstenv [es:0xc000], in both sizes
  m.code("DB E3 D9 06 2000 26 D9 36 00C0 26 66 D9 36 20C0 F4");
  m.run();
  const half = (at: number): number => m.memory.view.getUint16(at, true);
  const linear = 0x12360;
  assertEquals(
    [0, 2, 4, 6, 8, 10, 12].map((at) => half(0xc000 + at)),
    // FOP of D9 06 is 106.
    [
      0x37f,
      0x3800,
      0x3fff | 0x4000,
      At.code + 2,
      0x106,
      linear & 0xffff,
      0x1000,
    ],
  );
  assertEquals(
    [0, 4, 8, 12, 16, 20, 24].map((at) => m.word(0xc020 + at)),
    [
      // The first FNSTENV masked everything, which it was already.
      0xffff_037f,
      0xffff_3800,
      0xffff_7fff,
      0xffff_0000 + At.code + 2,
      0x106,
      0xffff_0000 + (linear & 0xffff),
      0x1000,
    ],
  );
});

Deno.test("FLDENV in real mode takes back what FNSTENV told", () => {
  const m = new Machine().real();
  m.code("DB E3 D9 06 2000 D9 36 00C0 DB E3 D9 26 00C0 D9 36 40C0 F4");
  m.run();
  assertEquals(
    m.memory.read(0xc040, 14),
    m.memory.read(0xc000, 14),
  );
});

Deno.test("protected mode's environment names selectors", () => {
  const m = new Machine().protected();
  m.code("DB E3 D9 05 00000100 D9 35 00010100 F4");
  m.run();
  assertEquals(m.word(At.data + 0x100 + 12), At.code + 2);
  assertEquals(m.word(At.data + 0x100 + 16), (0x105 << 16) | Sel.code32);
  assertEquals(m.word(At.data + 0x100 + 20), At.data);
  assertEquals(m.word(At.data + 0x100 + 24), 0xffff_0000 + Sel.data);
});

Deno.test("a segment's limit counts for the whole operand, and nothing changes beyond it", () => {
  const m = new Machine().protected();
  const { ds } = m.vcpu.getSystemRegisters();
  m.vcpu.setSystemRegisters({ ds: { ...ds, limit: At.data + 107, g: false } });
  m.code("DB E3 D9 E8 DD 35 00000100 F4");
  assertEquals(m.run(), "hlt");
  assertEquals(m.word(At.data), 0xffff_037f);
  const short = new Machine().protected();
  short.vcpu.setSystemRegisters({
    ds: { ...ds, limit: At.data + 106, g: false },
  });
  short.code("DB E3 D9 E8 DD 35 00000100 F4");
  assertEquals(short.trap(), 13);
  assertEquals(short.word(At.data), 0);
});

Deno.test("memory operands are aligned where alignment is checked", () => {
  const trap = (code: string): number => {
    const m = new Machine().longUser();
    const { cr0 } = m.vcpu.getSystemRegisters();
    m.vcpu.setSystemRegisters({ cr0: cr0 | 0x4_0000n });
    m.vcpu.setRegisters({ rflags: 0x4_0002n, rbx: BigInt(At.data + 4) });
    return m.code(`${code} F4`).trap();
  };
  // HLT at CPL 3 is #GP.
  assertEquals(trap("D9 03"), 13); // fld dword [rbx]
  assertEquals(trap("DD 03"), 17); // fld qword
  assertEquals(trap("DB 2B"), 17); // fld tbyte: 8 bytes
  assertEquals(trap("D9 33"), 13); // fnstenv: 4 bytes
  assertEquals(trap("D9 73 FE"), 17);
  assertEquals(trap("66 D9 73 FE"), 13); // 2 bytes
  assertEquals(trap("0F AE 43 FE"), 17); // fxsave [rbx - 2]
  assertEquals(trap("0F AE 03"), 13);
});

Deno.test("stores to a page that holds code are seen by the code", () => {
  const m = new Machine().long();
  m.memory.writeU32(At.data, 0x9090_9090);
  // fninit; fild dword [data]; fistp dword [rip + 0]; four HLTs that become NOPs; then HLT
  m.code("DB E3 DB 04 25 00000100 DB 1D 00000000 F4 F4 F4 F4 F4");
  m.run();
  assertEquals(m.get("rip"), At.code + 20);
});
