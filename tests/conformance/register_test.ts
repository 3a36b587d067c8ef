/** Synthetic MSRs other than the debugger's, as a guest's code finds them. */
import { assert, assertEquals } from "@std/assert";
import type { CrashReport } from "../../hyperv/crash.ts";
import { loadImage } from "../../core/loaders/load_image.ts";
import { backends } from "./backends.ts";
import {
  FREE,
  guestTest,
  load64,
  msrValue,
  ProbeGuest,
  RAM,
  rdmsr,
  wrmsr,
} from "./_probe.ts";

const VP_INDEX = 0x4000_0002;
const VP_RUNTIME = 0x4000_0010;
const TIME_REF_COUNT = 0x4000_0020;
const REFERENCE_TSC = 0x4000_0021;
const TSC_FREQUENCY = 0x4000_0022;
const APIC_FREQUENCY = 0x4000_0023;
const VP_ASSIST = 0x4000_0073;
const CRASH_P0 = 0x4000_0100;
const CRASH_CTL = 0x4000_0105;

for (const backend of backends) {
  guestTest(backend, "the first processor's index is 0", {}, async (guest) => {
    assertEquals(msrValue(await guest.one(rdmsr(VP_INDEX))), 0n);
  });

  guestTest(
    backend,
    "frequencies",
    { apicFrequency: 1234, partition: true },
    async (guest) => {
      const [tsc, apic] = await guest.run(
        rdmsr(TSC_FREQUENCY),
        rdmsr(APIC_FREQUENCY),
      );
      const { tscFrequency } = backend.create();
      assertEquals(msrValue(tsc!), BigInt(tscFrequency));
      assertEquals(msrValue(apic!), 1234n);
    },
  );

  for (const msr of [TIME_REF_COUNT, VP_RUNTIME]) {
    guestTest(
      backend,
      `MSR 0x${msr.toString(16)} counts`,
      // A kernel counts the processor's time, not all time.
      { partition: msr === VP_RUNTIME },
      async (guest) => {
        const before = (await guest.one(rdmsr(msr))).edxEax;
        await new Promise((resolve) => setTimeout(resolve, 20));
        const after = (await guest.one(rdmsr(msr))).edxEax;
        const ticks = Number(after - before);
        // 20 ms in units of 100 ns, and no minute.
        assert(ticks >= 190_000 && ticks < 600_000_000, `${ticks}`);
      },
    );
  }

  guestTest(
    backend,
    "the reference TSC page gives the reference time",
    {},
    async (guest) => {
      guest.memory.fill(FREE, 4096, 0xee);
      const results = await guest.run(
        wrmsr(REFERENCE_TSC, BigInt(FREE | 1)),
        rdmsr(REFERENCE_TSC),
        load64(FREE),
        load64(FREE + 8),
        load64(FREE + 16),
        rdmsr(TIME_REF_COUNT),
        rdmsr(0x10),
        rdmsr(TIME_REF_COUNT),
      );
      assertEquals(msrValue(results[1]!), BigInt(FREE | 1));
      const [sequence, scale, offset] = results.slice(2, 5).map((result) =>
        result.registers.rax
      );
      assert((sequence! & 0xffff_ffffn) !== 0n, "the page is valid");
      const [before, tsc, after] = results.slice(5).map((r) => r.edxEax);
      const time = BigInt.asUintN(64, (tsc! * scale! >> 64n) + offset!);
      assert(before! <= time + 1n && time <= after! + 1n, `${time}`);
    },
  );

  for (const gpa of [BigInt(RAM), 1n << 45n, 0xffff_ffff_ffff_f000n]) {
    guestTest(
      backend,
      `a reference TSC page or an assist page at 0x${
        gpa.toString(16)
      } does no harm`,
      {},
      async (guest) => {
        const results = await guest.run(
          wrmsr(REFERENCE_TSC, gpa | 1n),
          wrmsr(VP_ASSIST, gpa | 1n),
          rdmsr(TIME_REF_COUNT),
        );
        assertEquals(results[2]!.fault, undefined);
      },
    );
  }

  guestTest(
    backend,
    "crash parameters reach the VMM when the guest says so",
    { partition: true },
    async () => {
      const reports: CrashReport[] = [];
      const guest = new ProbeGuest(backend, {
        onCrash: (report) => reports.push(report),
      });
      const text = new TextEncoder().encode("it broke");
      guest.memory.write(FREE, text);
      const parameters = [1n, 2n, 3n, BigInt(FREE), BigInt(text.length)];
      const [able] = await guest.run(
        rdmsr(CRASH_CTL),
        ...parameters.map((value, n) => wrmsr(CRASH_P0 + n, value)),
        wrmsr(CRASH_CTL, 1n << 63n | 1n << 62n),
      );
      assertEquals(able!.edxEax >> 62n, 3n);
      assertEquals(reports, [{
        parameters: [1n, 2n, 3n, BigInt(FREE), 8n],
        message: "it broke",
      }]);
      // A message that is nowhere.
      await guest.run(
        wrmsr(CRASH_P0 + 3, 0xffff_ffff_ffff_fff0n),
        wrmsr(CRASH_P0 + 4, 0xffff_ffff_ffff_ffffn),
        wrmsr(CRASH_CTL, 1n << 63n | 1n << 62n),
      );
      assertEquals(reports[1]!.message, undefined);
      guest.close();
    },
  );

  Deno.test(`${backend.name}: RESET ends the run`, async () => {
    const guest = new ProbeGuest(backend);
    // mov ecx, 0x40000003 (RESET); mov eax, 1; xor edx, edx; wrmsr; jmp to itself
    const code = "66b903000040" + "66b801000000" + "6631d2" + "0f30" + "ebfe";
    loadImage(
      guest.memory,
      guest.machine.vcpus[0]!,
      Uint8Array.fromHex(code),
    );
    assertEquals(await guest.machine.run({ timeout: 5000 }), { kind: "reset" });
    guest.close();
  });
}
