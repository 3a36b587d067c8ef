import { assertEquals, assertStringIncludes } from "@std/assert";
import { diagnosis } from "../../../cli/debug/console.ts";
import { plain } from "../../../cli/debug/format.ts";
import { kdnetCounters } from "../../../hyperv/kd/counters.ts";

Deno.test("why nobody connects is said as far as the wire tells", () => {
  const none = kdnetCounters();
  const cases: [string, Parameters<typeof diagnosis>][] = [
    ["no datagram has come", [none, false]],
    ["3 datagrams came that another key made", [
      { ...none, received: 4, wrongKey: 3 },
      false,
    ]],
    ["2 datagrams came that are not KDNET", [
      { ...none, received: 2, malformed: 2 },
      false,
    ]],
    ["with another debugger", [{ ...none, received: 1 }, true]],
    ["no target offers a session", [{ ...none, received: 1 }, false]],
  ];
  for (const [text, [counters, held]] of cases) {
    assertStringIncludes(diagnosis(counters, held), text);
  }
});

Deno.test("what a terminal would obey does not reach it", () => {
  assertEquals(
    plain("a\x1b[2Jb\x9b1mc\x07\r\nd\te\x7f\0ü"),
    "a.[2Jb.1mc.\nd\te..ü",
  );
});
