import { assert, assertEquals } from "@std/assert";
import { debugged, finish, GdbClient } from "./_client.ts";

/** A generator of numbers from 0 up to `limit`, the same ones for a seed (xorshift). */
function random(seed: number): (limit: number) => number {
  let x = seed;
  return (limit) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % limit;
  };
}

/** Commands with something to damage in them. None ends the run or lets the guest go for good. */
const COMMANDS = [
  "qSupported:swbreak+;hwbreak+;multiprocess+",
  "?",
  "g",
  `G${"41".repeat(300)}`,
  "p8",
  "P0=12345678",
  "P20=ffffffff",
  "P23=ffffffff",
  "P24=ffffffff",
  "m100000,400",
  "M3000,4:01020304",
  "X3000,4:\x01}\x03*",
  "Z0,100000,1",
  "z0,100000,1",
  "Z1,100006,1",
  "Z2,3000,8",
  "Z4,3001,7",
  "z2,3000,8",
  "Hg1",
  "Hc-1",
  "T1",
  "vCont?",
  "vCont;s:1;c",
  "vCont;c",
  "vCont;r100000,100009:1",
  "c100000",
  "s",
  "S05;100000",
  "qXfer:features:read:target.xml:0,ffff",
  "qRcmd,68656c70",
  "qThreadExtraInfo,1",
  "Qqemu.PhyMemMode:1",
];

/** Takes what comes back, of which no test wants to know, until the stub hangs up. */
async function drain(client: GdbClient): Promise<void> {
  while (await client.next() !== undefined);
}

Deno.test("garbage neither ends the stub nor the guest, nor fills memory", async () => {
  const d = debugged("40 A3 00 30 00 00 90 EB F7");
  const pick = random(0x5eed);
  let { client } = d;
  for (let connection = 0; connection < 20; connection++) {
    const drained = drain(client);
    for (let round = 0; round < 50; round++) {
      const command = [...COMMANDS[pick(COMMANDS.length)]!];
      for (let n = pick(3); n > 0; n--) {
        const at = pick(command.length + 1);
        command.splice(at, pick(3), String.fromCharCode(pick(256)));
      }
      const text = command.join("");
      if (/^(k|D$|vKill)/.test(text)) continue;
      if (pick(4) === 0) client.raw(text);
      else client.send(text);
      if (pick(5) === 0) client.raw("\x03");
      if (pick(10) === 0) client.raw("$".repeat(pick(40_000)));
    }
    await client.close();
    await drained;
    assertEquals(d.stub.busy, false);
    client = new GdbClient(d.stub);
  }
  assertEquals(await client.ask("?"), "T05thread:1;");
  assert((await client.ask("g")).length > 0);
  await finish({ ...d, client });
});

Deno.test("a client that hangs up at any point leaves no breakpoint behind", async () => {
  const d = debugged("40 90 EB FC");
  await d.client.close();
  for (let length = 0; length < 6; length++) {
    const client = new GdbClient(d.stub);
    const drained = drain(client);
    for (
      const command of ["Z0,100001,1", "c", "\x03", "Z0,100000,1", "c"].slice(
        0,
        length,
      )
    ) {
      if (command === "\x03") client.raw(command);
      else client.send(command);
    }
    await client.close();
    await drained;
    assertEquals(d.machine.vm.memory.read(0x10_0000, 4).toHex(), "4090ebfc");
  }
  await finish(d);
});
