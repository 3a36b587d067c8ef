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
import { buildNative, runNative } from "./simd_native.ts";

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

/** Whether cases can run here: gcc and an AMD processor with everything that is compared. */
function hasProcessor(): boolean {
  const missing = (what: string): boolean => {
    if (Deno.env.has("SYNDBG_REQUIRE_ALL")) return true;
    console.log(`Skipped: comparing with this processor needs ${what}`);
    return false;
  };
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    return missing("Linux on x86-64");
  }
  const cpu = Deno.readTextFileSync("/proc/cpuinfo");
  if (!cpu.includes("AuthenticAMD") || !/\bavx2\b/.test(cpu)) {
    return missing("an AMD processor with AVX2");
  }
  try {
    const quiet = { stdout: "null", stderr: "null" } as const;
    new Deno.Command("gcc", { args: ["--version"], ...quiet }).outputSync();
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return missing("gcc");
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

Deno.test({
  name: "the interpreter does other cases as this machine's processor does",
  ignore: !hasProcessor(),
  async fn() {
    const program = await buildNative();
    try {
      for (const family of SIMD_FAMILIES) {
        const requests = simdCases(family, family.times, "live");
        const outcomes = await runNative(program, requests);
        const differ = wrong(requests, (outcome, n) => {
          const expected = outcomes.subarray(n * RESPONSE, (n + 1) * RESPONSE);
          return outcome.every((byte, at) => byte === expected[at]);
        });
        assertEquals(differ, [], family.name);
      }
    } finally {
      await Deno.remove(program);
    }
  },
});
