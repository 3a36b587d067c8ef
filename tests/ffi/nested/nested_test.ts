/**
 * The tests of KVM once more inside a machine that has a real KVM with Hyper-V in it; see `machine.ts`. Inside, nothing
 * of KVM may be missing.
 */
import { assertEquals, assertGreater } from "@std/assert";
import {
  bootNested,
  buildImage,
  type NestedImage,
  PartMissing,
  readConsole,
} from "./machine.ts";

/** What runs inside; SYNDBG_NESTED_TESTS adds to it. */
const TESTS = [
  ...[
    ...["exits", "run", "state", "debug", "hypercall", "kernel_hyperv"],
    ...["release", "differential"],
  ].map((name) => `tests/ffi/${name}_test.ts`),
  "tests/conformance",
];

/** What the machine boots, or what is missing for it. */
async function prepare(): Promise<NestedImage | string> {
  if (Deno.env.has("SYNDBG_NESTED")) return "this is the nested guest";
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    return "the nested guest needs Linux on x86-64";
  }
  try {
    return await buildImage();
  } catch (error) {
    if (
      !(error instanceof PartMissing) || Deno.env.has("SYNDBG_REQUIRE_ALL")
    ) throw error;
    return error.message;
  }
}

const image = await prepare();
if (typeof image === "string") console.log(`Skipped: nested guest: ${image}`);

Deno.test({
  name: "in a nested guest with a real KVM, both ways",
  ignore: typeof image === "string",
  async fn(test) {
    const more = Deno.env.get("SYNDBG_NESTED_TESTS")?.split(",") ?? [];
    const run = await bootNested(image as NestedImage, [...TESTS, ...more]);
    for (const { name, outcome } of run.results) {
      await test.step({
        name,
        ignore: outcome === "skipped",
        fn: () => assertEquals(outcome, "ok"),
      });
    }
    assertEquals(run.code, 0, run.console);
    const both = run.results.filter(({ name }) => name.includes("(kernel)"));
    assertGreater(both.length, 10);
  },
});

Deno.test("lines of the nested guest's console are told apart", () => {
  const { results, code } = readConsole(
    "[    1.0] noise\r\nTAP version 14\r\nok 1 - a name - with dashes\r\n" +
      "not ok 2 - b\r\n  ---\r\n  {}\r\nok 3 - c # SKIP\r\nnested: exit 1\r\n",
    "",
  );
  assertEquals(results, [
    { name: "a name - with dashes", outcome: "ok" },
    { name: "b", outcome: "failed" },
    { name: "c", outcome: "skipped" },
  ]);
  assertEquals(code, 1);
});
