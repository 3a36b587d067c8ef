import { assert, assertEquals } from "@std/assert";
import {
  datagramJson,
  formatDatagram,
  KdnetDecoder,
} from "../../../hyperv/kd/decoder.ts";
import { KdSession } from "../../../hyperv/kd/session.ts";
import { memoryPair } from "../../../hyperv/transports/memory_pair.ts";
import { TeeTransport } from "../../../hyperv/transports/tee.ts";
import { FakeTarget } from "./_fake_target.ts";

const KEY = "8.8.8.8";

/** The datagrams of a short session, as they pass. */
async function record(): Promise<Uint8Array[]> {
  const datagrams: Uint8Array[] = [];
  const [wire, guest] = memoryPair();
  const session = await KdSession.open({
    transport: new TeeTransport(wire, (data) => datagrams.push(data.slice())),
    key: KEY,
  });
  const target = await FakeTarget.start({ transport: guest, key: KEY });
  target.cpu.memory.set([0xeb, 0xfe]);
  await session.waitForConnection({ timeout: 5000 });
  await target.print("hello\n");
  await session.breakIn({ timeout: 5000 });
  await session.readVirtual(0x10_0000n, 2);
  await session.resume();
  session.close();
  target.close();
  return datagrams;
}

Deno.test("a session is read from its datagrams, with the key", async () => {
  const decoder = await KdnetDecoder.create(KEY);
  const lines: string[] = [];
  for (const datagram of await record()) {
    const decoded = await decoder.decode(datagram);
    assertEquals(decoded.problem, undefined);
    lines.push(formatDatagram(decoded));
  }
  const find = (text: string): boolean =>
    lines.some((line) => line.includes(text));
  assert(lines[0]!.startsWith("v5 control seq 3 target: Offer clientKey "));
  assert(lines[1]!.startsWith("v5 control seq 3 host: Response clientKey "));
  assertEquals(lines[2], "v5 data seq 1 target: Opening host 0x0");
  assert(find('target: PrintString id 0x0 processor 0x0 "hello\\n"'));
  assert(find("host: BreakIn"));
  assert(find("target: Exception id 0x2 code 0x80000003 address 0x100000"));
  assert(
    find("host: ReadVirtualMemory id 0x80000000 address 0x100000 count 0x2"),
  );
  assert(find("actual 0x2 processor 0x0 status 0x0 data 2 bytes"));
  assert(find("host: Continue2 id "));
});

Deno.test("without the key what is clear is told, and with another one why no more is", async () => {
  const datagrams = await record();
  const none = await KdnetDecoder.create();
  assertEquals(
    formatDatagram(await none.decode(datagrams[0]!)),
    "v5 control 374 bytes (no key)",
  );
  assertEquals(
    formatDatagram(await none.decode(new Uint8Array(5))),
    "5 bytes (not KDNET)",
  );
  const other = await KdnetDecoder.create("8.8.8.9");
  assertEquals(
    (await other.decode(datagrams[0]!)).problem,
    "another key, or damaged",
  );
  const late = await KdnetDecoder.create(KEY);
  assertEquals((await late.decode(datagrams[2]!)).problem, "no handshake seen");
  await late.decode(datagrams[1]!);
  assertEquals((await late.decode(datagrams[2]!)).problem, undefined);
  const damaged = datagrams[2]!.slice();
  damaged[20]! ^= 1;
  assertEquals(
    (await late.decode(damaged)).problem,
    "of another session, or damaged",
  );
});

Deno.test("JSON has 64-bit numbers as hexadecimal text", async () => {
  const datagrams = await record();
  const decoder = await KdnetDecoder.create(KEY);
  const objects = [];
  for (const datagram of datagrams) {
    objects.push(JSON.parse(datagramJson(await decoder.decode(datagram))));
  }
  assertEquals(objects[2], {
    length: 54,
    version: 5,
    channel: "data",
    sequence: "0x1",
    from: "target",
    message: { name: "Opening", fields: { host: 0 } },
  });
});
