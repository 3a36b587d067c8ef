/**
 * The debugger's end over loopback UDP, with a target in the same process: 16 MiB of memory read, and lines
 * that the target prints. Both ends' work counts, so a real target is faster.
 */
import { KdSession } from "../hyperv/kd/session.ts";
import { listenUdp } from "../hyperv/transports/udp_listen_node.ts";
import { connectUdp } from "../hyperv/transports/udp_node.ts";
import { FakeTarget } from "../tests/hyperv/kd/_fake_target.ts";

const KEY = "1.2.3.4";
const BASE = 0x10_0000n;
const SIZE = 16 * 2 ** 20;
const LINES = 1000;

const listener = await listenUdp("127.0.0.1", 0);
let lines = 0;
const session = await KdSession.open({
  transport: listener,
  key: KEY,
  events: { onPrint: () => lines++ },
});
const wire = await connectUdp("127.0.0.1", listener.port);
const target = await FakeTarget.start({
  transport: wire,
  key: KEY,
  base: BASE,
  memorySize: SIZE,
});
// jmp $
target.cpu.memory.set([0xeb, 0xfe]);

Deno.bench(`KDNET: ${LINES} lines printed`, { n: 3, warmup: 1 }, async () => {
  await session.waitForConnection({ timeout: 10_000 });
  const start = lines;
  for (let n = 0; n < LINES; n++) await target.print("a line of the target\n");
  if (lines - start !== LINES) throw new Error(`Cannot count lines: ${lines}`);
});

Deno.bench("KDNET: 16 MiB read", { n: 1, warmup: 0 }, async () => {
  await session.breakIn({ timeout: 10_000 });
  const { length } = await session.readVirtual(BASE, SIZE);
  if (length !== SIZE) throw new Error(`Cannot read memory: ${length} bytes`);
  await session.resume();
});
