import { assertEquals } from "@std/assert";
import { Machine } from "./_machine.ts";

const P = 1, W = 2, U = 4, RSVD = 8, I = 16;
const PAGE = 0x7000;
const NX = 0x8000_0000;

/** A machine in long mode with the entry of {@linkcode PAGE} changed. */
function mapped(low: number, high = 0, user = false): Machine {
  const m = user ? new Machine().longUser() : new Machine().long();
  m.memory.writeU32(m.pageEntry(PAGE), low);
  m.memory.writeU32(m.pageEntry(PAGE) + 4, high);
  return m;
}

const READ = "8B 04 25 00 70 00 00", WRITE = "89 04 25 00 70 00 00";
const JUMP = "B8 00 70 00 00 FF E0";

/** Runs code: the page fault's error code, or -1. */
function fault(m: Machine, code: string): number {
  m.code(`${code} 0F 0B`);
  m.memory.write(PAGE, Uint8Array.of(0x0f, 0x0b));
  if (m.trap() !== 14) return -1;
  assertEquals(m.vcpu.getSystemRegisters().cr2, BigInt(PAGE));
  return m.pushed(1, 8)[0]!;
}

Deno.test("page faults say what was wrong", () => {
  assertEquals(fault(mapped(0), READ), 0);
  assertEquals(fault(mapped(0), WRITE), W);
  assertEquals(fault(mapped(0, 0, true), READ), U);
  assertEquals(fault(mapped(0, 0, true), JUMP), U | I);
  assertEquals(fault(mapped(PAGE | 3, 0, true), READ), P | U);
  assertEquals(fault(mapped(PAGE | 5, 0, true), WRITE), P | W | U);
  assertEquals(fault(mapped(PAGE | 5, 0, true), READ), -1);
  assertEquals(fault(mapped(PAGE | 7, NX), JUMP), P | I);
  assertEquals(fault(mapped(PAGE | 7, NX), READ), -1);
  assertEquals(
    fault(mapped(PAGE | 7, 0x100), READ),
    P | RSVD,
    "beyond MAXPHYADDR",
  );
});

Deno.test("NX is a reserved bit without EFER.NXE", () => {
  const m = mapped(PAGE | 7, NX);
  m.vcpu.setSystemRegisters({ efer: 0x501n });
  assertEquals(fault(m, READ), P | RSVD);
});

Deno.test("CR0.WP binds the supervisor to read-only pages", () => {
  assertEquals(fault(mapped(PAGE | 5), WRITE), P | W);
  const m = mapped(PAGE | 5);
  m.vcpu.setSystemRegisters({ cr0: 0x8000_0011n });
  assertEquals(fault(m, WRITE), -1);
});

Deno.test("SMEP and SMAP keep the supervisor out of user pages", () => {
  const guarded = (cr4: bigint): Machine => {
    const m = mapped(PAGE | 7);
    // Everything else becomes supervisor pages.
    for (let n = 0; n < 512; n++) {
      if (n !== PAGE >> 12) {
        m.memory.writeU32(m.pageEntry(n << 12), (n << 12) | 3);
      }
    }
    m.vcpu.setSystemRegisters({ cr4: 0x20n | cr4 });
    return m;
  };
  assertEquals(fault(guarded(1n << 20n), JUMP), P | I, "SMEP");
  assertEquals(fault(guarded(1n << 20n), READ), -1);
  assertEquals(fault(guarded(1n << 21n), READ), P, "SMAP");
  assertEquals(fault(guarded(1n << 21n), WRITE), P | W);
  assertEquals(fault(guarded(1n << 21n), `0F 01 CB ${READ}`), -1, "STAC");
  assertEquals(
    fault(guarded(1n << 21n), `0F 01 CB ${READ} 0F 01 CA ${READ}`),
    P,
    "CLAC",
  );
});

Deno.test("accessed and dirty bits are set, and only by walks that succeed", () => {
  const m = mapped(PAGE | 7);
  m.code(`${READ} F4`);
  m.run();
  assertEquals(m.word(m.pageEntry(PAGE)) & 0x60, 0x20);
  const n = mapped(PAGE | 7);
  n.code(`${WRITE} F4`);
  n.run();
  assertEquals(n.word(n.pageEntry(PAGE)) & 0x60, 0x60);
  const o = mapped(PAGE | 5, 0, true);
  o.code(WRITE);
  o.trap();
  assertEquals(o.word(o.pageEntry(PAGE)) & 0x60, 0);
});

Deno.test("a write makes a page dirty that a read has brought into the TLB", () => {
  const m = mapped(PAGE | 7).code(`${READ} ${WRITE} F4`);
  m.run();
  assertEquals(m.word(m.pageEntry(PAGE)) & 0x60, 0x60);
});

Deno.test("translations stay until INVLPG or a CR3 write", () => {
  for (const flush of ["0F 01 3C 25 00 70 00 00", "0F 20 DA 0F 22 DA"]) {
    const m = mapped(PAGE | 7);
    m.memory.writeU32(0x5000, 0x5555);
    m.memory.writeU32(PAGE, 0x7777);
    // Point the entry at 0x5000, then flush.
    m.code(
      `${READ} 89 C3 C7 04 25 ${
        hex(m.pageEntry(PAGE))
      } 07 50 00 00 ${flush} ${READ} F4`,
    );
    m.run();
    assertEquals([m.get("rbx"), m.get("rax")], [0x7777, 0x5555]);
  }
});

function hex(value: number): string {
  return new Uint8Array(Uint32Array.of(value).buffer).toHex();
}

Deno.test("INVLPG of an address that is not canonical does nothing", () => {
  const m = new Machine().long();
  m.vcpu.setRegisters({ rbx: 0x8000_0000_0000n });
  assertEquals(m.code("0F 01 3B F4").run(), "hlt");
});

Deno.test("an access that splits pages faults on the second and changes neither", () => {
  const m = mapped(0);
  m.memory.writeU32(0x6ffc, 0x1122_3344);
  m.vcpu.setRegisters({ rax: 0x55aa_55aan });
  m.code("89 04 25 FE 6F 00 00"); // mov [0x6ffe], eax
  assertEquals(m.trap(), 14);
  assertEquals(m.vcpu.getSystemRegisters().cr2, BigInt(PAGE));
  assertEquals(m.word(0x6ffc), 0x1122_3344);
});

Deno.test("an instruction that splits pages faults where its second part is", () => {
  const m = mapped(0);
  m.code("90 90");
  m.memory.write(0x6ffe, Uint8Array.of(0x48, 0xb8)); // mov rax, imm64
  m.vcpu.setRegisters({ rip: 0x6ffen });
  assertEquals(m.trap(), 14);
  assertEquals(m.pushed(2, 8), [I, 0x6ffe]);
  assertEquals(m.vcpu.getSystemRegisters().cr2, BigInt(PAGE));
});

Deno.test("addresses that are not canonical raise #GP, or #SS through the stack", () => {
  const vector = (code: string): number => {
    const m = new Machine().long();
    m.vcpu.setRegisters({ rbx: 0x8000_0000_0000n, rbp: 0x8000_0000_0000n });
    return m.code(code).trap();
  };
  assertEquals(vector("8B 03"), 13);
  assertEquals(vector("8B 45 00"), 12);
});

Deno.test("32-bit paging with 4 KiB and 4 MiB pages", () => {
  const m = new Machine().protected();
  m.memory.writeU32(0x20000, 0x21007);
  for (let n = 0; n < 512; n++) {
    m.memory.writeU32(0x21000 + 4 * n, (n << 12) | 7);
  }
  m.memory.writeU32(0x20004, 0x87); // 4 MiB up: the same RAM again
  m.memory.writeU32(0x20008, 0x20_0087); // reserved bit 21
  m.memory.writeU32(0x5000, 0x5555);
  m.vcpu.setSystemRegisters({ cr3: 0x20000n, cr4: 0x10n, cr0: 0x8000_0011n });
  m.code("A1 00 50 40 00 8B 1D 00 50 00 00 A1 00 00 80 00"); // mov eax, [0x405000]; mov ebx, [0x5000]; ...
  assertEquals(m.trap(), 14);
  assertEquals([m.get("rax"), m.get("rbx")], [0x5555, 0x5555]);
  assertEquals(m.pushed(1, 4), [P | RSVD]);
  assertEquals(m.word(0x20004), 0xa7, "accessed");
});

Deno.test("PAE paging loads its pointers with CR3 and checks them", () => {
  const prepare = (pointer: number): Machine => {
    const m = new Machine().protected();
    m.memory.writeU64(0x20000, BigInt(pointer));
    m.memory.writeU64(0x21000, 0x83n);
    m.memory.writeU64(0x21008, 0x83n | (1n << 63n));
    m.vcpu.setSystemRegisters({ cr4: 0x20n, cr3: 0x20000n, efer: 0x800n });
    m.memory.writeU32(0x5000, 0x5555);
    return m.code(`
      B8 11 00 00 80                ; mov eax, 0x80000011
      0F 22 C0                      ; mov cr0, eax
      8B 1D 00 50 20 00             ; mov ebx, [0x205000]
      C7 05 00 00 02 00 00 00 00 00 ; mov dword [0x20000], 0 ; no effect before CR3 is loaded
      8B 0D 00 50 20 00             ; mov ecx, [0x205000]
      B8 00 00 20 00                ; mov eax, 0x200000
      FF E0                         ; jmp eax
    `);
  };
  const m = prepare(0x21001);
  assertEquals(m.trap(), 14);
  assertEquals([m.get("rbx"), m.get("rcx")], [0x5555, 0x5555]);
  assertEquals(m.pushed(1, 4), [P | I]);
  const bad = prepare(0x21003);
  assertEquals(bad.trap(), 13, "a reserved bit of the pointer");
});

Deno.test("EFLAGS.AC checks alignment at CPL 3 only", () => {
  const run = (m: Machine): number => {
    m.vcpu.setSystemRegisters({ cr0: 0x8005_0011n });
    m.vcpu.setRegisters({ rflags: 0x4_0002n });
    return m.code("8B 04 25 01 70 00 00 0F 0B").trap();
  };
  assertEquals(run(new Machine().longUser()), 17);
  assertEquals(run(new Machine().long()), 6);
});

Deno.test("the host's view of a translation has no side effects", () => {
  const m = mapped(0x5000 | 3);
  assertEquals(m.vcpu.translate(BigInt(PAGE + 4)), 0x5004n);
  assertEquals(m.vcpu.translate(0x1234_5000n), undefined);
  assertEquals(m.word(m.pageEntry(PAGE)), 0x5003);
  assertEquals(m.vcpu.getSystemRegisters().cr2, 0n);
});
