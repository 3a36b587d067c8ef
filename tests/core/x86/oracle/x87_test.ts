import { assertEquals } from "@std/assert";
import { NativeProgram } from "./native_program.ts";
import { BATCH, X87_FAMILIES, x87Cases } from "./x87_cases.ts";
import { X87Interpreter } from "./x87_interpreted.ts";
import { compare } from "./x87_native.ts";
import { describe, digest, pack, same, unpack } from "./x87_outcomes.ts";

const interpreter = new X87Interpreter();

/** The program that executes cases on the processor, or why there is none. */
async function prepare(): Promise<NativeProgram | string> {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    return "it needs Linux on x86-64";
  }
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

for (const family of X87_FAMILIES) {
  Deno.test(`the interpreter does ${family.name} as recorded`, async () => {
    const file = new URL(`data/${family.name}.bin`, import.meta.url);
    const data = await Deno.readFile(file);
    const view = new DataView(data.buffer);
    for (let batch = 0; batch < family.batches; batch++) {
      const cases = x87Cases(family, batch);
      const outcomes = cases.map((test) => interpreter.run(test));
      if (family.exact) {
        const wanted = view.getUint32(4 * batch, true);
        // x87_record.ts with a number shows cases that differ.
        assertEquals(digest(outcomes), wanted, `batch ${batch}`);
        continue;
      }
      const size = pack(outcomes).length;
      const wanted = unpack(outcomes, data.subarray(batch * size));
      const wrong = outcomes.filter((got, n) => !same(family, got, wanted[n]!));
      assertEquals(
        wrong.map((got) => {
          const n = outcomes.indexOf(got);
          return describe(cases[n]!, got, wanted[n]!);
        }),
        [],
      );
    }
  });
}

const program = await prepare();
const missing = typeof program === "string";
if (missing) console.log(`Skipped: comparison of the x87: ${program}`);

Deno.test({
  name: "the interpreter does other x87 cases as this machine's processor does",
  ignore: missing,
  async fn() {
    await using native = program as NativeProgram;
    for (const family of X87_FAMILIES) {
      assertEquals(
        await compare(native, interpreter, family, 500_000, 1000 / BATCH),
        [],
      );
    }
  },
});
