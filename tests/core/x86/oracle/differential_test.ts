/** Random sequences of user code, on the interpreter and on this machine's processor. */
import { assertEquals } from "@std/assert";
import { interpreter } from "../../../../core/x86/backend.ts";
import { CaseMachine } from "./case_machine.ts";
import { compare, onBackend, onProcessor } from "./differential.ts";
import { NativeProgram } from "./native_program.ts";

/** The program that executes them, or why there is none. */
async function prepare(): Promise<NativeProgram | string> {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    return "it needs Linux on x86-64";
  }
  // Undefined flags are AMD's.
  if (!/AuthenticAMD/.test(await Deno.readTextFile("/proc/cpuinfo"))) {
    return "the processor is not AMD's";
  }
  try {
    return await NativeProgram.build();
  } catch (error) {
    if (
      !(error instanceof Deno.errors.NotFound) ||
      Deno.env.has("SYNDBG_REQUIRE_ALL")
    ) throw error;
    return "gcc is missing";
  }
}

const program = await prepare();
const missing = typeof program === "string";
if (missing) console.log(`Skipped: comparison with the processor: ${program}`);

Deno.test({
  name: "interp: 20000 random sequences of user code end as on the processor",
  ignore: missing,
  async fn() {
    await using native = program as NativeProgram;
    const machine = new CaseMachine(interpreter());
    const differences = await compare(
      onBackend(machine),
      onProcessor((cases) => native.run(cases)),
      "user",
      "test",
      20_000,
    );
    machine.close();
    assertEquals(differences, []);
  },
});
