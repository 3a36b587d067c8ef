import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { gdb, missing, serve } from "./cli/gdb/_gdb.ts";
import { runProgram, serveRepository } from "./_remote.ts";

const ROOT = new URL("../", import.meta.url);
const README = await Deno.readTextFile(new URL("README.md", ROOT));

/** The code blocks of a language. */
function blocks(language: string): string[] {
  const fence = new RegExp("^```" + language + "\\n([^]*?)^```$", "gm");
  return [...README.matchAll(fence)].map((match) => match[1]!);
}

async function runShell(
  command: string,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const output = await new Deno.Command("bash", {
    args: ["-c", command],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return {
    code: output.code,
    stdout: decoder.decode(output.stdout),
    stderr: decoder.decode(output.stderr),
  };
}

/** What differs from run to run. */
function normalize(line: string): string {
  return line.replace(/127\.0\.0\.1:\d+/, "ADDRESS").replace(/\d+ ms/, "TIME");
}

for (
  const command of blocks("sh").flatMap((block) => block.trim().split("\n"))
) {
  const task = /^deno task (\S+)$/.exec(command)?.[1];
  if (task === "test") continue; // This very run.
  if (command.includes("--gdb-wait")) continue; // Waits for GDB, which comes below.
  Deno.test(`README command: ${command}`, async () => {
    const { code, stdout, stderr } = await runShell(command);
    assertEquals(code, 0, stdout + stderr);
  });
}

Deno.test({
  name: "README's GDB session leaves a guest that ends",
  ignore: missing() !== undefined,
  async fn() {
    const [connect, ...commands] = blocks("gdb")[0]!.trim().split("\n");
    assertEquals(connect, "target remote :1234");
    assertStringIncludes(README, "run --gdb :1234 --gdb-wait\n");
    const stub = await serve("--gdb-wait");
    const text = await gdb(undefined, stub.address, commands);
    assertStringIncludes(text, "\ncs             0x8");
    assertStringIncludes(text, "  efer 0000");
    assertEquals((await stub.finish()).code, 0);
  },
});

Deno.test("README names tasks that there are", () => {
  const names = [...README.matchAll(/deno task (\w+)/g)].map((match) =>
    match[1]!
  );
  assert(names.includes("test"));
  for (const name of names) assert(name in config.tasks, name);
});

Deno.test("README shows lines that the demo prints", async () => {
  const { stdout } = await runShell("deno run -A cli/main.ts");
  const printed = stdout.split("\n").map(normalize);
  const shown = blocks("text")[0]!.trimEnd().split("\n");
  let at = 0;
  for (const line of shown) {
    if (line === "...") continue;
    const found = printed.indexOf(normalize(line), at);
    assert(found >= 0, `not printed, or not here: ${line}\n${stdout}`);
    at = found + 1;
  }
});

Deno.test("README's program runs by URL with no permission", async () => {
  const server = serveRepository();
  try {
    const host = `127.0.0.1:${server.addr.port}`;
    for (const block of blocks("ts")) {
      assertStringIncludes(block, "http://localhost:8000/");
      const { code, stdout, stderr } = await runProgram(
        block.replace("localhost:8000", host),
        ["--check", `--allow-import=${host}`],
      );
      assertEquals(
        { code, stdout },
        { code: 0, stdout: "halted\nhello\n" },
        stderr,
      );
    }
  } finally {
    await server.shutdown();
  }
});
