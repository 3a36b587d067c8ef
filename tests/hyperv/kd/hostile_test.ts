import { assert, assertEquals } from "@std/assert";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { KdnetCipher, KdnetDirection } from "../../../hyperv/kd/cipher.ts";
import { encodePoke, mappedAddress } from "../../../hyperv/kd/handshake.ts";
import { KdnetHost } from "../../../hyperv/kd/kdnet_host.ts";
import { KdnetTarget } from "../../../hyperv/kd/kdnet_target.ts";
import { parseKdnetKey } from "../../../hyperv/kd/key.ts";
import { parseManipulate } from "../../../hyperv/kd/manipulate.ts";
import { parseKdContent } from "../../../hyperv/kd/packet.ts";
import { KdSession } from "../../../hyperv/kd/session.ts";
import { parseStateChange } from "../../../hyperv/kd/state_change.ts";
import { parseDebugIo, parseFileIo } from "../../../hyperv/kd/target_io.ts";
import { memoryPair } from "../../../hyperv/transports/memory_pair.ts";
import { FakeTarget } from "./_fake_target.ts";
import { ATTACKS, HostileWire, Random } from "./_hostile_wire.ts";

const KEY = "1.2.3.4";
const BASE = 0x10_0000n;
const ROUNDS = 10_000;
/** Bytes that may be left on the heap after all rounds. */
const SLACK = 4 * 2 ** 20;

function heap(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return Deno.memoryUsage().heapUsed;
}

Deno.test(`a session goes on while ${ROUNDS} datagrams are harmed, and memory stays flat`, async () => {
  const [host, guest] = memoryPair();
  const random = new Random(0x5eed);
  const fromHost = new HostileWire(host, random, 4);
  const fromTarget = new HostileWire(guest, random, 4);
  const harmed = (): number => fromHost.total + fromTarget.total;
  const session = await KdSession.open({
    transport: fromHost,
    key: KEY,
    timing: { interval: 1, tries: 100_000 },
  });
  const target = await FakeTarget.start({
    transport: fromTarget,
    key: KEY,
    interval: 1,
    base: BASE,
  });
  // l: inc rax; jmp l
  target.cpu.memory.set([0x48, 0xff, 0xc0, 0xeb, 0xfb]);
  try {
    await session.breakIn({ timeout: 20_000 });
    let writes = 0;
    let before = 0;
    for (let round = 0; harmed() < ROUNDS; round++) {
      if (before === 0 && harmed() > ROUNDS / 5) before = heap();
      if (round % 50 === 49) {
        await session.resume();
        await session.breakIn({ timeout: 20_000 });
      }
      const at = BASE + 0x1000n + BigInt(random.below(0x8000));
      const bytes = Uint8Array.from(
        { length: 1 + random.below(600) },
        () => random.below(256),
      );
      await session.writeVirtual(at, bytes);
      assertEquals(await session.readVirtual(at, bytes.length), bytes);
      writes++;
    }
    assertEquals(target.executed.get("WriteVirtualMemory"), writes);
    for (const attack of ATTACKS) {
      assert(fromHost.harm[attack] + fromTarget.harm[attack] > 1000, attack);
    }
    assert(session.counters.forged > 0 && session.counters.replayed > 0);
    const growth = heap() - before;
    assert(growth < SLACK, `the heap grew by ${growth} bytes`);
  } finally {
    session.close();
    target.close();
  }
});

Deno.test("replayed handshakes do not end a session, and a new target's do", async () => {
  const sent: Uint8Array[] = [];
  const host = await KdnetHost.create(KEY, (data) => sent.push(data));
  const control = await KdnetCipher.control(parseKdnetKey(KEY));
  const offers: Uint8Array[] = [];
  const connect = async (): Promise<KdnetTarget> => {
    const out: Uint8Array[] = [];
    const target = await KdnetTarget.create(KEY, (data) => out.push(data));
    await target.poke();
    offers.push(out[0]!);
    await host.receive(out.pop()!);
    assertEquals((await target.receive(sent.at(-1)!))?.kind, "connected");
    // A response counts once.
    assertEquals(await target.receive(sent.at(-1)!), undefined);
    await target.send(new Uint8Array([1]));
    const event = await host.receive(out.pop()!);
    assertEquals(event?.kind === "data" && event.fresh, true);
    return target;
  };
  const first = await connect();
  for (let n = 0; n < 20; n++) {
    offers.push(
      await control.seal({
        version: 5,
        sequence: BigInt(n),
        direction: KdnetDirection.FromTarget,
        payload: encodePoke({
          clientKey: new Uint8Array(32).fill(n),
          session: mappedAddress(0, 0),
        }),
      }),
    );
  }
  for (const offer of offers) await host.receive(offer);
  await host.send(new Uint8Array([2]));
  assertEquals((await first.receive(sent.at(-1)!))?.kind, "data");
  // The same offer gets the same answer.
  await host.receive(offers.at(-1)!);
  const answer = sent.at(-1)!;
  await host.receive(offers.at(-1)!);
  assertEquals(sent.at(-1), answer);

  const second = await connect();
  await host.send(new Uint8Array([3]));
  assertEquals((await second.receive(sent.at(-1)!))?.kind, "data");
  assertEquals(await first.receive(sent.at(-1)!), undefined);
  assertEquals(first.counters.forged, 1);
});

Deno.test("an end does not take what it sent itself", async () => {
  const sent: Uint8Array[] = [];
  const host = await KdnetHost.create(KEY, (data) => sent.push(data));
  const out: Uint8Array[] = [];
  const target = await KdnetTarget.create(KEY, (data) => out.push(data));
  await target.poke();
  await target.receive(out[0]!);
  await host.receive(out[0]!);
  assertEquals(await host.receive(sent[0]!), undefined);
  await target.receive(sent[0]!);
  await target.send(new Uint8Array([1]));
  assertEquals(await target.receive(out.at(-1)!), undefined);
  await host.receive(out.at(-1)!);
  await host.send(new Uint8Array([1]));
  assertEquals(await host.receive(sent.at(-1)!), undefined);
  assertEquals(host.counters.unexpected, 2);
  assertEquals(target.counters.unexpected, 2);
});

Deno.test("parsers take any bytes", () => {
  const random = new Random(0xc0de);
  for (let round = 0; round < 20_000; round++) {
    const bytes = Uint8Array.from(
      { length: random.below(300) },
      () => random.below(256),
    );
    const view = new DataView(bytes.buffer);
    const marks = [
      0x3030_3030,
      0x6969_6969,
      0x3030,
      0x3031,
      0x3032,
      0x3230,
      0x3430,
    ];
    if (bytes.length >= 4) view.setUint32(0, marks[random.below(7)]!, true);
    parseKdContent(bytes);
    parseStateChange(bytes);
    parseManipulate(bytes);
    parseDebugIo(bytes);
    parseFileIo(bytes);
  }
});
