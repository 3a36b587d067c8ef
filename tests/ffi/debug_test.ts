import { assertEquals } from "@std/assert";
import type { GuestDebug, VcpuExit } from "../../core/backend.ts";
import type { HypervMode } from "../../ffi/kvm_options.ts";
import { CODE, findings, Guest, HLT, kvmTest, MODES, NOP } from "./_kvm.ts";

const INT3 = 0xcc;
const AT_CODE_2: GuestDebug = {
  hardwareBreakpoints: {
    addresses: [BigInt(CODE + 2), 0n, 0n, 0n],
    dr7: 0x402n,
  },
};

/** Runs code with debugging on. */
function debug(guest: Guest, how: GuestDebug, ...code: number[]): VcpuExit {
  guest.enter("protected", ...code);
  guest.vcpu.setGuestDebug(how);
  return guest.vcpu.run(1000);
}

/**
 * What this machine's KVM does not stop at, if so: an emulated SVM intercepts neither INT3 nor debug registers, and a KVM that emulates
 * ring 0 has no INT3.
 */
function lacking(
  mode: HypervMode,
  what: string,
  how: GuestDebug,
  ...code: number[]
): string | undefined {
  if (!findings(mode).available) return undefined;
  using guest = new Guest({ mode });
  return debug(guest, how, ...code).reason === "debug"
    ? undefined
    : `KVM here does not stop at ${what}`;
}

for (const mode of MODES) {
  kvmTest("single steps stop after each instruction", { mode }, () => {
    using guest = new Guest({ mode });
    guest.enter("protected", NOP, 0x40, NOP, HLT); // inc eax
    guest.vcpu.setGuestDebug({ singleStep: true });
    for (const offset of [1, 2, 3]) {
      const exit = guest.vcpu.run(1000);
      if (exit.reason !== "debug") throw new Error(exit.reason);
      assertEquals([exit.rip, exit.breakpoint], [BigInt(CODE + offset), false]);
      assertEquals(exit.dr6 & 0x4000n, 0x4000n);
    }
    guest.vcpu.setGuestDebug(undefined);
    assertEquals(guest.run(), "hlt");
  });

  const int3: GuestDebug = { softwareBreakpoints: true };
  kvmTest("a breakpoint instruction stops before it", {
    mode,
    lacking: lacking(mode, "INT3", int3, NOP, INT3, HLT),
  }, () => {
    using guest = new Guest({ mode });
    const exit = debug(guest, int3, NOP, INT3, HLT);
    if (exit.reason !== "debug") throw new Error(exit.reason);
    assertEquals([exit.rip, exit.breakpoint], [BigInt(CODE + 1), true]);
    guest.vcpu.setRegisters({ rip: BigInt(CODE + 2) });
    assertEquals(guest.run(), "hlt");
  });

  kvmTest("the guest gets its own breakpoint when it is passed on", {
    mode,
    lacking: lacking(mode, "INT3", int3, NOP, INT3, HLT),
  }, () => {
    using guest = new Guest({ mode });
    assertEquals(debug(guest, int3, NOP, INT3, HLT).reason, "debug");
    guest.vcpu.passBreakpoint();
    // There is no interrupt table.
    assertEquals(guest.run(), "shutdown");
  });

  kvmTest(
    "interrupts that are blocked wait until the guest halts",
    { mode },
    () => {
      using guest = new Guest({ mode });
      guest.enter("protected", NOP, NOP, NOP, HLT);
      // Not by STI: of its shadow processors think differently when they are stepped.
      guest.vcpu.setRegisters({ rflags: 0x202n });
      guest.host.vector = 0x30;
      guest.vcpu.setInterruptRequest(true);
      guest.vcpu.setGuestDebug({ singleStep: true, blockInterrupts: true });
      for (const offset of [1, 2, 3]) {
        const exit = guest.vcpu.run(1000);
        if (exit.reason !== "debug") throw new Error(exit.reason);
        assertEquals(exit.rip, BigInt(CODE + offset));
      }
    },
  );

  kvmTest("a hardware breakpoint stops at its address", {
    mode,
    lacking: lacking(mode, "debug registers", AT_CODE_2, NOP, NOP, 0x40, HLT),
  }, () => {
    using guest = new Guest({ mode });
    const exit = debug(guest, AT_CODE_2, NOP, NOP, 0x40, HLT);
    if (exit.reason !== "debug") throw new Error(exit.reason);
    assertEquals([exit.rip, exit.breakpoint], [BigInt(CODE + 2), false]);
    assertEquals(exit.dr6 & 1n, 1n);
  });
}
