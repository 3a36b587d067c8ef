/** Every instruction family with operands at the edges, against what a processor made of them. */
import { assertEquals } from "@std/assert";
import { interpreter } from "../../../../core/x86/backend.ts";
import { CaseMachine } from "./case_machine.ts";
import { CASES_END, type Outcome, PRESENT } from "./cases.ts";
import { FAMILIES } from "./families.ts";
import { unpack } from "./recorded.ts";
import { showCase } from "./show.ts";

/** Which pages above the cases' own are there was Linux's affair, and is the machine's here. */
function ownPages(outcome: Outcome): Outcome {
  return outcome.cr2 < CASES_END
    ? outcome
    : { ...outcome, error: outcome.error & ~PRESENT };
}

for (const { name, cases: make } of FAMILIES) {
  Deno.test(`interp: as on a processor: ${name}`, async () => {
    const cases = make();
    const expected = unpack(
      cases,
      await Deno.readFile(new URL(`data/${name}.bin`, import.meta.url)),
    );
    const machine = new CaseMachine(interpreter());
    cases.forEach((test, n) => {
      assertEquals(
        ownPages(machine.run(test)),
        ownPages(expected[n]!),
        showCase(test),
      );
    });
    machine.close();
  });
}
