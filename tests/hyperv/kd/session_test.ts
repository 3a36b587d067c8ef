import { assert, assertEquals, assertRejects } from "@std/assert";
import { KdError } from "../../../hyperv/kd/link.ts";
import {
  encodeKdControl,
  encodeKdPacket,
  KdPacketType,
} from "../../../hyperv/kd/packet.ts";
import {
  encodeStateChange,
  KdStateChange,
} from "../../../hyperv/kd/state_change.ts";
import { KdSession } from "../../../hyperv/kd/session.ts";
import type { KdSessionEvents } from "../../../hyperv/kd/session_options.ts";
import { NtStatus } from "../../../hyperv/kd/status.ts";
import { memoryPair } from "../../../hyperv/transports/memory_pair.ts";
import { FakeTarget, type FakeTargetOptions } from "./_fake_target.ts";

const KEY = "1.2.3.4";
const BASE = 0x10_0000n;
const TIMING = { interval: 20, tries: 50 };
const WAIT = { timeout: 10_000 };

interface Bench {
  session: KdSession;
  target: FakeTarget;
  /** What happened, in order. */
  log: string[];
}

/** A session and a target, tied together in memory. */
async function withTarget(
  work: (bench: Bench) => Promise<void>,
  options: Partial<FakeTargetOptions> = {},
  events: KdSessionEvents = {},
): Promise<void> {
  const [wire, guest] = memoryPair();
  const log: string[] = [];
  const session = await KdSession.open({
    transport: wire,
    key: KEY,
    timing: TIMING,
    events: {
      onConnected: (again) => log.push(again ? "restarted" : "connected"),
      onPrint: (text) => log.push(`print ${text}`),
      onImage: ({ path }) => log.push(`image ${path}`),
      onFile: ({ create }) => log.push(`file ${create?.name}`),
      onStop: ({ exception }) =>
        log.push(`stop ${exception!.code.toString(16)}`),
      ...events,
    },
  });
  const target = await FakeTarget.start({
    transport: guest,
    key: KEY,
    interval: 20,
    base: BASE,
    ...options,
  });
  // l: inc rax; jmp l
  target.cpu.memory.set([0x48, 0xff, 0xc0, 0xeb, 0xfb]);
  try {
    await work({ session, target, log });
  } finally {
    session.close();
    target.close();
  }
}

for (const ids of ["counter", "toggle"] as const) {
  for (const version of [1, 5]) {
    Deno.test(`a session breaks in, looks and goes on: version ${version}, ${ids} ids`, async () => {
      await withTarget(async ({ session, target }) => {
        const stop = await session.breakIn(WAIT);
        assertEquals(stop.exception?.code, NtStatus.Breakpoint);
        assertEquals((await session.version()).kernelBase, BASE);
        const context = await session.getContext();
        assertEquals(context.get("rip"), stop.programCounter);
        assertEquals(
          await session.readVirtual(BASE, 3000),
          target.cpu.memory.slice(0, 3000),
        );
        const bytes = crypto.getRandomValues(new Uint8Array(3000));
        await session.writeVirtual(BASE + 0x1000n, bytes);
        assertEquals(await session.readPhysical(BASE + 0x1000n, 3000), bytes);
        assertEquals(
          await session.search(BASE, 0x8000n, bytes.slice(100, 110)),
          BASE + 0x1000n + 100n,
        );
        assertEquals(
          await session.search(BASE, 0x100n, new Uint8Array(9).fill(7)),
          undefined,
        );
        await session.writeMsr(0x10, 0x1234_5678_9abc_def0n);
        assertEquals(await session.readMsr(0x10), 0x1234_5678_9abc_def0n);
        await session.resume();
        assertEquals(session.stop, undefined);
        const later = await session.breakIn(WAIT);
        assert((await session.getContext()).get("rax") > context.get("rax"));
        assertEquals(later.exception?.code, NtStatus.Breakpoint);
      }, { ids, version });
    });
  }
}

Deno.test("a breakpoint is hit, and a step goes one instruction", async () => {
  await withTarget(async ({ session }) => {
    await session.breakIn(WAIT);
    const handle = await session.setBreakpoint(BASE + 3n);
    const context = await session.getContext();
    context.set("rip", BASE);
    await session.setContext(context);
    await session.resume();
    const hit = await session.waitForStop(WAIT);
    assertEquals(hit.programCounter, BASE + 3n);
    assertEquals(hit.report.instructions[0], 0xeb);
    await session.clearBreakpoint(handle);
    await session.resume({ step: true });
    const step = await session.waitForStop(WAIT);
    assertEquals(step.exception?.code, NtStatus.SingleStep);
    assertEquals(step.programCounter, BASE);
  });
});

Deno.test("memory that ends is read up to its end; where there is none is an error", async () => {
  await withTarget(async ({ session }) => {
    await session.breakIn(WAIT);
    assertEquals((await session.readVirtual(BASE + 0xff00n, 2000)).length, 256);
    assertEquals((await session.readVirtual(BASE + 0xff00n, 256)).length, 256);
    const error = await assertRejects(
      () => session.readVirtual(0n, 8),
      KdError,
      "Cannot do ReadVirtualMemory: the target answered 0xc0000001",
    );
    assertEquals(error.status, NtStatus.Unsuccessful);
    await assertRejects(
      () => session.writeVirtual(BASE + 0xfffen, new Uint8Array(4)),
      KdError,
      "Cannot do WriteVirtualMemory: 2 of 4 bytes",
    );
    await assertRejects(() => session.clearBreakpoint(9), KdError);
    await assertRejects(
      () => session.request("GetBusData", { length: 4 }),
      KdError,
      "0xc0000002",
    );
  });
});

Deno.test("prints, prompts, images and files are answered while the target runs", async () => {
  await withTarget(
    async ({ session, target, log }) => {
      await session.waitForConnection(WAIT);
      await target.print("hello\n");
      assertEquals(await target.prompt("name? ", 3), "Bob");
      await target.loadImage("\\kernel.exe", BASE);
      assertEquals(await target.openFile("\\a.sys"), NtStatus.NoSuchFile);
      assertEquals(log.slice(0, 2), ["connected", "print hello\n"]);
      assertEquals(log.slice(2), ["image \\kernel.exe", "file \\a.sys"]);
    },
    {},
    { onPrompt: ({ text }) => text === "name? " ? "Bobby" : "" },
  );
});

Deno.test("a target that restarts is noticed, and what was under way fails", async () => {
  await withTarget(async ({ session, target, log }) => {
    await session.breakIn(WAIT);
    await target.restart();
    await assertRejects(
      () => session.readVirtual(BASE, 16),
      KdError,
      "Cannot reach the target: it was restarted",
    );
    assertEquals(session.stop, undefined);
    await session.breakIn(WAIT);
    assertEquals(await session.readVirtual(BASE, 1), new Uint8Array([0x48]));
    await session.command("Reboot", {});
    await session.breakIn(WAIT);
    assertEquals(log.filter((line) => line === "restarted").length, 2);
  });
});

Deno.test("what needs a stopped target says so while it runs", async () => {
  await withTarget(async ({ session }) => {
    await session.waitForConnection(WAIT);
    await assertRejects(
      () => session.getContext(),
      KdError,
      "Cannot do GetContext: the target runs",
    );
    await assertRejects(() => session.resume(), KdError, "the target runs");
  });
});

Deno.test("waiting ends when the time is over, at a signal, and when the session closes", async () => {
  const [wire] = memoryPair();
  const session = await KdSession.open({ transport: wire, key: KEY });
  await assertRejects(
    () => session.waitForConnection({ timeout: 1 }),
    KdError,
    "Cannot wait for the target: the time is over",
  );
  await assertRejects(
    () => session.breakIn({ signal: AbortSignal.abort() }),
    KdError,
    "interrupted",
  );
  const waiting = session.waitForStop();
  session.close();
  await assertRejects(() => waiting, KdError, "the session is closed");
});

Deno.test("a target with another key is counted and not heard", async () => {
  await withTarget(async ({ session }) => {
    await assertRejects(
      () => session.waitForConnection({ timeout: 100 }),
      KdError,
    );
    assert(session.counters.wrongKey > 0);
    assertEquals(session.connected, false);
  }, { key: "1.2.3.5" });
});

Deno.test("a session that was lost is asked for again", async () => {
  await withTarget(async ({ session, target }) => {
    await session.breakIn(WAIT);
    await session.resume();
    session.close();
    // Another debugger comes; the target only gives signs of life.
    const [wire, guest] = memoryPair();
    const second = await KdSession.open({
      transport: wire,
      key: KEY,
      timing: TIMING,
    });
    target.moveTo(guest);
    await target.net.poke();
    await second.breakIn(WAIT);
    assertEquals((await second.readVirtual(BASE, 1)).length, 1);
    second.close();
  });
});

Deno.test("a target's RESET is not answered, whatever it answers itself", async () => {
  await withTarget(async ({ session, target }) => {
    await session.breakIn(WAIT);
    for (let n = 0; n < 3; n++) {
      await target.net.send(encodeKdControl(KdPacketType.Reset, 0));
    }
    await session.readVirtual(BASE, 1);
    const { received } = session.counters;
    await new Promise((resolve) => setTimeout(resolve, 5 * TIMING.interval));
    assertEquals(session.counters.received, received);
  });
});

Deno.test("a stop that is told once more is not taken for the next one", async () => {
  await withTarget(async ({ session, target }) => {
    await session.breakIn(WAIT);
    const context = await session.getContext();
    context.set("rip", BASE);
    await session.setContext(context);
    const going = session.resume({ step: true });
    // As after a late RESET: the stop comes again before the step is heard of.
    await target.net.send(encodeKdControl(KdPacketType.Reset, 0));
    await target.net.send(
      encodeKdPacket(
        KdPacketType.StateChange64,
        0x7000_0000,
        encodeStateChange({
          state: KdStateChange.Exception,
          exception: { code: NtStatus.Breakpoint },
        }),
      ),
    );
    await going;
    const stop = await session.waitForStop(WAIT);
    assertEquals(stop.exception?.code, NtStatus.SingleStep);
    assertEquals(stop.programCounter, BASE + 3n);
  });
});
