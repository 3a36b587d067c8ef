/**
 * Records outcomes of x87 instructions on this machine's processor, which has to be an AMD one, or with a
 * number compares so many unrecorded batches of each family with the interpreter.
 *
 * `deno run -A tests/core/x86/oracle/x87_record.ts [batches]`
 *
 * @module
 */
import type { Outcome } from "./cases.ts";
import { NativeProgram } from "./native_program.ts";
import { BATCH, X87_FAMILIES, x87Cases, type X87Family } from "./x87_cases.ts";
import { X87Interpreter } from "./x87_interpreted.ts";
import { compare } from "./x87_native.ts";
import { digest, pack } from "./x87_outcomes.ts";

/** Outcomes of a batch once two runs agree: see {@linkcode compare}. */
async function settled(
  program: NativeProgram,
  family: X87Family,
  batch: number,
): Promise<Outcome[]> {
  const cases = x87Cases(family, batch);
  let outcomes = await program.run(cases);
  for (let tries = 0; tries < 20; tries++) {
    const again = await program.run(cases);
    if (digest(again) === digest(outcomes)) return again;
    outcomes = again;
  }
  throw new Error(`Cannot record: ${family.name} ${batch} keeps differing`);
}

async function record(
  program: NativeProgram,
  family: X87Family,
): Promise<void> {
  const parts: Uint8Array[] = [];
  for (let batch = 0; batch < family.batches; batch++) {
    const outcomes = await settled(program, family, batch);
    parts.push(
      family.exact
        ? new Uint8Array(new Uint32Array([digest(outcomes)]).buffer)
        : pack(outcomes),
    );
  }
  const data = new Uint8Array(
    await new Blob(parts as BlobPart[]).arrayBuffer(),
  );
  await Deno.writeFile(
    new URL(`data/${family.name}.bin`, import.meta.url),
    data,
  );
  console.log(`${family.name}: ${data.length} bytes`);
}

const batches = Number(Deno.args[0] ?? 0);
await using program = await NativeProgram.build();
const interpreter = new X87Interpreter();
for (const family of X87_FAMILIES) {
  if (batches === 0) {
    await record(program, family);
    continue;
  }
  let differ = 0;
  for (let n = 0; n < batches; n += 10) {
    const count = Math.min(10, batches - n);
    const wrong = await compare(program, interpreter, family, 1000 + n, count);
    differ += wrong.length;
    if (wrong.length > 0) console.log(wrong[0]);
  }
  console.log(`${family.name}: ${batches * BATCH} cases, ${differ} differ`);
}
