import { assertEquals, assertStringIncludes } from "@std/assert";
import { EscapeFilter } from "../../cli/terminal.ts";
import { bzImage } from "../core/loaders/_images.ts";
import { runCli, withImage } from "./_cli.ts";

const MAIN = new URL("../../cli/main.ts", import.meta.url).pathname;

/** Sends "?" and then back what it receives on COM1. */
const ECHO = [
  ...[0x66, 0xba, 0xf8, 3, 0xb0, 0x3f, 0xee], // mov dx, 0x3f8; mov al, '?'; out dx, al
  ...[0x66, 0xba, 0xfd, 3], // wait: mov dx, 0x3fd
  ...[0xec, 0xa8, 1, 0x74, 0xfb], // in al, dx; test al, 1; jz -5
  ...[0x66, 0xba, 0xf8, 3, 0xec, 0xee], // mov dx, 0x3f8; in al, dx; out dx, al
  ...[0xeb, 0xef], // jmp wait
];

function withEcho<T>(work: (path: string) => Promise<T>): Promise<T> {
  return withImage([...bzImage({ code: ECHO })], work);
}

Deno.test("Keys after Ctrl-A are for us, also one read later", () => {
  const done: string[] = [];
  const keys = new EscapeFilter({
    leave: () => done.push("leave"),
    help: () => done.push("help"),
  });
  const filter = (text: string): string =>
    new TextDecoder().decode(keys.filter(new TextEncoder().encode(text)));
  assertEquals(filter("ab\x01"), "ab");
  assertEquals(filter("hc"), "c");
  assertEquals(filter("\x01\x01x\x01?y\x01x"), "\x01xy");
  assertEquals(done, ["help", "leave"]);
});

Deno.test("run --linux echoes what the guest echoes, and Ctrl-A x leaves with 0", async () => {
  await withEcho(async (path) => {
    const process = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-A", "--quiet", MAIN, "run", "--backend", "interp"],
        ...["--linux", path],
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = process.stdin.getWriter();
    await writer.write(new TextEncoder().encode("ab\x01\x01\x01h"));
    const reader = process.stdout.getReader();
    let seen = "";
    while (seen.length < 4) {
      seen += new TextDecoder().decode((await reader.read()).value);
    }
    reader.releaseLock();
    assertEquals(seen, "?ab\x01");
    await writer.write(new TextEncoder().encode("\x01x"));
    await writer.close();
    const { code, stderr } = await process.output();
    assertEquals(code, 0);
    assertStringIncludes(new TextDecoder().decode(stderr), "Ctrl-A x");
  });
});

/**
 * Runs a program in a terminal by script(1), which prints the terminal's state before and after.
 *
 * @param react Told all that was printed and the program's process: the keys to press now.
 */
async function inTerminal(
  run: string,
  react: (text: string, pid: number) => string,
): Promise<string> {
  const state = "stty -a | grep -Eo ' -?icanon'";
  const program = `sh -c 'echo pid $$; exec ${run}'`;
  const process = new Deno.Command("script", {
    args: [
      "-qec",
      `${state}; ${program}; echo "code $?"; ${state}`,
      "/dev/null",
    ],
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const writer = process.stdin.getWriter();
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of process.stdout) {
    text += decoder.decode(chunk, { stream: true });
    const keys = react(text, Number(/pid (\d+)/.exec(text)?.[1]));
    await writer.write(new TextEncoder().encode(keys));
  }
  await writer.close();
  await process.status;
  return text.replaceAll("\r", "").replace(/pid \d+\n/, "");
}

const hasScript = await new Deno.Command("script", { args: ["--version"] })
  .output().then(() => true, () => false);
if (!hasScript) console.log("Skipped: terminal: script is missing");

Deno.test({
  name:
    "run --linux takes keys as they are pressed and gives the terminal back",
  ignore: !hasScript && !Deno.env.has("SYNDBG_REQUIRE_ALL"),
  async fn() {
    await withEcho(async (path) => {
      const run =
        `${Deno.execPath()} run -A --quiet ${MAIN} run --backend interp --linux ${path}`;
      // Ctrl-C goes to the guest, no line has to end.
      const left = await inTerminal(run, (text) => {
        if (text.endsWith("?")) return "\x03z";
        return text.endsWith("z") ? "\x01x" : "";
      });
      assertEquals(left, " icanon\n?\x03zcode 0\n icanon\n");
      const killed = await inTerminal(run, (text, pid) => {
        if (text.endsWith("?")) Deno.kill(pid, "SIGTERM");
        return "";
      });
      assertEquals(killed, " icanon\n?code 143\n icanon\n");
    });
  },
});

Deno.test("run --linux refuses what is no kernel, and options that do not go with it", async () => {
  await withImage([1, 2, 3], async (path) => {
    for (
      const [args, message] of [
        [["--linux", path], "Cannot load Linux image: cut off: 3 bytes"],
        [["--linux", "/nonexistent"], "Cannot read /nonexistent"],
        [["--linux", path, "--initrd", "/none"], "Cannot read /none"],
        [["--linux", path, "--disk", "/none,ro"], "Cannot use --disk /none,ro"],
        [["--linux", path, "--module", path], "with --module"],
        [[path, "--disk", path], "Cannot use --disk without --linux"],
        [["--linux", path, path], `Cannot use --linux with ${path}`],
      ] as const
    ) {
      const { code, stderr } = await runCli("run", ...args);
      assertEquals(code, 2);
      assertStringIncludes(stderr, message);
    }
  });
});
