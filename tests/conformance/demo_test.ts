/** The demo guest: what it does with a debugger, without one, and on machines that lack the rest. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { demoGuest } from "../../cli/guests/demo_guest.ts";
import type { Backend } from "../../core/backend.ts";
import { GuestMemory } from "../../core/guest_memory.ts";
import { loadImage } from "../../core/loaders/load_image.ts";
import { Machine } from "../../core/machine.ts";
import { interpreter } from "../../core/x86/backend.ts";
import {
  createGuestMachine,
  type GuestMachineOptions,
} from "../../hyperv/guest_machine.ts";
import { memoryPair } from "../../hyperv/transports/memory_pair.ts";
import { backends } from "./backends.ts";

interface DemoRun {
  text: string;
  /** Sizes of the packets that it sent. */
  packets: number[];
}

/** Takes what the guest prints. */
function printer(): { write: (byte: number) => void; text: () => string } {
  const bytes: number[] = [];
  return {
    write: (byte) => bytes.push(byte),
    text: () => new TextDecoder().decode(new Uint8Array(bytes)),
  };
}

/** Runs the demo guest; a debugger echoes its packets, or nobody is there. */
async function demo(
  backend: Backend,
  options: Omit<GuestMachineOptions, "backend" | "syndbg"> & {
    syndbg: "msr" | "hypercall" | "none";
    debugger: boolean;
  },
): Promise<DemoRun> {
  const { syndbg, debugger: listens, ...rest } = options;
  const out = printer();
  const packets: number[] = [];
  const [transport, peer] = memoryPair();
  peer.onActivity = () => {
    const data = peer.receive()!;
    packets.push(data.length);
    if (listens) peer.send(data);
  };
  const { machine, memory } = createGuestMachine({
    backend,
    memorySize: 8 * 2 ** 20,
    onOutput: out.write,
    ...rest,
    ...(syndbg !== "none" && { syndbg: { transport, mode: syndbg } }),
  });
  loadImage(memory, machine.vcpus[0]!, demoGuest());
  const outcome = await machine.run({ timeout: 30_000 });
  machine.close();
  assertEquals(outcome, { kind: "halted" }, out.text());
  return { text: out.text(), packets };
}

/** A machine whose clock runs 200 times as fast, so that waiting costs little. */
function hurried(): Backend {
  return interpreter(() => performance.now() * 2e8);
}

const SIZES = [37, 17, 1400];
const PROFILES = ["hyperv", "kvm"] as const;

for (const { name, create } of backends) {
  for (const profile of PROFILES) {
    Deno.test(`${name}: the demo guest by MSR, ${profile}`, async () => {
      const run = await demo(create(), {
        profile,
        syndbg: "msr",
        debugger: true,
      });
      assertStringIncludes(run.text, "vendor Microsoft Hv");
      assertStringIncludes(run.text, "(options) 00000000");
      assertStringIncludes(
        run.text,
        "received 37 bytes: hello, debugger: this is an x86 guest",
      );
      assertStringIncludes(run.text, "received 1400 bytes: abcdefgh");
      assertStringIncludes(run.text, "3 of 3 packets answered");
      assertEquals(run.packets, SIZES);
    });
  }

  Deno.test(`${name}: the demo guest by hypercall, hyperv`, async () => {
    const run = await demo(create(), { syndbg: "hypercall", debugger: true });
    assertStringIncludes(run.text, "(options) 00000004");
    assertStringIncludes(run.text, "DHCP gave address 0a000505");
    assertStringIncludes(run.text, "ARP answered");
    assertStringIncludes(run.text, "received 17 bytes: the second packet");
    assertStringIncludes(run.text, "3 of 3 packets answered");
    assertEquals(run.packets, SIZES);
  });

  Deno.test(`${name}: the demo guest without a debug device`, async () => {
    const run = await demo(create(), { syndbg: "none", debugger: false });
    assertStringIncludes(run.text, "Hyper-V, but no synthetic debugger");
  });

  Deno.test(`${name}: the demo guest without Hyper-V`, async () => {
    const out = printer();
    const memory = new GuestMemory(8 * 2 ** 20);
    const backend = create();
    const machine = new Machine({ backend, memory, onOutput: out.write });
    machine.vcpus[0]!.setCpuid(backend.supportedCpuid());
    loadImage(memory, machine.vcpus[0]!, demoGuest());
    assertEquals(await machine.run({ timeout: 5000 }), { kind: "halted" });
    machine.close();
    assertStringIncludes(out.text(), "no Hyper-V here");
  });
}

Deno.test("the demo guest by hypercall where nobody answers DHCP, kvm", async () => {
  const run = await demo(hurried(), {
    profile: "kvm",
    syndbg: "hypercall",
    debugger: true,
  });
  assertStringIncludes(run.text, "ARP not answered");
  assertStringIncludes(run.text, "3 of 3 packets answered");
  assertEquals(run.packets, [300, ...SIZES]);
});

for (const profile of PROFILES) {
  for (const syndbg of ["msr", "hypercall"] as const) {
    Deno.test(`the demo guest goes on where nobody listens, ${syndbg}, ${profile}`, async () => {
      const run = await demo(hurried(), { profile, syndbg, debugger: false });
      assertStringIncludes(run.text, "no answer");
      assertStringIncludes(run.text, "0 of 3 packets answered");
      assertStringIncludes(run.text, "guest: done");
      assertEquals(run.packets.filter((n) => n !== 300), SIZES);
    });
  }
}
