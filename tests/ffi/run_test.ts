import { assertEquals, assertGreater, assertLess } from "@std/assert";
import {
  CLI,
  CODE,
  Guest,
  HLT,
  kvmTest,
  MODES,
  NOP,
  outAl,
  SPIN,
  STI,
} from "./_kvm.ts";

/** Slack for a busy machine, in milliseconds. */
const SLACK = 500;

for (const mode of MODES) {
  kvmTest("a slice ends while the guest spins", { mode }, () => {
    using guest = new Guest({ mode });
    guest.enter("real", SPIN);
    for (const slice of [0.05, 1, 20]) {
      const start = performance.now();
      assertEquals(guest.vcpu.run(slice).reason, "interrupted");
      const elapsed = performance.now() - start;
      assertGreater(elapsed, slice * 0.9);
      assertLess(elapsed, slice + SLACK);
    }
    assertEquals(guest.vcpu.getRegisters().rip, BigInt(CODE));
  });

  kvmTest("a slice ends while the guest exits all the time", { mode }, () => {
    using guest = new Guest({ mode });
    let writes = 0;
    guest.host.port = () => {
      writes++;
      guest.host.log.length = 0;
    };
    guest.enter("real", ...outAl(0x40), 0xeb, 0xfc); // jmp back to it
    const start = performance.now();
    assertEquals(guest.vcpu.run(20).reason, "interrupted");
    assertLess(performance.now() - start, 20 + SLACK);
    assertGreater(writes, 0);
  });

  kvmTest("a kick before the run ends it at once", { mode }, () => {
    using guest = new Guest({ mode });
    guest.enter("real", ...outAl(0x40), SPIN);
    guest.vcpu.kick();
    assertEquals(guest.vcpu.run(Infinity).reason, "interrupted");
    assertEquals(guest.host.log, []);
    assertEquals(guest.vcpu.getRegisters().rip, BigInt(CODE));
    assertEquals(guest.vcpu.run(100).reason, "interrupted");
    assertEquals(guest.host.log.length, 1);
  });

  kvmTest("a kick in an exit finishes its instruction", { mode }, () => {
    using guest = new Guest({ mode });
    guest.host.input = () => {
      guest.vcpu.kick();
      return 0x77;
    };
    guest.enter("real", 0xe4, 0x31, SPIN); // in al, 0x31
    assertEquals(guest.vcpu.run(Infinity).reason, "interrupted");
    const { rip, rax } = guest.vcpu.getRegisters();
    assertEquals([rip, rax & 0xffn], [BigInt(CODE + 2), 0x77n]);
  });

  kvmTest("the event loop lives while the guest spins", { mode }, async () => {
    using guest = new Guest({ mode });
    guest.enter("real", SPIN);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    try {
      for (let n = 0; n < 20; n++) {
        guest.vcpu.run(2);
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
    } finally {
      clearInterval(timer);
    }
    assertGreater(ticks, 5);
  });

  kvmTest("an interrupt comes when the guest takes it", { mode }, () => {
    using guest = new Guest({ mode });
    const { host, vcpu } = guest;
    guest.handler(0x20, "hlt");
    host.vector = 0x20;
    host.port = (port) => vcpu.setInterruptRequest(port === 0x40);
    guest.enter("real", CLI, ...outAl(0x40), NOP, STI, SPIN);
    assertEquals(guest.run(), "hlt");
    assertEquals(
      host.log.map((line) => line.replace(/ 1 .*/, "")),
      ["out 40", "acknowledge", "out 66"],
    );
  });

  kvmTest("an interrupt wakes the guest from HLT", { mode }, () => {
    using guest = new Guest({ mode });
    const { host, vcpu } = guest;
    guest.handler(0x21, "iret");
    guest.enter("real", STI, HLT, CLI, ...outAl(0x42), HLT);
    assertEquals(guest.run(), "hlt");
    // It has gone again: the guest sleeps on.
    vcpu.setInterruptRequest(true);
    assertEquals(guest.run(), "hlt");
    host.vector = 0x21;
    host.port = () => vcpu.setInterruptRequest(false);
    assertEquals(guest.run(), "hlt");
    assertEquals(host.log, [
      "acknowledge",
      "acknowledge",
      "out 66 1 21",
      "out 42 1 21",
    ]);
    // IF is clear now.
    vcpu.setInterruptRequest(true);
    assertEquals(guest.run(), "hlt");
    assertEquals(host.log.length, 4);
  });

  kvmTest("registers set in HLT decide who wakes", { mode }, () => {
    using guest = new Guest({ mode });
    const { host, vcpu } = guest;
    guest.handler(0x22, "hlt");
    guest.enter("real", HLT);
    assertEquals(guest.run(), "hlt");
    host.vector = 0x22;
    vcpu.setInterruptRequest(true);
    host.port = () => vcpu.setInterruptRequest(false);
    vcpu.setRegisters({ rflags: 2n });
    assertEquals(guest.run(), "hlt");
    assertEquals(host.log, []);
    vcpu.setRegisters({ rflags: 0x202n });
    assertEquals(guest.run(), "hlt");
    assertEquals(host.log, ["acknowledge", "out 66 1 22"]);
  });

  kvmTest("an NMI is not held by IF", { mode }, () => {
    using guest = new Guest({ mode });
    guest.handler(2, "hlt");
    guest.enter("real", CLI, HLT);
    assertEquals(guest.run(), "hlt");
    guest.vcpu.injectNmi();
    assertEquals(guest.run(), "hlt");
    assertEquals(guest.host.log, ["out 66 1 2"]);
  });
}
