/**
 * Records the outcomes of instructions on vector registers on this machine's processor, as a digest of 16 bits
 * each; it should be an AMD one of Zen 4 or later. Needs gcc, Linux on x86-64, and leave to map
 * addresses from 0x8000 on.
 *
 * `deno run -A tests/core/x86/oracle/simd_record.ts [family...]`
 *
 * @module
 */
import { digest, RESPONSE, simdCases } from "./simd_cases.ts";
import { SIMD_FAMILIES } from "./simd_families.ts";
import { NativeSimd } from "./simd_native.ts";

await using program = await NativeSimd.build();
for (const family of SIMD_FAMILIES) {
  if (Deno.args.length > 0 && !Deno.args.includes(family.name)) continue;
  const outcomes = await program.run(simdCases(family));
  const count = outcomes.length / RESPONSE;
  const data = new DataView(new ArrayBuffer(2 * count));
  for (let n = 0; n < count; n++) {
    const outcome = outcomes.subarray(n * RESPONSE, (n + 1) * RESPONSE);
    data.setUint16(2 * n, digest(outcome), true);
  }
  const file = new URL(`data/${family.name}.bin`, import.meta.url);
  await Deno.writeFile(file, new Uint8Array(data.buffer));
  console.log(`${family.name}: ${count} cases, ${2 * count} bytes`);
}
