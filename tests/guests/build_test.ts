import { assertEquals } from "@std/assert";
import {
  assemble,
  compileTarget,
  guests,
  moduleText,
  target,
  TOOLS,
} from "./build.ts";

/** Whether nasm is there. Where all parts are required its absence is a failure. */
function hasNasm(): boolean {
  try {
    new Deno.Command("nasm", { args: ["-v"], stdout: "null" }).outputSync();
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    if (Deno.env.has("SYNDBG_REQUIRE_ALL")) return true;
    console.log("Skipped: rebuilding the guests needs nasm");
    return false;
  }
}

const ignore = !hasNasm();

for (const { source, module, name } of guests) {
  Deno.test({
    name: `the committed image of ${source} is what its source gives`,
    ignore,
    async fn() {
      const text = moduleText(name, source, await assemble(source));
      assertEquals(await Deno.readTextFile(module), text);
    },
  });
}

/** What a tool says of its version, or undefined where there is no such tool. */
function version(tool: string, option: string): string | undefined {
  try {
    const { stdout } = new Deno.Command(tool, { args: [option] }).outputSync();
    return new TextDecoder().decode(stdout).split("\n")[0];
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return undefined;
  }
}

/** Whether gcc and ld are those that built the image: others give other bytes. */
function hasTools(): boolean {
  const gcc = version("gcc", "-dumpfullversion");
  const ld = version("ld", "--version");
  if (gcc === TOOLS.gcc && ld?.endsWith(` ${TOOLS.ld}`)) return true;
  if (gcc === undefined && Deno.env.has("SYNDBG_REQUIRE_ALL")) return true;
  console.log(
    `Skipped: rebuilding the target byte for byte needs gcc ${TOOLS.gcc} and ld ${TOOLS.ld}; found ${gcc}, ${ld}`,
  );
  return false;
}

Deno.test({
  name: "the committed image of the target is what its source gives",
  ignore: !hasTools(),
  async fn() {
    const text = moduleText(
      target.name,
      target.source,
      await compileTarget(),
    );
    assertEquals(await Deno.readTextFile(target.module), text);
  },
});
