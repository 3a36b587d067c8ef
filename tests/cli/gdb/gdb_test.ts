import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { runCli, withImage } from "../_cli.ts";
import { gdb, missing, serve, withGuest } from "./_gdb.ts";

const reason = missing();
if (reason !== undefined) console.log(`Skipped: Debian's GDB: ${reason}`);

function gdbTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ignore: reason !== undefined, fn });
}

/** Asserts that the lines follow each other in a text, with others between them. */
function assertLines(
  text: string,
  ...lines: readonly (string | RegExp)[]
): void {
  let at = 0;
  const given = text.split("\n");
  for (const line of lines) {
    const found = given.findIndex((one, n) =>
      n >= at &&
      (typeof line === "string" ? one.includes(line) : line.test(one))
    );
    assert(found >= 0, `not printed, or not here: ${line}\n${text}`);
    at = found + 1;
  }
}

for (const bits of [32, 64] as const) {
  const [ip, cx] = bits === 64 ? ["rip", "rcx"] : ["eip", "ecx"];
  gdbTest(
    `GDB debugs a ${bits}-bit guest by its symbols`,
    () =>
      withGuest(bits, async (image) => {
        const stub = await serve("--gdb-wait", image);
        const text = await gdb(
          image,
          stub.address,
          [
            `info registers ${ip}`,
            "break work",
            "continue",
            "print (int)counter",
            "stepi",
            "stepi",
            "print $eax",
            "x/i $pc",
            "stepi",
            "nexti",
            "next",
            "where 1",
            "info registers cr0",
            "info threads",
            "continue",
            "delete",
            "hbreak work",
            "continue",
            "continue",
            "delete",
            "watch *(int *)&counter",
            "continue",
            "delete",
            "print (int)leave",
            "set *(int *)&leave = 1",
            "print (int)leave",
            "monitor info registers",
            `set $${cx} = 0x1234`,
            `info registers ${cx}`,
            "break *$pc",
            "x/2xb $pc",
            "delete",
            "continue",
          ],
        );
        assertLines(
          text,
          "_start () at",
          new RegExp(`^${ip} +0x100000`),
          "Breakpoint 1, work () at",
          "$1 = 0",
          "$2 = 1",
          /^=> 0x1000\w+ <work\+\d+>:\tnop/,
          /^#0 .*(again|work|_start)/,
          /^cr0 .*\[.*PE.*\]/,
          "Thread 1 (vCPU 0)",
          "Breakpoint 1, work () at",
          "Breakpoint 2, work () at",
          "Breakpoint 2, work () at",
          "Hardware watchpoint 3",
          /^Old value = \d+/,
          /^New value = \d+/,
          "$3 = 0",
          "$4 = 1",
          new RegExp(`^${cx} +0x1234`),
          "exited with code 07",
        );
        assertStringIncludes(text, "rflags 00000000", "the monitor");
        assertEquals(text.includes("warning"), false, text);
        const { code, stderr } = await stub.finish();
        assertEquals(code, 7);
        assertMatch(stderr, /GDB connected from 127\.0\.0\.1:\d+\n/);
      }),
  );
}

gdbTest(
  "GDB interrupts a guest that spins, leaves it, and comes back",
  () =>
    withGuest(64, async (image) => {
      const stub = await serve(image);
      const interrupt = [
        "python import threading, os, signal",
        "python threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()",
        "continue",
      ];
      const first = await gdb(image, stub.address, [
        ...interrupt,
        "print (int)counter > 0",
        "break work",
        "continue",
        "disconnect",
      ]);
      assertLines(
        first,
        "received signal SIGINT",
        "$1 = 1",
        "Breakpoint 1, work",
      );
      const second = await gdb(image, stub.address, [
        "print $pc == (long)work",
        "x/2xb work",
        "print (int)counter",
        "detach",
      ]);
      // Stopped where it was left, and the breakpoint is gone.
      assertLines(second, "$1 = 1", /<work>:\t0xff\t0x05/, /^\$2 = \d+/);
      const counter = Number(/^\$2 = (\d+)/m.exec(second)![1]);
      const third = await gdb(image, stub.address, [
        `print (unsigned)counter != ${counter}`,
        "kill",
      ]);
      assertLines(third, "$1 = 1");
      assertEquals((await stub.finish()).code, 130);
    }),
);

gdbTest("GDB debugs 16-bit code", async () => {
  // l: inc ax; push ax; pop bx; jmp l
  await withImage([0x40, 0x50, 0x5b, 0xeb, 0xfb], async (image) => {
    const stub = await serve("--gdb-wait", image);
    const text = await gdb(undefined, stub.address, [
      "x/4i 0x7c00",
      "break *0x7c02",
      "continue",
      "continue",
      "print $ax",
      "x/1xh $sp",
      "stepi",
      "print $bx",
      "set architecture i386",
      "x/i 0x7c00",
      "kill",
    ]);
    assertLines(
      text,
      /0x7c00:\tinc +%ax/,
      /0x7c01:\tpush +%ax/,
      "Breakpoint 1",
      "Breakpoint 1",
      "$1 = 2",
      ":\t0x0002",
      "$2 = 2",
      /0x7c00:\tinc +%eax/,
    );
    assertEquals((await stub.finish()).code, 130);
  });
});

Deno.test("run --gdb turns away what is no address, and --gdb-wait alone", async () => {
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const cases = [
    ["--gdb", "1234x"],
    ["--gdb", ":65536"],
    ["--gdb", "host"],
    ["--gdb", `:${taken.addr.port}`],
    ["--gdb-wait"],
    ["--gdb", ":0", "--gdb-arch", "arm"],
  ];
  for (const args of cases) {
    const { code, stderr } = await runCli(
      "run",
      "--backend",
      "interp",
      ...args,
    );
    assertEquals(code, 2, args.join(" "));
    assertMatch(stderr, /^Cannot .*\n$/, args.join(" "));
  }
  taken.close();
});

Deno.test("run --gdb serves one client, and none that stays hinders its end", async () => {
  const stub = await serve("--timeout", "1s", "--gdb-wait");
  const port = Number(/:(\d+)$/.exec(stub.address)![1]);
  const first = await Deno.connect({ hostname: "127.0.0.1", port });
  await first.write(new TextEncoder().encode("$?#3f"));
  const buffer = new Uint8Array(64);
  await first.read(buffer);
  const second = await Deno.connect({ hostname: "127.0.0.1", port });
  assertEquals(await second.read(buffer).catch(() => null), null);
  second.close();
  const { code, stderr } = await stub.finish();
  assertEquals(code, 124);
  assertStringIncludes(stderr, "the time is over");
  first.close();
});
