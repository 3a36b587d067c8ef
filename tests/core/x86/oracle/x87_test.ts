import { assertEquals } from "@std/assert";
import { buildNative } from "./native.ts";
import { BATCH, X87_FAMILIES, x87Cases } from "./x87_cases.ts";
import { X87Interpreter } from "./x87_interpreted.ts";
import { compare } from "./x87_native.ts";
import { describe, digest, pack, same, unpack } from "./x87_outcomes.ts";

const interpreter = new X87Interpreter();

/** Whether cases can run here: gcc and an AMD processor. */
function hasProcessor(): boolean {
  const missing = (what: string): boolean => {
    if (Deno.env.has("SYNDBG_REQUIRE_ALL")) return true;
    console.log(`Skipped: comparing with this processor needs ${what}`);
    return false;
  };
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    return missing("Linux on x86-64");
  }
  if (!Deno.readTextFileSync("/proc/cpuinfo").includes("AuthenticAMD")) {
    // Nobody can install one.
    console.log("Skipped: comparing with this processor needs an AMD one");
    return false;
  }
  try {
    const quiet = { stdout: "null", stderr: "null" } as const;
    new Deno.Command("gcc", { args: ["--version"], ...quiet }).outputSync();
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return missing("gcc");
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

Deno.test({
  name: `the interpreter does other x87 cases as this machine's processor does`,
  ignore: !hasProcessor(),
  async fn() {
    const program = await buildNative();
    try {
      for (const family of X87_FAMILIES) {
        assertEquals(
          await compare(program, interpreter, family, 500_000, 1000 / BATCH),
          [],
        );
      }
    } finally {
      await Deno.remove(program);
    }
  },
});
