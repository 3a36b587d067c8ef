/**
 * Records outcomes on this machine's processor, which has to be an AMD one with BMI2 and ADX for
 * the results that manuals leave undefined to stay what they are (the recorded ones are of Zen 4).
 * Needs gcc, Linux on x86-64, and leave to map addresses from 0x8000 on.
 *
 * `deno run -A tests/core/x86/oracle/record.ts [family...]`
 *
 * @module
 */
import { decodeResponses, encodeRequests } from "./cases.ts";
import { FAMILIES } from "./families.ts";
import { pack } from "./recorded.ts";

async function build(): Promise<string> {
  const program = await Deno.makeTempFile();
  const source = new URL("native.c", import.meta.url).pathname;
  const { success } = await new Deno.Command("gcc", {
    args: ["-O2", "-Wall", "-static-pie", "-o", program, source],
  }).output();
  if (!success) throw new Error(`Cannot build: ${source}`);
  return program;
}

async function run(program: string, input: Uint8Array): Promise<Uint8Array> {
  const child = new Deno.Command(program, { stdin: "piped", stdout: "piped" })
    .spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(input);
  await writer.close();
  const { success, code, stdout } = await output;
  if (!success) throw new Error(`Cannot execute cases: exit code ${code}`);
  return stdout;
}

const program = await build();
try {
  for (const { name, cases: make } of FAMILIES) {
    if (Deno.args.length > 0 && !Deno.args.includes(name)) continue;
    const cases = make();
    const input = encodeRequests(cases);
    const outcomes = decodeResponses(cases, await run(program, input));
    const again = decodeResponses(cases, await run(program, input));
    const data = pack(cases, outcomes);
    const same = pack(cases, again).every((byte, n) => byte === data[n]);
    if (!same) throw new Error(`Cannot record: ${name} differs between runs`);
    await Deno.writeFile(new URL(`data/${name}.bin`, import.meta.url), data);
    console.log(`${name}: ${cases.length} cases, ${data.length} bytes`);
  }
} finally {
  await Deno.remove(program);
}
