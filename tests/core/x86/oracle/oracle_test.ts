/** Every instruction family with operands at the edges, against what a processor made of them. */
import { assertEquals } from "@std/assert";
import { interpreter } from "../../../../core/x86/backend.ts";
import { CaseMachine } from "./case_machine.ts";
import { comparable } from "./cases.ts";
import { FAMILIES } from "./families.ts";
import { unpack } from "./recorded.ts";
import { showCase } from "./show.ts";

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
        comparable(test, machine.run(test)),
        comparable(test, expected[n]!),
        showCase(test),
      );
    });
    machine.close();
  });
}
