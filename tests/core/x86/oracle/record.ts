/**
 * Records outcomes on this machine's processor, which has to be an AMD one with BMI2 and ADX for
 * the results that manuals leave undefined to stay what they are (the recorded ones are of Zen 4).
 * Needs gcc, Linux on x86-64, and leave to map addresses from 0x8000 on.
 *
 * `deno run -A tests/core/x86/oracle/record.ts [family...]`
 *
 * @module
 */
import { FAMILIES } from "./families.ts";
import { NativeProgram } from "./native_program.ts";
import { pack } from "./recorded.ts";

await using program = await NativeProgram.build();
for (const { name, cases: make } of FAMILIES) {
  if (Deno.args.length > 0 && !Deno.args.includes(name)) continue;
  const cases = make();
  const data = pack(cases, await program.run(cases));
  const again = pack(cases, await program.run(cases));
  if (!again.every((byte, n) => byte === data[n])) {
    throw new Error(`Cannot record: ${name} differs between runs`);
  }
  await Deno.writeFile(new URL(`data/${name}.bin`, import.meta.url), data);
  console.log(`${name}: ${cases.length} cases, ${data.length} bytes`);
}
