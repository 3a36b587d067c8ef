/** Scripts of the console drive the target, as a user has it: `run --guest target --debug kd -c …`. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { loadDisassembler } from "../../cli/debug/disassembler.ts";
import { runCli } from "../cli/_cli.ts";
import { backends, type ConformanceBackend } from "./backends.ts";

/** Runs a script in a process of its own: what was printed. */
async function script(
  { name }: ConformanceBackend,
  mode: string,
  commands: readonly string[],
): Promise<string> {
  const kvm = /^kvm \((\w+)\)$/.exec(name)?.[1];
  const { code, stdout, stderr } = await runCli(
    ...["run", "--guest", "target", "--mode", mode, "--timeout", "3m"],
    ...kvm === undefined
      ? ["--backend", "interp"]
      : ["--backend", "kvm", "--kvm-hyperv", kvm],
    ...["--debug", "kd", "-c", commands.join("; ")],
  );
  assertEquals(code, 0, stdout + stderr);
  return stdout;
}

/** The 64-bit number that `dq counter L1` printed, each time. */
function counters(text: string): bigint[] {
  return [...text.matchAll(/^ffffffff`[0-9a-f]{8} {2}([0-9a-f`]{17})$/gm)]
    .map(([, number]) => BigInt(`0x${number!.replace("`", "")}`));
}

/** The instructions that were printed: address, bytes and, with a disassembler, text. */
function instructions(text: string): string[] {
  return text.match(/^ffffffff`[0-9a-f]{8} [0-9a-f]{2,}(?: .*)?$/gm) ?? [];
}

// It is fetched from npm; in the nested guest, which has no network, target_test.ts steps too.
const disassembles = await loadDisassembler() !== undefined;
if (!disassembles) {
  console.log("Skipped: steps by script: npm:iced-x86 cannot be loaded");
  assert(!Deno.env.has("SYNDBG_REQUIRE_ALL"), "npm:iced-x86 cannot be loaded");
}

for (const backend of backends) {
  for (const mode of ["msr", "hypercall"]) {
    const name = `${backend.name}, ${mode}`;
    const ignore = backend.noInterrupts !== undefined;
    if (ignore) console.log(`Skipped: ${name}: ${backend.noInterrupts}`);

    Deno.test(`${name}: a script reads, breaks in again, and sees the guest have gone on`, async () => {
      const text = await script(backend, mode, [
        ...["lm", "r", "dq counter L1"],
        ...[".runfor 300", "dq counter L1"],
      ]);
      assertStringIncludes(text, "Break instruction exception");
      assertStringIncludes(text, "ffffffff`80119000 target\n");
      assert(/^rip=ffffffff801\w{5} rsp=ffffffff801\w{5}/m.test(text), text);
      const [first, second, ...more] = counters(text);
      assert(more.length === 0 && first! < second!, text);
    });

    Deno.test(
      `${name}: a script stops at a symbol and steps through what it shows`,
      { ignore: ignore || !disassembles },
      async () => {
        const text = await script(backend, mode, [
          ...["bp advance", "g", "u advance L10"],
          ...Array.from({ length: 10 }, () => "t"),
        ]);
        const [, rest] = text.split("Breakpoint 0 hit\n");
        const [here, ...lines] = instructions(rest!);
        const listing = lines.slice(0, -10);
        assertEquals(here, listing[0]);
        let at = 0;
        for (const step of lines.slice(-10)) {
          // One that jumps over instructions does so forwards, to one of the listing.
          const next = listing.indexOf(step, at + 1);
          const jumps = listing[at]!.includes("j");
          assert(jumps ? next > at : next === at + 1, `${step} in ${text}`);
          at = next;
        }
      },
    );

    Deno.test(
      `${name}: a script changes the guest, sees its bug check and its restart`,
      {
        ignore,
      },
      async () => {
        const text = await script(backend, mode, [
          "eb message 63 68 61 6e 67 65 64 0",
          ...["ed command 1", ".runfor 300"],
          ...["ed command 2", "g", "dq bug_check_data L1"],
          ...[".reboot", ".break", "dq bug_check_data L1"],
        ]);
        assertStringIncludes(text, "target: changed\n");
        assertStringIncludes(text, "*** Fatal System Error: 0xdead");
        assertEquals(counters(text), [0xdeadn, 0n], text);
        assertEquals(text.match(/^target: waits for a debugger$/gm)?.length, 2);
      },
    );
  }
}
