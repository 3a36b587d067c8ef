import { assertEquals, assertThrows } from "@std/assert";
import type { CpuidEntry, SystemRegisters } from "../../core/backend.ts";
import {
  CPUID,
  dword,
  Guest,
  HLT,
  kvmTest,
  MODES,
  movEax,
  movEcx,
  NOP,
  outAl,
  RDMSR,
  WRMSR,
} from "./_kvm.ts";

const LEAF = 0x4000_0000;

function leaf(eax: number): CpuidEntry {
  return { leaf: LEAF, eax, ebx: 1, ecx: 2, edx: 3 };
}

for (const mode of MODES) {
  kvmTest("registers are those of RESET", { mode }, () => {
    using guest = new Guest({ mode });
    const { vcpu } = guest;
    guest.enter("long", NOP, HLT);
    guest.run();
    vcpu.setMsr(0x174, 5n);
    vcpu.reset();
    const registers = vcpu.getRegisters();
    const signature = guest.backend.supportedCpuid().find(({ leaf }) =>
      leaf === 1
    )!.eax;
    assertEquals(registers.rip, 0xfff0n);
    assertEquals(registers.rflags, 2n);
    assertEquals(registers.rdx, BigInt(signature));
    assertEquals(registers.rsp, 0n);
    const system = vcpu.getSystemRegisters();
    assertEquals([system.cs.selector, system.cs.base, system.cs.limit], [
      0xf000,
      0xffff_0000n,
      0xffff,
    ]);
    assertEquals([system.cr0, system.cr3, system.cr4, system.efer], [
      0x6000_0010n,
      0n,
      0n,
      0n,
    ]);
    assertEquals(vcpu.getMsr(0x174), 0n);
    assertEquals(system.apicBase & 0xfffff900n, 0xfee0_0900n);
  });

  kvmTest("registers come back as they were set", { mode }, () => {
    using guest = new Guest({ mode });
    const { vcpu } = guest;
    guest.enter("long", HLT);
    const names = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"];
    const values = Object.fromEntries([
      ...names.map((name, n) => [name, 0x1111_2222_3333_0000n + BigInt(n)]),
      ...[8, 9, 10, 11, 12, 13, 14, 15].map((n) => [`r${n}`, 1n << BigInt(n)]),
      ["rip", 0x7c00n],
      ["rflags", 0x202n],
    ]);
    vcpu.setRegisters(values);
    assertEquals({ ...vcpu.getRegisters() }, values);
    vcpu.setRegisters({ rbx: 5n });
    assertEquals({ ...vcpu.getRegisters() }, { ...values, rbx: 5n });
    const system = vcpu.getSystemRegisters();
    const changed: Partial<SystemRegisters> = {
      fs: { ...system.fs, base: 0x1234_5678_9abcn },
      gdt: { base: 0x5000n, limit: 0x7f },
      cr2: 0x1_2345_6789n,
    };
    vcpu.setSystemRegisters(changed);
    assertEquals(vcpu.getSystemRegisters(), { ...system, ...changed });
  });

  kvmTest("CR8 stays what it was set to", { mode }, () => {
    using guest = new Guest({ mode });
    guest.enter("long", 0x44, 0x0f, 0x20, 0xc0, HLT); // mov rax, cr8
    guest.vcpu.setSystemRegisters({ cr8: 6n });
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.vcpu.getRegisters().rax, 6n);
    assertEquals(guest.vcpu.getSystemRegisters().cr8, 6n);
  });

  kvmTest("CR8 is told to the host and set by it", { mode }, () => {
    using guest = new Guest({ mode });
    // mov eax, 9; mov cr8, rax; hlt
    guest.enter("long", movEax(9), 0x44, 0x0f, 0x22, 0xc0, HLT);
    const told: number[][] = [];
    Object.assign(guest.host, {
      setTaskPriority: (...args: number[]) => void told.push(args),
    });
    assertEquals(guest.run(), "hlt");
    assertEquals(told, [[0, 9]]);
    guest.enter("long", 0x44, 0x0f, 0x20, 0xc0, HLT); // mov rax, cr8
    guest.vcpu.setTaskPriority(3);
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.vcpu.getRegisters().rax, 3n);
    assertEquals(told.length, 1);
  });

  kvmTest(
    "INIT keeps MSRs, a startup IPI says where it goes on",
    { mode },
    () => {
      using guest = new Guest({ mode });
      const sysenterEip = 0x176;
      guest.enter("long", HLT);
      assertEquals(guest.run(), "hlt");
      guest.vcpu.setMsr(sysenterEip, 0x1234n);
      guest.vcpu.init();
      const { cr0, efer, cs } = guest.vcpu.getSystemRegisters();
      assertEquals([cr0 & 0x8000_0001n, efer], [0n, 0n]);
      assertEquals([cs.selector, cs.base], [0xf000, 0xffff_0000n]);
      assertEquals(guest.vcpu.getRegisters().rip, 0xfff0n);
      assertEquals(guest.vcpu.getMsr(sysenterEip), 0x1234n);
      // mov ax, cs; hlt
      guest.memory.write(0x1_2000, new Uint8Array([0x8c, 0xc8, HLT]));
      guest.vcpu.startup(0x12);
      assertEquals(guest.run(), "hlt");
      assertEquals(guest.vcpu.getRegisters().rax, 0x1200n);
    },
  );

  kvmTest("linear addresses are translated", { mode }, () => {
    using guest = new Guest({ mode });
    guest.enter("long", HLT);
    // The first page of 2 MiB lies at another place in the second.
    const tables = Number(guest.vcpu.getSystemRegisters().cr3);
    guest.memory.writeU64(tables + 0x2000 + 8, 0x83n);
    guest.memory.writeU64(tables + 0x2000 + 16, 0n);
    assertEquals(guest.vcpu.translate(0x1234n), 0x1234n);
    assertEquals(guest.vcpu.translate(0x20_1234n), 0x1234n);
    assertEquals(guest.vcpu.translate(0x40_0000n), undefined);
    assertEquals(guest.vcpu.translate(0x8000_0000_0000n), undefined);
  });

  kvmTest("a saved vCPU goes on in another VM", { mode }, () => {
    using first = new Guest({ mode });
    const sysenterEip = 0x176;
    first.enter(
      "long",
      movEcx(sysenterEip),
      movEax(0x1234),
      [0x31, 0xd2], // xor edx, edx
      WRMSR,
      [0x49, 0xc7, 0xc7, ...dword(77)], // mov r15, 77
      outAl(0x40),
      movEcx(sysenterEip),
      RDMSR,
      [0x4c, 0x01, 0xf8], // add rax, r15
      HLT,
    );
    first.host.port = () => first.vcpu.kick();
    assertEquals(first.vcpu.run(1000).reason, "interrupted");
    const state = structuredClone(first.vcpu.save());
    using second = new Guest({ mode });
    second.memory.write(0, first.memory.bytes);
    second.vcpu.restore(state);
    assertEquals(second.vcpu.getRegisters(), first.vcpu.getRegisters());
    assertEquals(
      second.vcpu.getSystemRegisters(),
      first.vcpu.getSystemRegisters(),
    );
    assertEquals(second.run(), "hlt");
    assertEquals(second.vcpu.getRegisters().rax, 0x1234n + 77n);
    // HLT is part of the state.
    second.vcpu.restore(structuredClone(second.vcpu.save()));
    assertEquals(second.run(), "hlt");
    assertThrows(
      () => second.vcpu.restore({ format: "syndbg-interpreter-1", data: {} }),
      TypeError,
      "Cannot restore vCPU",
    );
    assertThrows(
      () =>
        second.vcpu.restore({
          ...state,
          data: { ...state.data, regs: new Uint8Array(3) },
        }),
      TypeError,
    );
  });
}

kvmTest("the guest sees the leaves it was given", {}, () => {
  using guest = new Guest();
  const { vcpu, backend } = guest;
  vcpu.setCpuid([...backend.supportedCpuid(), leaf(0x4000_0082)]);
  const ask = (): bigint => {
    guest.enter("protected", movEax(LEAF), CPUID, HLT);
    assertEquals(guest.run(), "hlt");
    return vcpu.getRegisters().rax;
  };
  assertEquals(ask(), 0x4000_0082n);
  // The kernel's vCPU cannot change its leaves any more.
  vcpu.setMsr(0x174, 9n);
  vcpu.setCpuid([...backend.supportedCpuid(), leaf(0x4000_0006)]);
  assertEquals(vcpu.getMsr(0x174), 9n);
  assertEquals(ask(), 0x4000_0006n);
});

kvmTest("leaves change in the middle of an MSR write", {}, () => {
  using guest = new Guest();
  const { vcpu, backend, host } = guest;
  vcpu.setCpuid([...backend.supportedCpuid(), leaf(1)]);
  host.msrs.set(0x4000_0118, 0n);
  host.wrote = () => vcpu.setCpuid([...backend.supportedCpuid(), leaf(0x77)]);
  guest.enter(
    "long",
    movEax(LEAF),
    CPUID,
    [0x89, 0xc6], // mov esi, eax
    movEcx(0x4000_0118),
    WRMSR,
    movEax(LEAF),
    CPUID,
    HLT,
  );
  assertEquals(guest.run(), "hlt");
  const { rsi, rax, rip } = vcpu.getRegisters();
  assertEquals([rsi, rax], [1n, 0x77n]);
  assertEquals(guest.memory.read(Number(rip) - 1, 1)[0], HLT);
});

kvmTest(
  "supported leaves are none of a hypervisor, APIC or nested one",
  {},
  () => {
    using guest = new Guest();
    const leaves = guest.backend.supportedCpuid();
    const first = leaves.find((entry) => entry.leaf === 1)!;
    assertEquals(first.edx & 1 << 9, 0);
    assertEquals(first.ecx & (1 << 5 | 1 << 21 | 1 << 24), 0);
    const extended = leaves.find((entry) => entry.leaf === 0x8000_0001)!;
    assertEquals(extended.ecx & 1 << 2, 0);
    assertEquals(leaves.filter((entry) => entry.leaf >>> 16 === 0x4000), []);
  },
);
