import { assertEquals } from "@std/assert";
import { assemble, guests, moduleText } from "./build.ts";

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
