import { assertEquals, assertRejects } from "@std/assert";
import {
  evaluate,
  type ExpressionScope,
} from "../../../hyperv/kd/expression.ts";

const SCOPE: ExpressionScope = {
  pointerBytes: 8,
  register: (name) =>
    Promise.resolve(
      ({ rax: 0x10n, rip: 2n ** 63n } as Record<string, bigint>)[name],
    ),
  symbol: (name) =>
    ({ main: 0x1000n, dead: 7n } as Record<string, bigint>)[name],
  read: (address, bytes) => Promise.resolve(address << 8n | BigInt(bytes)),
};

Deno.test("expressions are evaluated as WinDbg does", async () => {
  const cases: [string, bigint][] = [
    ["10", 0x10n],
    ["0n10", 10n],
    ["0y101", 5n],
    ["0x1f", 0x1fn],
    ["1fh", 0x1fn],
    ["fffff800`12345678", 0xffff_f800_1234_5678n],
    ["@rax", 0x10n],
    ["rax", 0x10n],
    ["@RIP", 2n ** 63n],
    ["main+10", 0x1010n],
    ["main", 0x1000n],
    ["dead", 7n],
    ["beef", 0xbeefn],
    ["2+3*4", 14n],
    ["(2+3)*4", 0x14n],
    ["-1", 2n ** 64n - 1n],
    ["~0", 2n ** 64n - 1n],
    ["1<<4|1", 0x11n],
    ["1<<100", 0n],
    ["7 & 3 ^ 1", 2n],
    ["10 - 4 - 2", 10n],
    ["9 % 5 / 2", 2n],
    ["1 == 1", 1n],
    ["1 != 1", 0n],
    ["poi(main)", 0x10_0008n],
    ["by(1)+wo(1)+dwo(1)+qwo(1)", 0x40fn],
    ["poi(poi(1))", 0x1_0808n],
    ["-(2)+5", 3n],
  ];
  for (const [text, value] of cases) {
    assertEquals(await evaluate(text, SCOPE), value, text);
  }
});

Deno.test("what is no expression is refused", async () => {
  const cases = [
    "",
    "1+",
    "(1",
    "1)",
    "@nix",
    "nix",
    "1 2",
    "1 $$",
    '"a"',
    "(".repeat(100_000),
    "-".repeat(100_000) + "1",
  ];
  for (const text of cases) {
    await assertRejects(
      () => evaluate(text, SCOPE),
      SyntaxError,
      "Cannot evaluate ",
    );
  }
  await assertRejects(
    () => evaluate("1/0", SCOPE),
    RangeError,
    "division by zero",
  );
});
