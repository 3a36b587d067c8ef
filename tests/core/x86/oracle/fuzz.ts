/**
 * Compares the interpreter with this machine's processor for as long as one likes, with another seed each time:
 * `deno task fuzz:diff [SECONDS]`. Sequences that differ are printed; then the exit code is 1.
 *
 * @module
 */
import { interpreter } from "../../../../core/x86/backend.ts";
import { CaseMachine } from "./case_machine.ts";
import { compare, onBackend, onProcessor } from "./differential.ts";
import { NativeProgram } from "./native_program.ts";

const BATCH = 20_000;

const seconds = Number(Deno.args[0] ?? "Infinity");
const end = performance.now() + 1000 * seconds;
await using native = await NativeProgram.build();
let differing = 0;
for (let round = 1; performance.now() < end; round++) {
  const seed = crypto.randomUUID();
  const machine = new CaseMachine(interpreter());
  const differences = await compare(
    onBackend(machine),
    onProcessor((cases) => native.run(cases)),
    "user",
    seed,
    BATCH,
  );
  machine.close();
  differing += differences.length;
  for (const difference of differences) console.log(difference);
  console.log(
    `seed ${seed}: ${round * BATCH} sequences, ${differing} differ`,
  );
}
Deno.exitCode = differing > 0 ? 1 : 0;
