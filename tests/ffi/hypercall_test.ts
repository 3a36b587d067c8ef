import { assertEquals } from "@std/assert";
import { HypercallResult } from "../../core/backend.ts";
import { CODE, dword, Guest, HLT, kvmTest, movEax, word } from "./_kvm.ts";

/** Where the guest's hypercall page is. */
const PAGE = 0x4000;

/** A guest of mode `user` with a hypercall page. */
function guestWithPage(): Guest {
  const guest = new Guest();
  guest.memory.write(PAGE, guest.backend.hypercallCode!);
  return guest;
}

kvmTest("the hypercall page in 64-bit code", {}, () => {
  using guest = guestWithPage();
  guest.host.call = (frame) => {
    assertEquals(
      [frame.vcpu, frame.longMode, frame.protectedMode, frame.cpl],
      [0, true, true, 0],
    );
    // RCX, RDX, R8, R15.
    assertEquals([...frame.gpr.slice(2, 6)], [0x69, 0xabc, 0x1000, 0]);
    assertEquals([...frame.gpr.slice(16, 18)], [0x2000, 0]);
    assertEquals([...frame.gpr.slice(30, 32)], [7, 9]);
    frame.gpr[0] = 0x1234_5678;
    frame.gpr[1] = 0x9abc;
    return HypercallResult.Handled;
  };
  guest.enter("long", 0xff, 0xd3, HLT); // call rbx
  const before = {
    rax: 1n,
    rbx: BigInt(PAGE),
    rcx: 0xabc_0000_0069n,
    rdx: 0x1000n,
    rsi: 2n,
    rdi: 3n,
    rbp: 4n,
    r8: 0x2000n,
    r9: 5n,
    r10: 6n,
    r11: 7n,
    r12: 8n,
    r13: 9n,
    r14: 10n,
    r15: 0x9_0000_0007n,
  };
  guest.vcpu.setRegisters(before);
  const { rsp, rflags } = guest.vcpu.getRegisters();
  assertEquals(guest.run(), "hlt");
  assertEquals(guest.vcpu.getRegisters(), {
    ...before,
    rax: 0x9abc_1234_5678n,
    rsp,
    rflags,
    rip: BigInt(CODE + 3),
  });
});

kvmTest("the hypercall page in 32-bit code", {}, () => {
  using guest = guestWithPage();
  guest.host.call = (frame) => {
    assertEquals(
      [frame.longMode, frame.protectedMode, frame.cpl],
      [false, true, 0],
    );
    frame.gpr[0] = frame.gpr[0]! + 1;
    frame.gpr[4] = 0x55;
    return HypercallResult.Handled;
  };
  guest.enter("protected", ...movEax(0x69), 0xff, 0xd3, HLT); // call ebx
  guest.vcpu.setRegisters({ rbx: BigInt(PAGE), rdx: 1n });
  assertEquals(guest.run(), "hlt");
  const { rax, rdx } = guest.vcpu.getRegisters();
  assertEquals([rax, rdx], [0x6an, 0x55n]);
});

kvmTest("a hypercall that asks for it is made again", {}, () => {
  using guest = guestWithPage();
  let calls = 0;
  guest.host.call = () => {
    calls++;
    if (calls === 2) guest.vcpu.kick();
    return calls < 4 ? HypercallResult.Retry : HypercallResult.Handled;
  };
  guest.enter("protected", 0xff, 0xd3, HLT);
  guest.vcpu.setRegisters({ rbx: BigInt(PAGE) });
  assertEquals(guest.vcpu.run(Infinity).reason, "interrupted");
  assertEquals([calls, guest.vcpu.getRegisters().rip], [2, BigInt(PAGE)]);
  assertEquals(guest.run(), "hlt");
  assertEquals(calls, 4);
});

for (const name of ["Unknown", "InvalidOpcode"] as const) {
  kvmTest(`a hypercall with result ${name} raises #UD`, {}, () => {
    using guest = guestWithPage();
    guest.host.call = (frame) => {
      assertEquals(
        [frame.longMode, frame.protectedMode, frame.cpl],
        [false, false, 0],
      );
      return HypercallResult[name];
    };
    guest.handler(6, "hlt");
    guest.enter("real", 0x9a, ...word(PAGE), ...word(0), HLT); // call 0:PAGE
    guest.memory.write(PAGE + 2, new Uint8Array([0xcb])); // retf
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.host.log, ["hypercall", "out 66 1 6"]);
    const { rsp } = guest.vcpu.getRegisters();
    // The exception's return address is the page's first instruction.
    assertEquals(guest.memory.view.getUint16(Number(rsp), true), PAGE);
  });
}

kvmTest("other writes to the hypercall port are the devices'", {}, () => {
  using guest = guestWithPage();
  // out 0xe4, al; out dx, ax; out dx, eax; in ax, dx
  guest.enter("real", 0xe6, 0xe4, 0xef, 0x66, 0xef, 0xed, HLT);
  guest.vcpu.setRegisters({ rax: 0x5678_1234n, rdx: 0xe4n });
  assertEquals(guest.run(), "hlt");
  assertEquals(guest.host.log, [
    "out e4 1 34",
    "out e4 2 1234",
    "out e4 4 56781234",
    "in e4 2",
  ]);
});

kvmTest("a string write to the hypercall port is the devices'", {}, () => {
  using guest = guestWithPage();
  guest.memory.write(0x8000, new Uint8Array(dword(0x1234_5678)));
  guest.enter(
    "protected",
    ...[0xba, ...dword(0xe4)], // mov edx, 0xe4
    ...[0xbe, ...dword(0x8000)], // mov esi, 0x8000
    ...[0xb9, ...dword(2)], // mov ecx, 2
    ...[0xfc, 0xf3, 0x6f], // rep outsd
    HLT,
  );
  assertEquals(guest.run(), "hlt");
  assertEquals(guest.host.log.length, 2);
  assertEquals(guest.host.log[0], "out e4 4 12345678");
});
