import { assertEquals } from "@std/assert";
import {
  digest,
  instruction,
  REQUEST,
  RESPONSE,
  simdCases,
  type SimdFamily,
} from "./simd_cases.ts";
import { SIMD_FAMILIES } from "./simd_families.ts";
import { SimdInterpreter } from "./simd_interpreted.ts";
import { NativeSimd } from "./simd_native.ts";

const interpreter = new SimdInterpreter();

/** Runs cases; the instructions whose outcomes are not as wanted. */
function wrong(
  requests: Uint8Array,
  same: (outcome: Uint8Array, n: number) => boolean,
): string[] {
  const found: string[] = [];
  for (let n = 0; n * REQUEST < requests.length; n++) {
    const request = requests.subarray(n * REQUEST, (n + 1) * REQUEST);
    const outcome = new Uint8Array(RESPONSE);
    interpreter.run(request, outcome);
    if (!same(outcome, n)) found.push(`${instruction(request)}, case ${n}`);
  }
  return found;
}

/** The program that executes cases, or why there is none. */
async function prepare(): Promise<NativeSimd | string> {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    return "it needs Linux on x86-64";
  }
  // Which NaN an FMA gives, for one, is a vendor's choice.
  const cpu = await Deno.readTextFile("/proc/cpuinfo");
  if (!/AuthenticAMD/.test(cpu) || !/\bsha_ni\b.*\bvaes\b/.test(cpu)) {
    return "the processor is not AMD's, or an old one";
  }
  try {
    return await NativeSimd.build();
  } catch (error) {
    if (
      !(error instanceof Deno.errors.NotFound) ||
      Deno.env.has("SYNDBG_REQUIRE_ALL")
    ) throw error;
    return "gcc is missing";
  }
}

async function recorded(family: SimdFamily): Promise<DataView> {
  const file = new URL(`data/${family.name}.bin`, import.meta.url);
  return new DataView((await Deno.readFile(file)).buffer);
}

for (const family of SIMD_FAMILIES) {
  Deno.test(`the interpreter does ${family.name} as recorded`, async () => {
    const data = await recorded(family);
    const requests = simdCases(family);
    assertEquals(2 * requests.length / REQUEST, data.byteLength);
    const differ = wrong(
      requests,
      (outcome, n) => digest(outcome) === data.getUint16(2 * n, true),
    );
    assertEquals(differ, []);
  });
}

const program = await prepare();
const missing = typeof program === "string";
if (missing) console.log(`Skipped: comparison with the processor: ${program}`);

Deno.test({
  name: "the interpreter does other cases as this machine's processor does",
  ignore: missing,
  async fn() {
    await using native = program as NativeSimd;
    for (const family of SIMD_FAMILIES) {
      const requests = simdCases(family, family.times, "live");
      const outcomes = await native.run(requests);
      const differ = wrong(requests, (outcome, n) => {
        const expected = outcomes.subarray(n * RESPONSE, (n + 1) * RESPONSE);
        return outcome.every((byte, at) => byte === expected[at]);
      });
      assertEquals(differ, [], family.name);
    }
  },
});
