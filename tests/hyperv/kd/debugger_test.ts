import { assertEquals, assertRejects } from "@std/assert";
import { KdError } from "../../../hyperv/kd/link.ts";
import { KdDebugger } from "../../../hyperv/kd/debugger.ts";
import { endsWithCall, stepKind } from "../../../hyperv/kd/instructions.ts";
import { KdSession } from "../../../hyperv/kd/session.ts";
import { walkStack } from "../../../hyperv/kd/stack.ts";
import { memoryPair } from "../../../hyperv/transports/memory_pair.ts";
import { NtStatus } from "../../../hyperv/kd/status.ts";
import { FakeTarget } from "./_fake_target.ts";
import { BASE, F, G, LOOP, PROGRAM } from "./_program.ts";

const WAIT = { timeout: 10_000 };

async function withDebugger(
  work: (debug: KdDebugger, target: FakeTarget) => Promise<void>,
): Promise<void> {
  const [wire, guest] = memoryPair();
  const session = await KdSession.open({
    transport: wire,
    key: "1.2.3.4",
    timing: { interval: 50, tries: 100 },
  });
  const target = await FakeTarget.start({
    transport: guest,
    key: "1.2.3.4",
    base: BASE,
  });
  target.cpu.memory.set(PROGRAM);
  const debug = new KdDebugger(session);
  try {
    await debug.breakIn(WAIT);
    await debug.changeContext((context) => context.set("rip", BASE));
    await debug.go({ ...WAIT, until: LOOP });
    await work(debug, target);
  } finally {
    session.close();
    target.close();
  }
}

const pc = (debug: KdDebugger): bigint => debug.session.stop!.programCounter;

Deno.test("a breakpoint is hit again and again, and is not in memory while stopped", async () => {
  await withDebugger(async (debug) => {
    const entry = debug.addBreakpoint(F);
    assertEquals(debug.addBreakpoint(F), entry);
    for (let hits = 1; hits <= 3; hits++) {
      const stop = await debug.go(WAIT);
      assertEquals(stop.programCounter, F);
      assertEquals(entry.hits, hits);
      assertEquals(await debug.readNumber(F, 1), 0x55n);
    }
    entry.enabled = false;
    await debug.go({ ...WAIT, until: LOOP });
    assertEquals(entry.hits, 3);
    assertEquals(debug.removeBreakpoint(entry.id), true);
    assertEquals(debug.removeBreakpoint(entry.id), false);
    assertEquals(debug.breakpoints, []);
  });
});

Deno.test("stepping goes into calls, stepping over does not", async () => {
  await withDebugger(async (debug) => {
    await debug.step(WAIT);
    assertEquals(pc(debug), F);
    await debug.go({ ...WAIT, until: LOOP });
    await debug.stepOver(WAIT);
    assertEquals(pc(debug), LOOP + 5n);
    await debug.stepOver(WAIT);
    assertEquals(pc(debug), LOOP + 6n);
  });
});

Deno.test("stepping over a call stops at a breakpoint inside", async () => {
  await withDebugger(async (debug) => {
    debug.addBreakpoint(G);
    const stop = await debug.stepOver(WAIT);
    assertEquals(stop.programCounter, G);
    assertEquals(stop.exception?.code, NtStatus.Breakpoint);
  });
});

Deno.test("going on from a breakpoint of the program's own passes it", async () => {
  await withDebugger(async (debug, target) => {
    // int3 instead of the nop behind the call
    target.cpu.memory[Number(LOOP - BASE) + 5] = 0xcc;
    assertEquals((await debug.go(WAIT)).programCounter, LOOP + 5n);
    assertEquals((await debug.go(WAIT)).programCounter, LOOP + 5n);
    await debug.step(WAIT);
    assertEquals(pc(debug), LOOP);
  });
});

Deno.test("breakpoints of a debugger that is gone are taken out at the first stop", async () => {
  await withDebugger(async (debug, target) => {
    await debug.session.setBreakpoint(F);
    debug.targetRestarted();
    await debug.breakIn(WAIT);
    await debug.go({ ...WAIT, until: LOOP + 5n });
    assertEquals(target.executed.get("RestoreBreakPoint")! >= 64, true);
  });
});

Deno.test("a debugger that leaves takes its breakpoints along", async () => {
  await withDebugger(async (debug, target) => {
    debug.addBreakpoint(BASE);
    const given = new AbortController();
    const going = debug.go({ ...WAIT, signal: given.signal });
    while (target.stopped) await new Promise((wake) => setTimeout(wake, 1));
    given.abort();
    await assertRejects(() => going, KdError, "interrupted");
    assertEquals(target.cpu.memory[0], 0xcc);
    await debug.detach(WAIT);
    assertEquals(target.cpu.memory[0], 0x55);
    assertEquals(target.stopped, false);
    // Stopped at an INT3 of the program, it leaves that behind too.
    target.cpu.memory[Number(LOOP - BASE) + 5] = 0xcc;
    await debug.session.waitForStop(WAIT);
    target.cpu.memory[Number(LOOP - BASE) + 6] = 0xf4;
    await debug.detach(WAIT);
    const stop = await debug.session.waitForStop(WAIT);
    assertEquals(stop.programCounter, LOOP + 6n);
  });
});

Deno.test("the stack is walked from every instruction of a function", async () => {
  await withDebugger(async (debug) => {
    await debug.go({ ...WAIT, until: G });
    for (let n = 0; n < 6; n++) {
      const context = await debug.session.getContext();
      const frames = await walkStack(debug.session, context);
      assertEquals(
        frames.slice(0, 3).map(({ address }) => address),
        [pc(debug), F + 9n, LOOP + 5n],
        `0x${pc(debug).toString(16)}`,
      );
      if (n < 5) await debug.step(WAIT);
      if (pc(debug) < G) break;
    }
  });
});

Deno.test("calls and repeated instructions are known by their bytes", () => {
  const kind = (hex: string, long = true): string =>
    stepKind(Uint8Array.fromHex(hex), long).kind;
  assertEquals(kind("e800000000"), "call");
  assertEquals(kind("ff1500000000"), "call");
  assertEquals(kind("41ffd3"), "call");
  assertEquals(kind("41ffd3", false), "other");
  assertEquals(kind("ffe0"), "other");
  assertEquals(stepKind(Uint8Array.fromHex("f348a5"), true), {
    kind: "repeat",
    length: 3,
  });
  assertEquals(kind("f30f1efa"), "other");
  assertEquals(kind("a5"), "other");
  assertEquals(kind(""), "other");
  assertEquals(kind("f3".repeat(20)), "other");
  const ends = (hex: string): boolean => endsWithCall(Uint8Array.fromHex(hex));
  for (
    const call of [
      "9090e800000000",
      "90909090ffd0",
      "ff1510000000",
      "ff5310",
      "ff142590909090",
      "ff542408",
      "ff9310203040",
    ]
  ) assertEquals(ends(call), true, call);
  for (const other of ["90909090909090", "ffe0", "ff1510", "9000ff15"]) {
    assertEquals(ends(other), false, other);
  }
});
