/**
 * Random sequences of instructions, on the interpreter and on KVM. A KVM that emulates code of ring 0, or some of the
 * instructions, is no measure.
 */
import { assertEquals } from "@std/assert";
import { interpreter } from "../../core/x86/backend.ts";
import { openKvm } from "../../ffi/kvm_backend_unsafe.ts";
import { CaseMachine } from "../core/x86/oracle/case_machine.ts";
import { compare, onBackend } from "../core/x86/oracle/differential.ts";
import { kvmTest } from "./_kvm.ts";

const COUNT = Number(Deno.env.get("N") ?? 3000);
const FIT = [
  "32-bit paging",
  "INT n in ring 0",
  "SSE2 in ring 0",
  "speed of ring 0",
];

for (const kind of ["user-defined", "kernel"] as const) {
  kvmTest(
    `${COUNT} random sequences, ${kind}, end as on the interpreter`,
    { needs: FIT },
    async () => {
      const ours = new CaseMachine(interpreter());
      const theirs = new CaseMachine(openKvm({ hyperv: { mode: "user" } }));
      const differences = await compare(
        onBackend(ours),
        onBackend(theirs),
        kind,
        "test",
        COUNT,
      );
      ours.close();
      theirs.close();
      assertEquals(
        differences.length,
        0,
        differences.slice(0, 20).join("\n"),
      );
    },
  );
}
