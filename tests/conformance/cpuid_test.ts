/** The hypervisor's CPUID leaves as a guest's code reads them. */
import { assert, assertEquals } from "@std/assert";
import { backends } from "./backends.ts";
import { cpuid, guestTest, hex, type Mode, type ProbeGuest } from "./_probe.ts";

interface Leaf {
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

/** Leaves of the CPU and of the hypervisor that a test looks at. */
async function leaves(
  guest: ProbeGuest,
  numbers: readonly number[],
  mode: Mode = "long",
): Promise<Leaf[]> {
  const results = await guest.run(...numbers.map((n) => cpuid(n, mode)));
  return results.map(({ fault, registers }) => {
    assertEquals(fault, undefined);
    // CPUID clears the upper halves.
    assertEquals((registers.rax | registers.rdx) >> 32n, 0n);
    return {
      eax: Number(registers.rax),
      ebx: Number(registers.rbx),
      ecx: Number(registers.rcx),
      edx: Number(registers.rdx),
    };
  });
}

async function leaf(guest: ProbeGuest, number: number): Promise<Leaf> {
  return (await leaves(guest, [number]))[0]!;
}

/** Text of EBX, ECX, EDX, as leaf 0x40000000 has it. */
function vendor({ ebx, ecx, edx }: Leaf): string {
  const bytes = new Uint8Array(new Uint32Array([ebx, ecx, edx]).buffer);
  return new TextDecoder().decode(bytes);
}

const has = (word: number, bit: number): boolean => (word >>> bit & 1) === 1;
const NONE: Leaf = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
const MODES = [
  "long",
  "long-user",
  "compat",
  "compat-user",
  "protected",
  "protected-user",
  "real",
  "v86",
] as const;
const PROFILES = ["hyperv", "kvm"] as const;
const FIRST = 0x4000_0000;

for (const backend of backends) {
  for (const profile of PROFILES) {
    const test = (
      name: string,
      fn: (guest: ProbeGuest) => Promise<void>,
    ): void =>
      guestTest(backend, `CPUID, ${profile}: ${name}`, { profile }, fn);

    test("leaf 1 says that there is a hypervisor", async (guest) => {
      assert(has((await leaf(guest, 1)).ecx, 31));
    });

    test("0x40000000 has the vendor and the highest leaf", async (guest) => {
      const found = await leaf(guest, FIRST);
      assertEquals(vendor(found), "Microsoft Hv");
      assertEquals(hex(found.eax), "0x40000082");
    });

    test("0x40000001 is Hv#1", async (guest) => {
      assertEquals(await leaf(guest, FIRST + 1), { ...NONE, eax: 0x31237648 });
    });

    test("0x40000002 has a version", async (guest) => {
      const { eax, ebx } = await leaf(guest, FIRST + 2);
      assertEquals(ebx, 0x000a_0000);
      assertEquals(eax, profile === "kvm" ? 14_393 : 20_348);
    });

    test("0x40000003 offers debugging by MSR and by call", async (guest) => {
      const { eax, ebx, edx } = await leaf(guest, FIRST + 3);
      // What Windows' debugger uses besides: reference time and hypercall MSRs.
      assert(has(eax, 1) && has(eax, 5), "access");
      assert(has(ebx, 11), "Debugging");
      assert(has(edx, 1) && has(edx, 11), "guest debugging, debug MSRs");
      assert(!has(ebx, 12), "CpuManagement is not a debugging bit");
      // A kernel's own Hyper-V has its timers with an APIC in the kernel only.
      assertEquals(has(edx, 19), !backend.kernel, "direct timers");
      assertEquals(has(eax, 2) && has(eax, 3), !backend.kernel, "SynIC");
    });

    test("0x40000005 has one processor", async (guest) => {
      const { eax, ebx } = await leaf(guest, FIRST + 5);
      assertEquals([eax, ebx], [1, 64]);
    });

    test("0x40000080 to 82 are the virtualization stack's", async (guest) => {
      const [stack, face, properties] = await leaves(guest, [
        FIRST + 0x80,
        FIRST + 0x81,
        FIRST + 0x82,
      ]);
      assertEquals(vendor(stack!), "Microsoft VS");
      assertEquals(stack!.eax, profile === "kvm" ? 0 : 0x4000_0082);
      assertEquals(face, { ...NONE, eax: 0x31235356 });
      assertEquals(properties, { ...NONE, eax: 2 });
    });

    test("leaves between and beyond are empty", async (guest) => {
      const numbers = [0x0b, 0x10, 0x7f, 0x83, 0xff].map((n) => FIRST + n);
      for (const found of await leaves(guest, numbers)) {
        assertEquals(found, NONE);
      }
    });

    test("the subleaf does not matter", async (guest) => {
      const at = FIRST + 3;
      const [one, other] = await guest.run(cpuid(at), {
        ...cpuid(at),
        registers: { rax: BigInt(at), rcx: 0xffff_ffffn },
      });
      assertEquals(one!.registers, other!.registers);
    });
  }

  for (const mode of MODES) {
    guestTest(backend, `CPUID in ${mode} mode`, { mode }, async (guest) => {
      const [found] = await leaves(guest, [FIRST], mode);
      assertEquals(vendor(found!), "Microsoft Hv");
    });
  }

  for (const name of ["KVMKVMKVM", "Linux KVM Hv"]) {
    guestTest(
      backend,
      `CPUID has the vendor ${name} if told to`,
      { vendor: name },
      async (guest) => {
        const found = await leaf(guest, FIRST);
        assertEquals(vendor(found), name.padEnd(12, "\0"));
        assertEquals((await leaf(guest, FIRST + 1)).eax, 0x31237648);
      },
    );
  }

  guestTest(
    backend,
    "CPUID shows nothing of SynDbg to who did not ask for it",
    { syndbg: "none" },
    async (guest) => {
      const [first, , , features] = await leaves(
        guest,
        [0, 1, 2, 3].map((n) => FIRST + n),
      );
      assertEquals(hex(first!.eax), "0x4000000a");
      assert(!has(features!.ebx, 11));
      assert(!has(features!.edx, 1) && !has(features!.edx, 11));
      const stack = [0x80, 0x81, 0x82].map((n) => FIRST + n);
      for (const found of await leaves(guest, stack)) {
        assertEquals(found, NONE);
      }
    },
  );
}
