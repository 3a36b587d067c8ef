import { assert, assertEquals } from "@std/assert";
import { interpreterCpuid } from "../../../../core/x86/features.ts";
import { Machine } from "./_machine.ts";

/** WRMSR: true if it went through. */
function write(
  index: number,
  value: bigint,
  m: Machine = new Machine().long(),
): boolean {
  m.vcpu.setRegisters({
    rcx: BigInt(index),
    rax: value & 0xffff_ffffn,
    rdx: value >> 32n,
  });
  m.code("0F 30 0F 0B");
  return m.trap() === 6;
}

Deno.test("bases must be canonical", () => {
  for (
    const index of [
      0x175,
      0x176,
      0xc000_0082,
      0xc000_0083,
      0xc000_0100,
      0xc000_0101,
      0xc000_0102,
    ]
  ) {
    assert(write(index, 0xffff_8000_0000_0000n), index.toString(16));
    assert(!write(index, 0x8000_0000_0000n), index.toString(16));
  }
});

Deno.test("IA32_PAT takes memory types that exist", () => {
  assert(write(0x277, 0x0007_0406_0007_0105n));
  assert(!write(0x277, 0x0007_0406_0007_0402n));
  assert(!write(0x277, 0x0300_0000_0000_0000n));
});

Deno.test("MSRs that are not the CPU's are the host's; unknown ones fault", () => {
  const m = new Machine().long();
  m.msrs.set(0x4000_0000, 7);
  assert(write(0x4000_0000, 9n, m));
  assertEquals(m.msrs.get(0x4000_0000), 9);
  const n = new Machine().long();
  n.msrs.set(0x4000_0000, 7);
  n.vcpu.setRegisters({ rcx: 0x4000_0000n, rax: -1n & 0xffff_ffff_ffff_ffffn });
  n.code("0F 32 F4");
  n.run();
  assertEquals([n.get("rax"), n.get("rdx")], [7, 0]);
  assert(!write(0x4000_0001, 0n));
  assert(!write(0xfe, 0n), "IA32_MTRRCAP is read-only");
});

Deno.test("RDMSR and WRMSR are for CPL 0", () => {
  assertEquals(new Machine().longUser().code("0F 32").trap(), 13);
  assertEquals(new Machine().longUser().code("0F 30").trap(), 13);
});

Deno.test("the TSC counts, can be set, and CR4.TSD hides it from CPL 3", () => {
  const m = new Machine().long();
  m.vcpu.setRegisters({ rcx: 0x10n, rax: 5n, rdx: 0x1234n });
  m.code("0F 30 0F 31 F4");
  m.run();
  assertEquals(m.get("rdx"), 0x1234);
  assert(m.get("rax") >= 5);
  const n = new Machine().longUser();
  assertEquals(n.code("0F 31 0F 0B").trap(), 6);
  const o = new Machine().longUser();
  o.vcpu.setSystemRegisters({ cr4: 0x24n });
  assertEquals(o.code("0F 31 0F 0B").trap(), 13);
});

Deno.test("RDTSCP and RDPID give IA32_TSC_AUX", () => {
  const m = new Machine().long();
  m.vcpu.setMsr(0xc000_0103, 0x42n);
  m.code("0F 01 F9 F3 0F C7 FB F4"); // rdtscp; rdpid rbx
  m.run();
  assertEquals([m.get("rcx"), m.get("rbx")], [0x42, 0x42]);
});

Deno.test("CPUID answers from the table, with this CPU's number, and zeros beyond it", () => {
  const ask = (leaf: number): number[] => {
    const m = new Machine().long();
    m.vcpu.setRegisters({ rax: BigInt(leaf), rcx: 0n });
    m.code("0F A2 F4");
    m.run();
    return [m.get("rax"), m.get("rbx"), m.get("rcx"), m.get("rdx")];
  };
  for (const { leaf, subleaf, eax, ebx, ecx, edx } of interpreterCpuid()) {
    if ((subleaf ?? 0) === 0) assertEquals(ask(leaf), [eax, ebx, ecx, edx]);
  }
  assertEquals(ask(0x7fff_ffff), [0, 0, 0, 0]);
  assertEquals(ask(0x8000_ffff), [0, 0, 0, 0]);
});

Deno.test("instructions that are not offered are undefined", () => {
  for (
    const code of [
      "0F 01 C8",
      "0F 01 C9",
      "0F AA",
      "0F 01 D0",
      "0F 01 D1",
      "0F 01 D8",
      "0F C7 F0",
    ]
  ) {
    assertEquals(new Machine().long().code(code).trap(), 6, code);
  }
});

Deno.test("CPL 0 instructions fault in user code", () => {
  for (
    const code of [
      "F4",
      "0F 06",
      "0F 08",
      "0F 09",
      "0F 20 C0",
      "0F 22 C0",
      "0F 21 C0",
      "0F 01 38",
      "0F 33",
    ]
  ) {
    assertEquals(new Machine().longUser().code(code).trap(), 13, code);
  }
  assertEquals(new Machine().longUser().code("0F 01 CB").trap(), 6, "STAC");
});

Deno.test("CLI, STI and POPF obey IOPL", () => {
  assertEquals(new Machine().user(0).code("FA").trap(), 13);
  assertEquals(new Machine().user(3).code("FA 0F 0B").trap(), 6);
  const m = new Machine().user(0).code("68 02 32 00 00 9D 0F 0B"); // push 0x3202; popf
  assertEquals(m.trap(), 6);
  assertEquals(m.pushed(3, 4)[2]! & 0x3200, 0);
  const n = new Machine().user(3).code("68 02 02 00 00 9D 0F 0B");
  assertEquals(n.trap(), 6);
  assertEquals(
    n.pushed(3, 4)[2]! & 0x3200,
    0x3200,
    "IF changes, IOPL does not",
  );
});
