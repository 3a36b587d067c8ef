import { assertEquals } from "@std/assert";
import type {
  GuestDebug,
  Vcpu,
  VcpuExit,
  VmHost,
} from "../../../core/backend.ts";
import type { DebuggedMachine } from "../../../core/gdb/execution.ts";
import { GdbStub } from "../../../core/gdb/stub.ts";
import { GuestMemory } from "../../../core/guest_memory.ts";
import { FakeVcpu } from "../_fake_backend.ts";
import { GdbClient } from "./_client.ts";

/** A vCPU that remembers how it is debugged. */
class Traced extends FakeVcpu {
  override readonly id: number;
  debug: GuestDebug | undefined;

  constructor(id: number) {
    super({} as VmHost, () => ({ reason: "interrupted" }));
    this.id = id;
    this.registers.rip = BigInt(0x100 * (id + 1));
  }

  override setGuestDebug(debug?: GuestDebug): void {
    this.debug = debug;
  }
}

/** A machine with three vCPUs that nobody runs, and a client. */
function three() {
  const vcpus = [0, 1, 2].map((id) => new Traced(id));
  const memory = new GuestMemory(0x1_0000, 0);
  const machine: DebuggedMachine = {
    vcpus,
    vm: { memory, createVcpu: () => vcpus[0]!, close: () => {} },
    debugger: undefined,
    wake: () => {},
    stop: () => {},
  };
  const client = new GdbClient(new GdbStub({ machine }));
  const held = (): boolean[] =>
    vcpus.map((vcpu: Vcpu) => machine.debugger!.holds(vcpu));
  const stop = (n: number, exit: VcpuExit): boolean =>
    machine.debugger!.stopped(vcpus[n]!, exit);
  /** Sends what is answered by a later stop, and lets the stub take it. */
  const resume = async (command: string): Promise<void> => {
    client.send(command);
    // Whatever is answered next was sent after it.
    assertEquals(await client.ask("qAttached"), "1");
  };
  return { vcpus, memory, client, held, stop, resume };
}

const STEPPED: VcpuExit = {
  reason: "debug",
  rip: 0n,
  dr6: 0x4000n,
  breakpoint: false,
};
const INT3: VcpuExit = { ...STEPPED, dr6: 0n, breakpoint: true };

Deno.test("vCPUs are threads, numbered from 1", async () => {
  const { client } = three();
  assertEquals(await client.ask("qfThreadInfo"), "m1,2,3");
  assertEquals(await client.ask("qsThreadInfo"), "l");
  assertEquals(await client.ask("qC"), "QC1");
  assertEquals(await client.ask("T3"), "OK");
  for (
    const bad of ["T4", "T0", "T", "T-1", "Hg4", "Hg", "qThreadExtraInfo,4"]
  ) {
    assertEquals(await client.ask(bad), "E16", bad);
  }
  const info = await client.ask("qThreadExtraInfo,2");
  assertEquals(new TextDecoder().decode(Uint8Array.fromHex(info)), "vCPU 1");
  await client.close();
});

Deno.test("Hg chooses whose registers are meant", async () => {
  const { client } = three();
  assertEquals(await client.register(8), 0x100n);
  assertEquals(await client.ask("Hg3"), "OK");
  assertEquals(await client.register(8), 0x300n);
  assertEquals(await client.ask("Hc1"), "OK");
  assertEquals(await client.ask("Hg0"), "OK");
  assertEquals(await client.register(8), 0x300n);
  await client.close();
});

Deno.test("all vCPUs wait for a client, and vCont says who goes on and how", async () => {
  const { client, held, vcpus, stop, resume } = three();
  assertEquals(held(), [true, true, true]);
  await resume("vCont;s:2;c");
  assertEquals(held(), [false, false, false]);
  assertEquals(vcpus.map(({ debug }) => debug?.singleStep ?? false), [
    false,
    true,
    false,
  ]);
  stop(1, STEPPED);
  assertEquals(await client.packet(), "T05thread:2;");
  assertEquals(held(), [true, true, true]);
  // The one that stopped is the one that is meant from now on.
  assertEquals(await client.register(8), 0x200n);
  await resume("vCont;s:2");
  assertEquals(held(), [true, false, true]);
  stop(1, STEPPED);
  assertEquals(await client.packet(), "T05thread:2;");
  await resume("vCont;t:1;c");
  assertEquals(held(), [true, false, false]);
  client.raw("\x03");
  assertEquals(await client.packet(), "T02thread:2;");
  for (const bad of ["vCont;", "vCont;x", "vCont;t", "vCont;s:9", "vCont;c:"]) {
    assertEquals(await client.ask(bad), "E16", bad);
  }
  assertEquals(held(), [true, true, true]);
  await client.close();
});

Deno.test("while a vCPU steps over a breakpoint the others wait", async () => {
  const { client, held, memory, vcpus, stop, resume } = three();
  assertEquals(await client.ask("Z0,200,1"), "OK");
  await resume("vCont;c");
  assertEquals(held(), [false, false, false], "nobody was shown at it");
  stop(1, INT3);
  assertEquals(await client.packet(), "T05thread:2;");
  await resume("vCont;c");
  assertEquals(held(), [true, false, true]);
  assertEquals([memory.bytes[0x200], vcpus[1]!.debug?.singleStep], [0, true]);
  stop(1, STEPPED);
  assertEquals(held(), [false, false, false]);
  assertEquals(memory.bytes[0x200], 0xcc);
  assertEquals(vcpus[1]!.debug?.singleStep, undefined);
  await client.close();
  assertEquals(held(), [false, false, false]);
  assertEquals(memory.bytes[0x200], 0);
  assertEquals(vcpus.map(({ debug }) => debug), [
    undefined,
    undefined,
    undefined,
  ]);
});
