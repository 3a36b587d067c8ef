/**
 * Random sequences of instructions, on the interpreter and on KVM. A KVM that emulates code of ring 0, or some of the
 * instructions, is no measure. Nor is the processor that QEMU 7.2 emulates for the nested machine in these points, where
 * real processors (see the comparison with this machine's) and the manuals are with the interpreter:
 * - a page fault of a read-modify-write says that it was a read;
 * - a non-canonical address of the stack segment raises #GP instead of #SS;
 * - flags at a fault are sometimes those of before;
 * - a flat segment does not end at 4 GiB;
 * - SYSCALL drops the arithmetic flags;
 * - the error code of an IDT entry beyond the limit counts in steps of 16.
 */
import { assertEquals } from "@std/assert";
import { interpreter } from "../../core/x86/backend.ts";
import { openKvm } from "../../ffi/kvm_backend_unsafe.ts";
import { CaseMachine } from "../core/x86/oracle/case_machine.ts";
import { compare, onBackend } from "../core/x86/oracle/differential.ts";
import { kvmTest } from "./_kvm.ts";

const COUNT = 3000;
const FIT = [
  "32-bit paging",
  "INT n in ring 0",
  "SSE2 in ring 0",
  "speed of ring 0",
];

const WRITE = 2;
const IDT = 2;

function settle(line: string, all: readonly string[]): string {
  const [, vector, code] = /^vector (\d+) error ([0-9a-f]+)$/.exec(all[0]!) ??
    [];
  const error = parseInt(code ?? "0", 16);
  if (line === all[0]) {
    if (vector === "14") return `page fault ${error & ~WRITE}`;
    if (vector === "12" && error === 0) return "vector 13 error 0";
    if (vector === "13" && (error & IDT) !== 0) return "IDT entry";
  }
  const fault = vector !== undefined && "12 13 14".includes(vector);
  return fault && line.startsWith("flags") ? "flags" : line;
}

function excused(here: string[], there: string[]): boolean {
  const beyond = /^vector 1[23] error 0$/.test(here[0]!) &&
    there[0]!.startsWith("vector 14") &&
    /^cr2 ffffff[0-9a-f]{2}$/.test(there[1]!);
  return beyond ||
    here.every((line, n) =>
      settle(line, here) === settle(there[n] ?? "", there)
    );
}

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
        excused,
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
