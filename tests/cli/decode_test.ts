import { assertEquals, assertStringIncludes } from "@std/assert";
import { KdSession } from "../../hyperv/kd/session.ts";
import { memoryPair } from "../../hyperv/transports/memory_pair.ts";
import { PcapWriter } from "../../hyperv/transports/pcap.ts";
import { TeeTransport } from "../../hyperv/transports/tee.ts";
import { connectUdp } from "../../hyperv/transports/udp_node.ts";
import { listenUdp } from "../../hyperv/transports/udp_listen_node.ts";
import { FakeTarget } from "../hyperv/kd/_fake_target.ts";
import { finishCli, runCli, startCli } from "./_cli.ts";
import { join } from "../hyperv/transports/_captures.ts";

const KEY = "1.2.3.4";
const WAIT = { timeout: 20_000 };

/** A capture of a handshake, a print and a break-in, and of a datagram of somebody else. */
async function record(): Promise<number[]> {
  const parts: Uint8Array[] = [];
  const writer = new PcapWriter((bytes) => parts.push(bytes));
  writer.write(new TextEncoder().encode("something else"), true);
  const [wire, guest] = memoryPair();
  const session = await KdSession.open({
    transport: wire,
    key: KEY,
  });
  const target = await FakeTarget.start({
    transport: new TeeTransport(guest, (data, out) => writer.write(data, out)),
    key: KEY,
  });
  target.cpu.memory.set([0xeb, 0xfe]);
  await session.waitForConnection(WAIT);
  await target.print("hello\n");
  await session.breakIn(WAIT);
  session.close();
  target.close();
  return [...join(parts)];
}

async function withCapture(
  work: (path: string) => Promise<void>,
): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".pcap" });
  try {
    await Deno.writeFile(path, new Uint8Array(await record()));
    await work(path);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("decode prints a capture, a line or a JSON object for each datagram", async () => {
  await withCapture(async (path) => {
    const text = await runCli("decode", path, "--key", KEY);
    assertEquals(text.code, 0);
    const lines = text.stdout.trimEnd().split("\n");
    assertStringIncludes(
      lines[0]!,
      " 10.0.5.5:49152 > 10.0.5.1:50000 v5 control seq 3 target: Offer ",
    );
    assertStringIncludes(
      text.stdout,
      'PrintString id 0x0 processor 0x0 "hello\\n"',
    );
    assertStringIncludes(text.stderr, ` opened, 1 not KDNET`);
    const json = await runCli("decode", path, "--key", KEY, "--json");
    const objects = json.stdout.trimEnd().split("\n").map((line) =>
      JSON.parse(line)
    );
    assertEquals(objects.length, lines.length);
    assertEquals(objects[0].source, "10.0.5.5:49152");
    assertEquals(objects[0].frame, 2);
    assertEquals(objects[0].handshake.name, "Offer");
  });
});

Deno.test("decode without a key prints what is visible", async () => {
  await withCapture(async (path) => {
    const { stdout, stderr } = await runCli("decode", path);
    assertStringIncludes(stdout, "v5 control 374 bytes (no key)");
    assertStringIncludes(stderr, " 0 opened, ");
  });
});

Deno.test("decode relays a live connection, prints it and records it", async () => {
  const host = await listenUdp("127.0.0.1", 0);
  const session = await KdSession.open({ transport: host, key: KEY });
  const path = await Deno.makeTempFile({ suffix: ".pcap" });
  const process = startCli([
    "decode",
    "--listen",
    "0",
    "--forward",
    `127.0.0.1:${host.port}`,
    "--key",
    KEY,
    "--pcap",
    path,
  ]);
  try {
    const reader = process.stderr.getReader();
    const { value } = await reader.read();
    const [, port] = /relays 127\.0\.0\.1:(\d+) to /.exec(
      new TextDecoder().decode(value),
    )!;
    reader.releaseLock();
    const wire = await connectUdp("127.0.0.1", Number(port));
    const target = await FakeTarget.start({ transport: wire, key: KEY });
    target.cpu.memory.set([0xeb, 0xfe]);
    await session.breakIn(WAIT);
    assertEquals(
      await session.readVirtual(0x10_0000n, 1),
      new Uint8Array([0xeb]),
    );
    target.close();
    wire.close();
    process.kill("SIGINT");
    const { code, stdout } = await finishCli(process);
    assertEquals(code, 130);
    assertStringIncludes(
      stdout,
      "guest > debugger v5 control seq 3 target: Offer",
    );
    assertStringIncludes(
      stdout,
      "debugger > guest v5 data seq 1 host: BreakIn",
    );
    const recorded = await runCli("decode", path, "--key", KEY);
    assertStringIncludes(recorded.stdout, "host: ReadVirtualMemory");
  } finally {
    session.close();
    host.close();
    await Deno.remove(path);
  }
});

Deno.test("decode answers bad usage and bad captures with one line and 2", async () => {
  await withCapture(async (path) => {
    const cases = [
      [],
      ["/nonexistent"],
      ["/bin/sh"],
      [path, path],
      [path, "--key", "1.2.3"],
      [path, "--listen", "1"],
      [path, "--pcap", "x"],
      ["--listen", "0"],
      ["--listen", "x:y", "--forward", ":1"],
      ["--listen", "0", "--forward", "::"],
    ];
    for (const args of cases) {
      const { code, stdout, stderr } = await runCli("decode", ...args);
      assertEquals({ code, stdout }, { code: 2, stdout: "" }, args.join(" "));
      assertEquals(stderr.trimEnd().split("\n").length, 1, stderr);
    }
  });
});
