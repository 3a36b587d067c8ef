/**
 * Compares the interpreter's x87 with that of this machine's processor.
 *
 * @module
 */
import type { NativeProgram } from "./native_program.ts";
import { x87Cases, type X87Family } from "./x87_cases.ts";
import type { X87Interpreter } from "./x87_interpreted.ts";
import { describe, same } from "./x87_outcomes.ts";

/**
 * Compares batches of a family: what differs, as text. A case that differs runs a few more times: an AMD processor
 * forgets the pointers of the last instruction when the kernel switches tasks.
 */
export async function compare(
  program: NativeProgram,
  interpreter: X87Interpreter,
  family: X87Family,
  first: number,
  count: number,
): Promise<string[]> {
  const cases = Array.from(
    { length: count },
    (_, n) => x87Cases(family, first + n),
  ).flat();
  const wrong: string[] = [];
  const wanted = await program.run(cases);
  for (const [n, test] of cases.entries()) {
    const got = interpreter.run(test);
    let native = wanted[n]!;
    for (let tries = 0; tries < 3 && !same(family, got, native); tries++) {
      native = (await program.run([test]))[0]!;
    }
    if (!same(family, got, native)) wrong.push(describe(test, got, native));
  }
  return wrong;
}
