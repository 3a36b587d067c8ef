/**
 * Compares the interpreter with this machine's processor, which has to be an AMD one.
 *
 * `deno run -A tests/core/x86/oracle/x87_compare.ts BATCHES [family...]`
 *
 * @module
 */
import {
  type Case,
  decodeResponses,
  encodeRequests,
  type Outcome,
} from "./cases.ts";
import { buildNative, runNative } from "./native.ts";
import { X87_FAMILIES, x87Cases } from "./x87_cases.ts";
import { X87Interpreter } from "./x87_interpreted.ts";
import { describe, same } from "./x87_outcomes.ts";

const [batches = "1", ...names] = Deno.args;
const program = await buildNative();
const interpreter = new X87Interpreter();
try {
  for (const family of X87_FAMILIES) {
    if (names.length > 0 && !names.includes(family.name)) continue;
    let total = 0;
    const wrong: [Case, Outcome, Outcome][] = [];
    for (let batch = 0; batch < Number(batches); batch++) {
      const cases = x87Cases(family, batch + 1000, 5000);
      const wanted = decodeResponses(
        cases,
        await runNative(program, encodeRequests(cases)),
      );
      cases.forEach((test, n) => {
        const got = interpreter.run(test);
        if (!same(family, got, wanted[n]!)) wrong.push([test, got, wanted[n]!]);
      });
      total += cases.length;
    }
    console.log(`${family.name}: ${total} cases, ${wrong.length} differ`);
    const seen = new Map<string, number>();
    for (const [test, got, wanted] of wrong) {
      const [first = 0, second = 0] = test.code;
      const key = first.toString(16) + (second & 0xf8).toString(16);
      const count = (seen.get(key) ?? 0) + 1;
      seen.set(key, count);
      if (count <= Number(Deno.env.get("SHOW") ?? 1)) {
        console.log(describe(test, got, wanted));
      }
    }
    if (seen.size > 0) console.log(Object.fromEntries(seen));
  }
} finally {
  await Deno.remove(program);
}
