import { assertEquals } from "@std/assert";
import { At, Machine, Sel } from "./_machine.ts";

const STAR = 0xc000_0081,
  LSTAR = 0xc000_0082,
  CSTAR = 0xc000_0083,
  FMASK = 0xc000_0084;
const FS_BASE = 0xc000_0100,
  GS_BASE = 0xc000_0101,
  KERNEL_GS_BASE = 0xc000_0102;

/** A machine with SYSCALL set up: kernel at 0x6000, from compatibility mode 0x6800. */
function ready(m: Machine): Machine {
  m.vcpu.setMsr(STAR, 0x001b_0018_0000_7000n);
  m.vcpu.setMsr(LSTAR, 0x6000n);
  m.vcpu.setMsr(CSTAR, 0x6800n);
  m.vcpu.setMsr(FMASK, 0x600n);
  m.memory.write(0x6000, Uint8Array.of(0xf4));
  m.memory.write(0x6800, Uint8Array.of(0xf4));
  m.memory.write(0x7000, Uint8Array.of(0xf4));
  return m;
}

Deno.test("SYSCALL saves RIP and RFLAGS and enters 64-bit code", () => {
  const m = ready(new Machine().longUser());
  m.vcpu.setRegisters({ rflags: 0xa47n });
  m.code("0F 05");
  assertEquals(m.run(), "hlt");
  assertEquals([m.get("rip"), m.get("rcx"), m.get("rsp")], [
    0x6001,
    At.code + 2,
    At.userStack,
  ]);
  assertEquals([m.vcpu.getRegisters().r11, m.flags], [0xa47n, 0x847]);
  const { cs, ss } = m.vcpu.getSystemRegisters();
  assertEquals([cs.selector, cs.l, cs.dpl, ss.selector], [0x18, true, 0, 0x20]);
});

Deno.test("SYSCALL from compatibility mode goes to CSTAR", () => {
  const m = ready(new Machine().longUser());
  m.vcpu.setSystemRegisters({
    cs: {
      ...m.vcpu.getSystemRegisters().cs,
      selector: Sel.userCode32,
      l: false,
      db: true,
    },
  });
  m.code("0F 05");
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rip"), 0x6801);
});

Deno.test("SYSRET returns to 64-bit or compatibility code", () => {
  for (
    const [code, selector] of [["48 0F 07", 0x2b], ["0F 07", 0x1b]] as const
  ) {
    const m = ready(new Machine().long());
    m.vcpu.setRegisters({ rcx: 0x7800n, r11: 0x202n });
    m.memory.write(0x7800, Uint8Array.of(0x0f, 0x0b));
    m.code(code);
    assertEquals(m.trap(), 6);
    assertEquals(m.pushed(5, 8), [0x7800, selector, 0x1_0202, At.stack, 0x23]);
  }
});

Deno.test("SYSCALL and SYSRET need EFER.SCE; SYSRET needs CPL 0 and a canonical RCX", () => {
  const m = new Machine().longUser();
  m.vcpu.setSystemRegisters({ efer: 0xd00n });
  assertEquals(m.code("0F 05").trap(), 6);
  assertEquals(ready(new Machine().longUser()).code("48 0F 07").trap(), 13);
  const n = ready(new Machine().long());
  n.vcpu.setRegisters({ rcx: 0x8000_0000_0000n });
  assertEquals(n.code("48 0F 07").trap(), 13);
});

Deno.test("SYSCALL in legacy mode, as AMD has it", () => {
  const m = ready(new Machine().user());
  m.vcpu.setSystemRegisters({ efer: 1n });
  m.vcpu.setMsr(STAR, 0x0023_0008_0000_7000n);
  m.vcpu.setRegisters({ rflags: 0x202n });
  m.code("0F 05");
  assertEquals(m.run(), "hlt");
  assertEquals([m.get("rip"), m.get("rcx"), m.flags], [0x7001, At.code + 2, 2]);
  assertEquals(m.vcpu.getSystemRegisters().cs.selector, 8);
});

Deno.test("SYSENTER and SYSEXIT", () => {
  const m = new Machine().user();
  m.vcpu.setMsr(0x174, 8n);
  m.vcpu.setMsr(0x175, BigInt(At.kernelStack));
  m.vcpu.setMsr(0x176, 0x6000n);
  m.code("0F 34");
  m.code(
    `
    8C CB          ; mov ebx, cs
    89 E6          ; mov esi, esp
    BA 00 70 00 00 ; mov edx, 0x7000
    B9 00 C0 00 00 ; mov ecx, 0xc000
    0F 35          ; sysexit
  `,
    0x6000,
  );
  m.memory.write(0x7000, Uint8Array.of(0x0f, 0x0b));
  assertEquals(m.trap(), 6);
  assertEquals([m.get("rbx"), m.get("rsi")], [8, At.kernelStack]);
  assertEquals(m.pushed(5, 4), [0x7000, 0x1b, 0x1_0002, 0xc000, 0x23]);
});

Deno.test("SYSENTER without a selector faults", () => {
  assertEquals(new Machine().user().code("0F 34").trap(), 13);
});

Deno.test("SWAPGS, RDGSBASE and WRFSBASE", () => {
  const m = new Machine().long();
  m.vcpu.setSystemRegisters({ cr4: 0x1_0020n });
  m.vcpu.setMsr(GS_BASE, 0x1_1111_1111n);
  m.vcpu.setMsr(KERNEL_GS_BASE, 0x2_2222_2222n);
  m.code(`
    0F 01 F8       ; swapgs
    F3 48 0F AE C8 ; rdgsbase rax
    BB 33 33 33 33 ; mov ebx, 0x33333333
    F3 48 0F AE D3 ; wrfsbase rbx
    F3 0F AE C1    ; rdfsbase ecx
    F4             ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rax"), 0x2_2222_2222);
  assertEquals(m.vcpu.getMsr(KERNEL_GS_BASE), 0x1_1111_1111n);
  assertEquals([m.vcpu.getMsr(FS_BASE), m.get("rcx")], [
    0x3333_3333n,
    0x3333_3333,
  ]);
});

Deno.test("FSGSBASE instructions need CR4.FSGSBASE, SWAPGS needs CPL 0", () => {
  assertEquals(new Machine().long().code("F3 48 0F AE C0").trap(), 6);
  assertEquals(new Machine().longUser().code("0F 01 F8").trap(), 13);
});

Deno.test("VMCALL and VMMCALL reach the host with the registers", () => {
  for (const code of ["0F 01 C1", "0F 01 D9"]) {
    const m = new Machine().longUser();
    m.vcpu.setRegisters({ rcx: 0x1_0000_0069n });
    let seen: unknown;
    m.onHypercall = (frame) => {
      seen = [
        frame.longMode,
        frame.protectedMode,
        frame.cpl,
        frame.gpr[2],
        frame.gpr[3],
      ];
      frame.gpr[0] = 0x1234;
      frame.gpr[1] = 1;
      return 0;
    };
    m.code(`${code} 0F 0B`);
    assertEquals(m.trap(), 6);
    assertEquals(seen, [true, true, 3, 0x69, 1]);
    assertEquals(m.get("rax"), 0x1_0000_1234);
    assertEquals(m.pushed(1, 8), [At.code + 3]);
  }
});

Deno.test("a hypercall that nobody knows is an undefined opcode, one to be retried runs again", () => {
  const m = new Machine().long().code("0F 01 C1");
  assertEquals(m.trap(), 6);
  assertEquals(m.pushed(1, 8), [At.code]);
  const n = new Machine().long().code("0F 01 C1 F4");
  let calls = 0;
  n.onHypercall = () => ++calls < 3 ? 3 : 0;
  assertEquals(n.run(), "hlt");
  assertEquals(calls, 3);
});
