import { assertEquals, assertGreater } from "@std/assert";
import { Hot } from "../../../core/x86/hot.ts";

Deno.test("the loop's literal cases have the numbers of their names", async () => {
  const source = await Deno.readTextFile(
    new URL("../../../core/x86/execute.ts", import.meta.url),
  );
  const names: Readonly<Record<string, number>> = Hot;
  const cases = [
    ...source.matchAll(/case (\d+) \/\* Hot\.(\w+)(?: \+ (\d+))? \*\/:/g),
  ];
  assertGreater(cases.length, 100);
  for (const [text, number, name, offset = "0"] of cases) {
    assertEquals(Number(number), names[name!]! + Number(offset), text);
  }
  assertEquals(source.match(/case Hot\b/), null);
});
