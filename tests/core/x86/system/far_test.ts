import { assert, assertEquals } from "@std/assert";
import { Access, At, Machine, Sel } from "./_machine.ts";

const gateAt = At.gdt + Sel.gate;

/** A machine at CPL 3 with a call gate to 0x6000 at CPL 0. */
function withGate(
  parameters: number,
  access = Access.callGate | 0x60,
): Machine {
  const m = new Machine().user();
  m.gate(gateAt, Sel.code32, 0x6000, access, parameters);
  return m;
}

Deno.test("a call gate switches the stack, copies parameters, and RETF n undoes it", () => {
  const m = withGate(2);
  m.code(`
    68 11 11 00 00       ; push 0x1111
    68 22 22 00 00       ; push 0x2222
    9A 00 00 00 00 63 00 ; call 0x63:0
    89 E3                ; mov ebx, esp
    0F 0B                ; ud2
  `);
  m.code(
    `
    8B 44 24 08 ; mov eax, [esp + 8]
    8B 4C 24 0C ; mov ecx, [esp + 12]
    8C CA       ; mov edx, cs
    89 E6       ; mov esi, esp
    CA 08 00    ; retf 8
  `,
    0x6000,
  );
  assertEquals(m.trap(), 6);
  assertEquals([m.get("rax"), m.get("rcx"), m.get("rdx")], [
    0x2222,
    0x1111,
    Sel.code32,
  ]);
  assertEquals(m.get("rsi"), At.kernelStack - 24);
  assertEquals(
    m.get("rbx"),
    At.userStack,
    "parameters released on the outer stack",
  );
});

Deno.test("RETF to an outer level clears data segments that it may not use", () => {
  const m = withGate(0);
  m.code("9A 00 00 00 00 63 00 0F 0B"); // call 0x63:0; ud2
  m.code(
    `
    66 B8 10 00 ; mov ax, 0x10
    8E D8       ; mov ds, ax
    66 B8 2B 00 ; mov ax, 0x2b
    8E C0       ; mov es, ax
    CB          ; retf
  `,
    0x6000,
  );
  assertEquals(m.trap(), 6);
  const { ds, es } = m.vcpu.getSystemRegisters();
  assertEquals([ds.selector, ds.unusable, es.selector], [
    0,
    true,
    Sel.userData,
  ]);
});

Deno.test("call gates are checked", () => {
  const error = (prepare: (m: Machine) => void): number[] => {
    const m = withGate(0);
    prepare(m);
    m.code("9A 00 00 00 00 63 00");
    return [m.trap(), m.pushed(1, 4)[0]!];
  };
  const gate = (m: Machine, selector: number, access: number): void =>
    m.gate(gateAt, selector, 0x6000, access);
  assertEquals(
    error((m) => gate(m, Sel.code32, 0x8c)),
    [13, Sel.gate],
    "DPL 0",
  );
  assertEquals(
    error((m) => gate(m, Sel.code32, 0x6c)),
    [11, Sel.gate],
    "not present",
  );
  assertEquals(
    error((m) => gate(m, Sel.code32, 0xee)),
    [13, Sel.gate],
    "interrupt gate",
  );
  assertEquals(error((m) => gate(m, 0, 0xec)), [13, 0]);
  assertEquals(error((m) => gate(m, Sel.data, 0xec)), [13, Sel.data]);
  assertEquals(
    error((m) => gate(m, 0x3fc, 0xec)),
    [13, 0x3fc],
    "beyond the LDT",
  );
});

Deno.test("far jumps obey privilege; conforming code keeps the CPL", () => {
  const jump = (selector: number): [number, number] => {
    const m = new Machine().user();
    m.code(`EA 00 60 00 00 ${selector.toString(16).padStart(2, "0")} 00`);
    m.memory.write(0x6000, Uint8Array.of(0x0f, 0x0b));
    const vector = m.trap();
    return [vector, m.pushed(3, 4)[vector === 6 ? 1 : 0]!];
  };
  assertEquals(jump(Sel.code32), [13, Sel.code32]);
  assertEquals(jump(Sel.userCode32), [6, Sel.userCode32]);
  assertEquals(jump(Sel.conforming), [6, Sel.conforming | 3]);
  assertEquals(jump(Sel.data), [13, Sel.data]);
  assertEquals(jump(Sel.notPresent), [13, Sel.notPresent]);
  assertEquals(jump(0), [13, 0]);
});

Deno.test("a far jump beyond the limit leaves everything as it was", () => {
  const m = new Machine().protected();
  m.descriptor(Sel.free, 0, 0x5fff, Access.code, 4);
  m.code(`EA 00 60 00 00 ${Sel.free.toString(16)} 00`);
  assertEquals(m.trap(), 13);
  assertEquals(m.pushed(3, 4).slice(0, 3), [0, At.code, Sel.code32]);
});

Deno.test("a far call whose push faults changes nothing", () => {
  const m = new Machine().protected();
  m.descriptor(Sel.free, 0, 0xffff, Access.data, 4);
  m.memory.write(At.gdt + Sel.free, Uint8Array.of(0xff, 0x0f)); // limit 0xFFF
  m.gate(At.idt + 8 * 12, Sel.task, 0, Access.taskGate);
  m.task(At.handlers + 8 * 12, 0x7000);
  m.code(`
    66 B8 90 00          ; mov ax, 0x90
    8E D0                ; mov ss, ax
    BC 00 20 00 00       ; mov esp, 0x2000
    9A 00 60 00 00 08 00 ; call 0x08:0x6000
  `);
  assertEquals(m.trap(), 12);
  assertEquals(m.word(At.tss + 0x20), At.code + 11);
  assertEquals([m.word(At.tss + 0x38), m.word(At.tss + 0x4c)], [
    0x2000,
    Sel.code32,
  ]);
});

Deno.test("a 64-bit call gate takes RSP from the TSS and a null SS", () => {
  const m = new Machine().longUser();
  m.gate(gateAt, Sel.code64, 0x6000, 0xec, 0, true);
  m.memory.write(0x7000, Uint8Array.of(0, 0, 0, 0, 0x63, 0));
  m.code(`
    FF 1C 25 00 70 00 00 ; call dword far [0x7000]
    0F 0B                ; ud2
  `);
  m.code(
    `
    48 89 E0 ; mov rax, rsp
    8C D3    ; mov ebx, ss
    8C C9    ; mov ecx, cs
    48 CB    ; o64 retf
  `,
    0x6000,
  );
  assertEquals(m.trap(), 6);
  assertEquals([m.get("rax"), m.get("rbx"), m.get("rcx")], [
    At.kernelStack - 32,
    0,
    Sel.code64,
  ]);
  assertEquals(m.pushed(5, 8)[3], At.userStack);
});

Deno.test("IRETQ pops SS:RSP at the same level and accepts a null SS below CPL 3", () => {
  const m = new Machine().long().code(`
    6A 00          ; push 0
    68 00 70 00 00 ; push 0x7000
    68 02 40 00 00 ; push 0x4002
    6A 18          ; push 0x18
    68 15 80 00 00 ; push next
    48 CF          ; iretq
    9C             ; pushfq
    58             ; pop rax
    F4             ; hlt
  `);
  assertEquals(m.run(), "hlt");
  assertEquals([m.get("rsp"), m.get("rax")], [0x7000, 0x4002]);
  assertEquals(m.vcpu.getSystemRegisters().ss.selector, 0);
  // NT is set now: the next one faults in long mode.
  const n = new Machine().long().code("48 CF");
  n.vcpu.setRegisters({ rflags: 0x4002n });
  assertEquals(n.trap(), 13);
});

Deno.test("IRETQ checks what it returns to", () => {
  const error = (...words: number[]): number[] => {
    const m = new Machine().long();
    words.forEach((word, n) => {
      m.memory.writeU64(
        At.stack - 40 + 8 * n,
        BigInt.asUintN(64, BigInt(word)),
      );
    });
    m.vcpu.setRegisters({ rsp: BigInt(At.stack - 40) });
    m.code("48 CF");
    return [m.trap(), m.pushed(1, 8)[0]!];
  };
  assertEquals(
    error(0x6000, Sel.userCode64, 2, 0x7000, 0),
    [13, 0],
    "null SS at CPL 3",
  );
  assertEquals(error(0x6000, Sel.userCode64, 2, 0x7000, Sel.data), [
    13,
    Sel.data,
  ]);
  assertEquals(error(0x6000, 0, 2, 0x7000, Sel.data), [13, 0]);
  assertEquals(error(0x6000, Sel.data, 2, 0x7000, Sel.data), [13, Sel.data]);
  assertEquals(error(0x6000, Sel.code64 | 1, 2, 0x7000, Sel.data), [
    13,
    Sel.code64,
  ]);
  assertEquals(
    error(2 ** 47, Sel.code64, 2, 0x7000, Sel.data),
    [13, 0],
    "not canonical",
  );
});

Deno.test("IRET from CPL 3 keeps IOPL and, without IOPL, IF", () => {
  const m = new Machine().user().code(`
    68 02 32 00 00 ; push 0x3202
    6A 23          ; push 0x23
    68 0D 80 00 00 ; push next
    CF             ; iret
    0F 0B          ; ud2
  `);
  assertEquals(m.trap(), 6);
  assertEquals(m.pushed(3, 4)[2]! & 0x3200, 0);
});

Deno.test("IRET with NT goes back to the task in the link field", () => {
  const m = new Machine().protected().task(0x6000, 0x7000);
  m.memory.write(0x6000, Uint8Array.of(0xf4));
  m.descriptor(Sel.task, At.task, 103, 0x8b);
  m.memory.writeU32(At.tss, Sel.task);
  m.vcpu.setRegisters({ rflags: 0x4002n });
  m.code("CF");
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rip"), 0x6001);
  assertEquals(
    m.memory.bytes[At.gdt + Sel.tss + 5],
    0x89,
    "the old task is no longer busy",
  );
  assert((m.flags & 0x4000) === 0);
});
