import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  CODE,
  dword,
  Guest,
  HLT,
  kvmTest,
  MODES,
  movEax,
  movEcx,
  NOP,
  outAl,
  OUTSIDE,
  RDMSR,
  word,
  WRMSR,
} from "./_kvm.ts";

const SYNDBG_CONTROL = 0x4000_00f1;
/** An MSR that no processor and no KVM has. */
const NOWHERE = 0x0bad_0001;

for (const mode of MODES) {
  kvmTest("port reads and writes of 1, 2 and 4 bytes", { mode }, () => {
    using guest = new Guest({ mode });
    guest.host.input = (_port, size) => size === 4 ? 0xfedc_ba98 : 0x1234_5678;
    guest.enter(
      "real",
      ...[0xe4, 0x31], // in al, 0x31
      ...outAl(0x40),
      ...[0xe5, 0x32], // in ax, 0x32
      ...[0xe7, 0x41], // out 0x41, ax
      ...[0x66, 0xe5, 0x33], // in eax, 0x33
      ...[0xba, ...word(0x3f8)], // mov dx, 0x3f8
      ...[0x66, 0xef], // out dx, eax
      HLT,
    );
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.host.log, [
      "in 31 1",
      "out 40 1 78",
      "in 32 2",
      "out 41 2 5678",
      "in 33 4",
      "out 3f8 4 fedcba98",
    ]);
  });

  kvmTest("string port instructions", { mode }, () => {
    using guest = new Guest({ mode });
    let next = 1;
    guest.host.input = () => next++;
    guest.memory.write(0x8000, new Uint8Array([0x11, 0x22, 0x33]));
    guest.enter(
      "real",
      0xfc, // cld
      ...[0xba, ...word(0x99)], // mov dx, 0x99
      ...[0xbe, ...word(0x8000)], // mov si, 0x8000
      ...[0xb9, ...word(3)], // mov cx, 3
      ...[0xf3, 0x6e], // rep outsb
      ...[0xbf, ...word(0x8100)], // mov di, 0x8100
      ...[0xb9, ...word(2)], // mov cx, 2
      ...[0xf3, 0x6d], // rep insw
      HLT,
    );
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.host.log, [
      "out 99 1 11",
      "out 99 1 22",
      "out 99 1 33",
      "in 99 2",
      "in 99 2",
    ]);
    assertEquals(guest.memory.read(0x8100, 4).toHex(), "01000200");
  });

  kvmTest("loads and stores outside RAM", { mode }, () => {
    using guest = new Guest({ mode });
    guest.enter(
      "protected",
      ...[0xa1, ...dword(OUTSIDE)], // mov eax, [OUTSIDE]
      ...[0xa3, ...dword(OUTSIDE + 0x10)], // mov [OUTSIDE + 16], eax
      ...[0x66, 0xa3, ...dword(OUTSIDE + 0x20)], // mov [OUTSIDE + 32], ax
      ...[0xa2, ...dword(OUTSIDE + 0x31)], // mov [OUTSIDE + 49], al
      HLT,
    );
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.host.log, [
      "load 80000 4",
      "store 80010 a0a1a2a3",
      "store 80020 a0a1",
      "store 80031 a0",
    ]);
  });

  kvmTest("an MSR that nobody knows raises #GP", { mode }, () => {
    using guest = new Guest({ mode });
    guest.handler(13, "hlt");
    for (const access of [RDMSR, WRMSR]) {
      guest.host.log.length = 0;
      guest.enter("real", movEcx(NOWHERE, 16), movEax(5, 16), access, HLT);
      assertEquals(guest.run(), "hlt");
      assertEquals(guest.host.log[0]!.split(" ")[1], NOWHERE.toString(16));
      assertEquals(guest.host.log.slice(1), ["out 66 1 d"]);
    }
  });

  kvmTest("an MSR that only the host knows", { mode }, () => {
    using guest = new Guest({ mode });
    guest.host.msrs.set(NOWHERE, 0x1122_3344_5566_7788n);
    guest.enter(
      "real",
      movEcx(NOWHERE, 16),
      RDMSR,
      ...[0x66, 0x40], // inc eax
      WRMSR,
      HLT,
    );
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.host.msrs.get(NOWHERE), 0x1122_3344_5566_7789n);
  });

  kvmTest("HLT with nothing to wake it stays", { mode }, () => {
    using guest = new Guest({ mode });
    guest.enter("real", HLT, ...outAl(0x40), HLT);
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.host.log, []);
    assertEquals(guest.vcpu.getRegisters().rip, BigInt(CODE + 1));
  });

  kvmTest("a triple fault stays a shutdown until reset", { mode }, () => {
    using guest = new Guest({ mode });
    guest.enter("protected", 0x0f, 0x0b); // ud2, with no IDT
    assertEquals(guest.run(), "shutdown");
    assertEquals(guest.run(), "shutdown");
    guest.enter("real", ...outAl(0x40), HLT);
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.host.log.length, 1);
  });

  kvmTest("code outside RAM is an internal error", { mode }, () => {
    using guest = new Guest({ mode });
    guest.enter("protected", 0xe9, ...dword(OUTSIDE - CODE - 5)); // jmp OUTSIDE
    assertStringIncludes(guest.run(), "RIP 0x80000");
  });
}

kvmTest("a synthetic MSR is the host's", {}, () => {
  using guest = new Guest();
  guest.host.msrs.set(SYNDBG_CONTROL, 0x1122_3344_5566_7788n);
  guest.enter(
    "real",
    movEcx(SYNDBG_CONTROL, 16),
    RDMSR,
    ...[0x66, 0x40], // inc eax
    ...[0x66, 0x4a], // dec edx
    WRMSR,
    NOP,
    HLT,
  );
  assertEquals(guest.run(), "hlt");
  assertEquals(guest.host.log, [
    "rdmsr 400000f1",
    "wrmsr 400000f1 1122334355667789",
  ]);
  assertEquals(guest.vcpu.getMsr(SYNDBG_CONTROL), undefined);
  assertEquals(guest.vcpu.setMsr(SYNDBG_CONTROL, 1n), false);
});

kvmTest("a synthetic MSR that the host refuses raises #GP", {}, () => {
  using guest = new Guest();
  guest.handler(13, "hlt");
  for (const index of [0x4000_0000, 0x4000_00f2, 0x4000_01ff]) {
    guest.host.msrs.set(index, "refused");
    guest.host.log.length = 0;
    guest.enter("real", movEcx(index, 16), RDMSR, HLT);
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.host.log, [
      `rdmsr ${index.toString(16)}`,
      "out 66 1 d",
    ]);
  }
});

kvmTest("the processor's own MSRs do not come to the host", {}, () => {
  using guest = new Guest();
  const sysenterCs = 0x174;
  guest.enter("real", movEcx(sysenterCs, 16), movEax(8, 16), [
    ...[0x66, 0x31, 0xd2], // xor edx, edx
    ...WRMSR,
    HLT,
  ]);
  assertEquals(guest.run(), "hlt");
  assertEquals(guest.host.log, []);
  assertEquals(guest.vcpu.getMsr(sysenterCs), 8n);
  assertEquals(guest.vcpu.setMsr(sysenterCs, 16n), true);
  assertEquals(guest.vcpu.getMsr(sysenterCs), 16n);
  assertEquals(guest.vcpu.getMsr(NOWHERE), undefined);
  assertEquals(guest.vcpu.setMsr(NOWHERE, 16n), false);
});
