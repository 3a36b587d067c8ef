/** The target under a debugger of its own: what its stub answers, in both modes, over bad wires too. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { targetGuest } from "../../cli/guests/target_guest.ts";
import { loadImage } from "../../core/loaders/load_image.ts";
import type { Machine, MachineOutcome } from "../../core/machine.ts";
import { createGuestMachine } from "../../hyperv/guest_machine.ts";
import {
  memoryPair,
  type MemoryTransport,
} from "../../hyperv/transports/memory_pair.ts";
import { KdSession } from "../../hyperv/kd/session.ts";
import { backends, type ConformanceBackend } from "./backends.ts";
import { Api, type Dialect, KdHost } from "./_kd_host.ts";

const KEY = "a1b2c3.9zz.0.3w5e11264sgsf";
const BREAKPOINT = 0x8000_0003;
const SINGLE_STEP = 0x8000_0004;
/** Values of the target's variable `command`. */
const Command = { Say: 1, BugCheck: 2, Restart: 3, Divide: 4 } as const;

/** Addresses of the symbols in the image's ELF table. */
const symbols: ReadonlyMap<string, bigint> = (() => {
  const image = targetGuest();
  const view = new DataView(image.buffer);
  const table = Number(view.getBigUint64(40, true));
  const found = new Map<string, bigint>();
  for (let n = 0; n < view.getUint16(60, true); n++) {
    const at = table + 64 * n;
    if (view.getUint32(at + 4, true) !== 2) continue;
    const offset = Number(view.getBigUint64(at + 24, true));
    const end = offset + Number(view.getBigUint64(at + 32, true));
    const names = Number(view.getBigUint64(
      table + 64 * view.getUint32(at + 40, true) + 24,
      true,
    ));
    for (let symbol = offset; symbol < end; symbol += 24) {
      const start = names + view.getUint32(symbol, true);
      const name = new TextDecoder().decode(
        image.subarray(start, image.indexOf(0, start)),
      );
      found.set(name, view.getBigUint64(symbol + 8, true));
    }
  }
  return found;
})();

function symbol(name: string): bigint {
  const address = symbols.get(name);
  assert(address !== undefined, name);
  return address;
}

function u32(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

interface Running {
  machine: Machine;
  outcome: Promise<MachineOutcome>;
  text: () => string;
}

function boot(
  { create }: ConformanceBackend,
  transport: MemoryTransport,
  mode: "msr" | "hypercall",
): Running {
  const bytes: number[] = [];
  const { machine, memory } = createGuestMachine({
    backend: create(),
    memorySize: 16 * 2 ** 20,
    syndbg: { transport, mode },
    onOutput: (byte) => bytes.push(byte),
  });
  loadImage(memory, machine.vcpus[0]!, targetGuest(), {
    commandLine: `key=${KEY}`,
  });
  return {
    machine,
    outcome: machine.run({ timeout: 60_000 }),
    text: () => new TextDecoder().decode(new Uint8Array(bytes)),
  };
}

async function withTarget(
  backend: ConformanceBackend,
  mode: "msr" | "hypercall",
  dialect: Dialect,
  work: (
    host: KdHost,
    running: Running,
    wire: MemoryTransport,
  ) => Promise<void>,
): Promise<void> {
  const [transport, peer] = memoryPair();
  const host = new KdHost(peer, KEY, dialect);
  const running = boot(backend, transport, mode);
  try {
    await host.session();
    await work(host, running, peer);
  } finally {
    running.machine.stop({ kind: "aborted" });
    await running.outcome;
    running.machine.close();
  }
}

for (const backend of backends) {
  for (const mode of ["msr", "hypercall"] as const) {
    const name = `${backend.name}, ${mode}`;
    // A breakpoint is an INT3.
    const ignore = backend.noInterrupts !== undefined;
    if (ignore) {
      console.log(`Skipped: breakpoints, ${name}: ${backend.noInterrupts}`);
    }

    for (const dialect of ["counter", "serial"] as const) {
      Deno.test(
        `${name}: a debugger that numbers its packets by ${dialect} looks, steps and changes`,
        { ignore },
        async () => {
          await withTarget(backend, mode, dialect, async (host, { text }) => {
            const stop = await host.breakIn();
            assertEquals(stop.code, BREAKPOINT);
            assertEquals(host.images[0]?.path, "target");
            const version = await host.request(Api.GetVersion);
            assertEquals(version.view.getUint16(24, true), 0x8664);
            assertEquals(version.view.getBigUint64(32, true), symbol("image"));

            const first = await host.readU64(symbol("counter"));
            host.continue();
            await host.printed("a debugger is there");
            await host.breakIn();
            assert(await host.readU64(symbol("counter")) >= first);

            const set = await host.request(
              Api.WriteBreakpoint,
              (head) => head.setBigUint64(16, symbol("advance"), true),
            );
            assertEquals(set.status, 0);
            host.continue();
            const hit = await host.stopped();
            assertEquals([hit.code, hit.pc], [BREAKPOINT, symbol("advance")]);
            const stream = new Uint8Array(
              hit.view.buffer,
              hit.view.byteOffset + 216,
              16,
            ).slice();
            const handle = set.view.getUint32(24, true);
            const restored = await host.request(
              Api.RestoreBreakpoint,
              (head) => head.setUint32(16, handle, true),
            );
            assertEquals(restored.status, 0);
            assertEquals(await host.read(hit.pc, 16), stream);
            const context = await host.request(Api.GetContext);
            const fields = new DataView(context.data.slice().buffer);
            assertEquals(fields.getBigUint64(0xf8, true), hit.pc);
            let last = hit.pc;
            for (let n = 0; n < 10; n++) {
              const { code, pc } = await host.step();
              assertEquals(code, SINGLE_STEP);
              assert(pc !== last, pc.toString(16));
              last = pc;
            }

            await host.write(
              symbol("message"),
              new TextEncoder().encode("written by the debugger\0"),
            );
            await host.write(symbol("command"), u32(Command.Say));
            host.continue();
            await host.printed("target: written by the debugger");
            assertStringIncludes(text(), "target: written by the debugger");
          });
        },
      );
    }

    Deno.test(
      `${name}: a bug check reaches the debugger, and the target restarts`,
      { ignore },
      async () => {
        const [transport, peer] = memoryPair();
        const host = new KdHost(peer, KEY, "counter");
        let running = boot(backend, transport, mode);
        try {
          await host.session();
          await host.breakIn();
          await host.write(symbol("command"), u32(Command.BugCheck));
          host.continue();
          const stop = await host.stopped();
          assertEquals(stop.code, BREAKPOINT);
          assertEquals(await host.readU64(symbol("bug_check_data")), 0xdeadn);
          await host.printed("*** Fatal System Error: 0xdead");
          host.continue();
          // The int3 is the kernel's own: the debugger goes over it.
          await host.stopped();
          host.order(Api.Reboot);
          assertEquals(await running.outcome, { kind: "reset" });
          running.machine.close();
          running = boot(backend, transport, mode);
          await host.session(1);
          assertEquals((await host.breakIn()).code, BREAKPOINT);
        } finally {
          running.machine.stop({ kind: "aborted" });
          await running.outcome;
          running.machine.close();
        }
      },
    );

    Deno.test(`${name}: a session lives through loss, repetition and forgery`, async () => {
      await withTarget(backend, mode, "counter", async (host, _, wire) => {
        await host.breakIn();
        let seed = 1;
        const random = (): number => (seed = seed * 48_271 % 0x7fff_ffff);
        host.onDatagram = () => random() % 10 !== 0;
        host.onSend = (data) => {
          const forged = data.slice();
          forged[random() % data.length]! ^= 1 << random() % 8;
          const choice = random() % 10;
          if (choice === 0) return [];
          if (choice === 1) return [data, data];
          return [forged, data.subarray(0, random() % data.length), data];
        };
        for (let n = 0; n < 20; n++) {
          const bytes = await host.read(symbol("handlers"), 64);
          assertEquals(bytes[0], 0x6a);
        }
        assertEquals(host.sessions, 1);
        assertEquals(wire.pending, 0);
      });
    });

    Deno.test(`${name}: a debugger that dies while the target is stopped gives way to the next`, async () => {
      await withTarget(backend, mode, "counter", async (host, _, wire) => {
        const { pc } = await host.breakIn();
        const next = await KdSession.open({ transport: wire, key: KEY });
        try {
          assertEquals(
            (await next.breakIn({ timeout: 20_000 })).programCounter,
            pc,
          );
        } finally {
          next.close();
        }
      });
    });

    Deno.test(`${name}: a target that nobody debugs goes on running`, async () => {
      const [transport, peer] = memoryPair();
      peer.onActivity = () => peer.receive();
      const { machine, text, outcome } = boot(backend, transport, mode);
      const end = performance.now() + 700;
      while (performance.now() < end) {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      machine.stop({ kind: "aborted" });
      await outcome;
      assertStringIncludes(text(), "target: waits for a debugger");
      machine.close();
    });
  }
}
