import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { connectUdp } from "../../hyperv/transports/udp_node.ts";
import { FakeTarget } from "../hyperv/kd/_fake_target.ts";
import { MAP, PROGRAM } from "../hyperv/kd/_program.ts";
import { type CliResult, runCli } from "./_cli.ts";

const KEY = "1.2.3.4";
const MAIN = new URL("../../cli/main.ts", import.meta.url);

/** A console process. */
interface Console {
  process: Deno.ChildProcess;
  target: FakeTarget;
  /** Types a line. */
  type(line: string): Promise<void>;
  /** Waits for text on stdout. */
  expect(text: string): Promise<void>;
}

/** Starts `debug` with a target, lets `work` use both, and returns what was printed. */
async function withConsole(
  args: readonly string[],
  work: (console: Console) => Promise<void> = async () => {},
  key = KEY,
): Promise<CliResult> {
  const process = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--quiet",
      MAIN.pathname,
      "debug",
      "--listen",
      "127.0.0.1:0",
      "--key",
      KEY,
      ...args,
    ],
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const decoder = new TextDecoder();
  const errors = process.stderr.getReader();
  let stderr = "";
  while (!stderr.includes("\n")) {
    stderr += decoder.decode((await errors.read()).value);
  }
  const [, port] = /waits for a target at 127\.0\.0\.1:(\d+)/.exec(stderr)!;
  const wire = await connectUdp("127.0.0.1", Number(port));
  const target = await FakeTarget.start({ transport: wire, key });
  target.cpu.memory.set(PROGRAM);
  const input = process.stdin.getWriter();
  const output = process.stdout.getReader();
  let stdout = "";
  try {
    await work({
      process,
      target,
      type: (line) => input.write(new TextEncoder().encode(`${line}\n`)),
      expect: async (text) => {
        while (!stdout.includes(text)) {
          const { value, done } = await output.read();
          if (done) throw new Error(`"${text}" does not come: ${stdout}`);
          stdout += decoder.decode(value);
        }
      },
    });
    const rest = async (
      reader: ReadableStreamDefaultReader<Uint8Array>,
    ): Promise<string> => {
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return text;
        text += decoder.decode(value);
      }
    };
    const [more, moreErrors] = await Promise.all([rest(output), rest(errors)]);
    const { code } = await process.status;
    return { code, stdout: stdout + more, stderr: stderr + moreErrors };
  } finally {
    await input.close().catch(() => {});
    target.close();
    wire.close();
  }
}

async function withMap(work: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".map" });
  try {
    await Deno.writeTextFile(path, MAP);
    await work(path);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("debug -c runs commands and lets the target go on", async () => {
  await withMap(async (path) => {
    let target: FakeTarget | undefined;
    const { code, stdout, stderr } = await withConsole([
      "--symbols",
      path,
      "-c",
      "bp g; g; k 2; bc *; ? f",
    ], (console) => {
      target = console.target;
      return Promise.resolve();
    });
    assertEquals(target?.stopped, false);
    assertStringIncludes(stdout, "Breakpoint 0 hit\ng:\n");
    assertStringIncludes(stdout, "f+0x9");
    assert(
      stdout.endsWith("Evaluate expression: 1048608 = 00000000`00100020\n"),
      stdout,
    );
    assertStringIncludes(stderr, "syndbg: A target is connected\n");
    assertEquals(code, 0);
  });
});

Deno.test("debug --json prints results and events as objects", async () => {
  const { stdout, code } = await withConsole([
    "--json",
    "-c",
    ".runfor 50; r rip; .crash; nonsense; r rip",
  ], async ({ target }) => {
    while (!target.stopped) await new Promise((wake) => setTimeout(wake, 5));
  });
  const objects = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
  const commands = objects.filter((object) => "command" in object);
  assertEquals(commands.map(({ command }) => command), [
    ".break",
    ".runfor 50",
    "r rip",
    ".crash",
    "nonsense",
  ]);
  assertEquals(commands[1].result.state, "break");
  assertEquals(
    commands.at(-1).error,
    "Cannot run nonsense: unknown command (see .help)",
  );
  assertEquals(objects[0], { event: "connected" });
  assert(
    objects.some(({ event, text }) =>
      event === "print" && text.startsWith("*** Fatal System Error")
    ),
  );
  assertEquals(code, 1);
});

Deno.test("debug takes commands from standard input, and Ctrl-C breaks in", async () => {
  const { stdout, code } = await withConsole(
    [],
    async ({ process, target, type, expect }) => {
      await expect("A target is connected\n");
      await target.print("hello from the target\n");
      await expect("hello from the target\n");
      await type("r rip");
      await expect("the target runs\n");
      process.kill("SIGINT");
      await expect("Break instruction exception");
      await type("g");
      while (target.stopped) await new Promise((wake) => setTimeout(wake, 5));
      process.kill("SIGINT");
      await type("? 1+1; q");
    },
  );
  assertStringIncludes(stdout, "Evaluate expression: 2 = 00000000`00000002\n");
  assertEquals(stdout.match(/Break instruction/g)?.length, 2);
  assertEquals(code, 0);
});

Deno.test("debug takes a target up again that was restarted", async () => {
  const { stdout } = await withConsole([], async ({ target, type, expect }) => {
    await expect("A target is connected\n");
    await type(".break");
    await expect("Break instruction exception");
    await target.restart();
    await expect("The target was restarted\n");
    await type(".break; r rip; q");
  });
  assertEquals(stdout.match(/Break instruction/g)?.length, 2);
});

Deno.test("debug -c ends with 124 when the time is over, and with 130 on Ctrl-C", async () => {
  const late = await withConsole(
    ["-c", "r", "--timeout", "300ms"],
    undefined,
    "1.2.3.5",
  );
  assertEquals(late.code, 124);
  const stopped = await withConsole(
    ["-c", "g"],
    async ({ process, target }) => {
      while (!target.executed.has("Continue2")) {
        await new Promise((wake) => setTimeout(wake, 5));
      }
      process.kill("SIGINT");
    },
  );
  assertEquals(stopped.code, 130);
});

Deno.test("debug answers bad usage with one line and 2", async () => {
  const cases = [
    [],
    ["--key", "1.2.3"],
    ["--key", KEY, "more"],
    ["--key", KEY, "--listen", "a:b"],
    ["--key", KEY, "--listen", "1.2.3.4:5"],
    ["--key", KEY, "--listen", "127.0.0.1:0", "--symbols", "/nonexistent"],
    ["--key", KEY, "--timeout", "soon"],
    ["--key", KEY, "--pcap", "/nonexistent/x"],
  ];
  for (const args of cases) {
    const { code, stdout, stderr } = await runCli("debug", ...args);
    assertEquals({ code, stdout }, { code: 2, stdout: "" }, args.join(" "));
    const last = stderr.trimEnd().split("\n").at(-1)!;
    assert(last.startsWith("Cannot "), stderr);
  }
});
