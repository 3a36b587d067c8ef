import { assert, assertEquals } from "@std/assert";
import { CR2, MXCSR, VEC_B } from "../../../../core/x86/layout.ts";
import { At, Machine } from "./_machine.ts";

const UD = 6, NM = 7, GP = 13, PF = 14, XM = 19;
const EM = 4n, TS = 8n, OSFXSR = 0x200n, OSXMMEXCPT = 0x400n;

/** 64-bit mode with SSE enabled, and other control bits on top. */
function machine(cr0 = 0n, cr4 = OSFXSR | OSXMMEXCPT): Machine {
  const m = new Machine().long();
  const system = m.vcpu.getSystemRegisters();
  m.vcpu.setSystemRegisters({ cr0: system.cr0 | cr0, cr4: system.cr4 | cr4 });
  return m;
}

function state(m: Machine): DataView {
  return new DataView(m.memory.memory.buffer, 0, 0x1000);
}

const PADDB_XMM = "66 0F FC C1 F4", PADDB_MM = "0F FC C1 F4";
const LDMXCSR = "0F AE 14 25 00 F0 3F 00 F4";

Deno.test("instructions on XMM registers are #UD without CR4.OSFXSR or with CR0.EM", () => {
  assertEquals(machine(0n, 0n).code(PADDB_XMM).trap(), UD);
  assertEquals(machine(EM).code(PADDB_XMM).trap(), UD);
  assertEquals(machine(EM | TS).code(LDMXCSR).trap(), UD);
});

Deno.test("instructions on MMX registers need no CR4.OSFXSR, but are #UD with CR0.EM", () => {
  assertEquals(machine(0n, 0n).code(PADDB_MM).run(), "hlt");
  assertEquals(machine(EM).code(PADDB_MM).trap(), UD);
});

Deno.test("CR0.TS gives #NM before memory is touched", () => {
  assertEquals(machine(TS).code(PADDB_XMM).trap(), NM);
  assertEquals(machine(TS).code(PADDB_MM).trap(), NM);
  // LDMXCSR from an address that is not mapped.
  assertEquals(machine(TS).code(LDMXCSR).trap(), NM);
  assertEquals(machine().code(LDMXCSR).trap(), PF);
});

Deno.test("CLTS counts for the next instruction", () => {
  const m = machine(TS).code(`0F 06 ${PADDB_XMM}`);
  assertEquals(m.run(), "hlt");
  assertEquals(m.get("rip"), 0x8007);
});

/** XSETBV of `xcr0`, then VPADDB XMM0, XMM0, XMM1. */
function avx(xcr0: number): string {
  return `31 C9 31 D2 B8 0${xcr0} 00 00 00 0F 01 D1 C5 F9 FC C1 F4`;
}

Deno.test("VEX-encoded instructions need CR4.OSXSAVE and the state in XCR0", () => {
  const OSXSAVE = 0x4_0000n;
  assertEquals(machine(0n, OSFXSR).code("C5 F9 FC C1 F4").trap(), UD);
  for (const xcr0 of [1, 3]) {
    assertEquals(machine(0n, OSXSAVE).code(avx(xcr0)).trap(), UD);
  }
  // Neither CR4.OSFXSR nor CR0.EM counts.
  assertEquals(machine(EM, OSXSAVE).code(avx(7)).run(), "hlt");
  assertEquals(machine(TS, OSXSAVE).code(avx(7)).trap(), NM);
});

Deno.test("a masked store that faults stores nothing", () => {
  // VMASKMOVPS [0x1EFF8], XMM1, XMM0, all lanes chosen; the second page is missing.
  const m = machine(0n, 0x4_0000n).code(
    avx(7).replace("C5 F9 FC C1", "C4 E2 71 2E 04 25 F8 EF 01 00"),
  );
  m.memory.writeU32(m.pageEntry(0x1f000), 0);
  state(m).setBigUint64(VEC_B, 0x11n, true);
  for (let n = 0; n < 16; n++) state(m).setUint8(VEC_B + 16 + n, 0xff);
  assertEquals(m.trap(), PF);
  assertEquals(m.word(0x1eff8), 0);
});

Deno.test("an unmasked exception is #XM, or #UD without CR4.OSXMMEXCPT, and changes only MXCSR", () => {
  for (
    const [cr4, vector] of [[OSFXSR | OSXMMEXCPT, XM], [OSFXSR, UD]] as const
  ) {
    // DIVSD XMM0, XMM1: 1 / 0 with ZE unmasked.
    const m = machine(0n, cr4).code("F2 0F 5E C1 F4");
    const view = state(m);
    view.setFloat64(VEC_B, 1, true);
    view.setInt32(4 * MXCSR, 0x1d80, true);
    assertEquals(m.trap(), vector);
    assertEquals(view.getFloat64(VEC_B, true), 1);
    assertEquals(view.getInt32(4 * MXCSR, true), 0x1d84);
  }
});

Deno.test("a misaligned operand of 16 bytes is #GP even where its page is missing", () => {
  // MOVAPS XMM0, [0x3FF008] and MOVUPS.
  assertEquals(machine().code("0F 28 04 25 08 F0 3F 00 F4").trap(), GP);
  assertEquals(machine().code("0F 10 04 25 08 F0 3F 00 F4").trap(), PF);
  // Across two mapped pages and in one.
  assertEquals(machine().code("0F 28 04 25 F8 0F 01 00 F4").trap(), GP);
  assertEquals(machine().code("0F 28 04 25 08 00 01 00 F4").trap(), GP);
  assertEquals(machine().code("0F 10 04 25 F8 0F 01 00 F4").run(), "hlt");
});

Deno.test("a store that faults on its second page leaves the first as it was", () => {
  const m = machine().code("0F 11 04 25 F8 EF 01 00 F4");
  m.memory.writeU32(m.pageEntry(0x1f000), 0);
  state(m).setBigUint64(VEC_B, ~0n, true);
  assertEquals(m.trap(), PF);
  assertEquals(m.word(0x1eff8), 0);
  assertEquals(state(m).getUint32(4 * CR2, true), 0x1f000);
});

Deno.test("where alignment is checked moves of 16 bytes are #AC, masked ones by their parts", () => {
  const AC = 17;
  const run = (code: string): Machine => {
    const m = new Machine().longUser();
    const { cr0, cr4 } = m.vcpu.getSystemRegisters();
    m.vcpu.setSystemRegisters({ cr0: cr0 | 0x4_0000n, cr4: cr4 | OSFXSR });
    m.vcpu.setRegisters({ rflags: 0x4_0002n, rdi: 0x1_0008n });
    return m.code(`${code} F4`);
  };
  // MOVUPS XMM0, [RDI]; MOVAPS; MOVSD; MASKMOVDQU XMM0, XMM0. HLT is #GP at CPL 3.
  assertEquals(run("0F 10 07").trap(), AC);
  assertEquals(run("0F 10 47 08").trap(), GP);
  const aligned = run("0F 28 07");
  assertEquals(aligned.trap(), GP);
  assertEquals(aligned.frame(8)[1], At.code);
  for (const code of ["F2 0F 10 07", "66 0F F7 C0"]) {
    const m = run(code);
    assertEquals(m.trap(), GP);
    assertEquals(m.frame(8)[1], At.code + 4);
  }
});

/** Executes RCPSS XMM0, XMM1 or RSQRTSS, again and again. */
class Approximation {
  readonly #machine = machine();
  readonly #view = state(this.#machine);
  readonly #state: Uint8Array;

  constructor(opcode: string) {
    const { memory } = this.#machine.code(`F3 0F ${opcode} C1 F4`);
    this.#state = new Uint8Array(memory.memory.buffer, 0, 0x1000).slice();
  }

  /** Takes and gives bits. */
  of(bits: number): number {
    const { memory, vcpu } = this.#machine;
    new Uint8Array(memory.memory.buffer).set(this.#state);
    vcpu.setSystemRegisters({});
    this.#view.setUint32(VEC_B + 16, bits, true);
    assertEquals(this.#machine.run(), "hlt");
    assertEquals(this.#view.getUint32(4 * MXCSR, true), 0x1f80);
    return this.#view.getUint32(VEC_B, true);
  }
}

function single(bits: number): number {
  return new Float32Array(Uint32Array.of(bits).buffer)[0]!;
}

Deno.test("approximations are within 1.5 * 2^-12 of the reciprocal and of that of the root", () => {
  const reciprocal = new Approximation("53"), root = new Approximation("52");
  for (let n = 0; n < 500; n++) {
    const bits = 0x0090_0000 + n * 0x3f_1237;
    const value = single(bits);
    if (bits < 0x7e80_0000) {
      const x = single(reciprocal.of(bits));
      assert(Math.abs(x * value - 1) < 1.5 * 2 ** -12, `${value}: ${x}`);
    }
    const x = single(root.of(bits));
    assert(Math.abs(x * Math.sqrt(value) - 1) < 1.5 * 2 ** -12);
  }
});

Deno.test("approximations of zeros, denormals, infinities and NaNs are exact", () => {
  const reciprocal = new Approximation("53"), root = new Approximation("52");
  // Operand, RCPSS, RSQRTSS, as an AMD processor has them.
  for (
    const [bits, first, second] of [
      [0x0000_0000, 0x7f80_0000, 0x7f80_0000],
      [0x8000_0000, 0xff80_0000, 0xff80_0000],
      [0x8000_0001, 0xff80_0000, 0xff80_0000],
      [0x007f_ffff, 0x7f80_0000, 0x7f80_0000],
      [0x7f80_0000, 0x0000_0000, 0x0000_0000],
      [0xff80_0000, 0x8000_0000, 0xffc0_0000],
      [0x7f80_0001, 0x7fc0_0001, 0x7fc0_0001],
      [0xff00_0001, 0x8000_0000, 0xffc0_0000],
    ] as const
  ) {
    assertEquals(reciprocal.of(bits), first);
    assertEquals(root.of(bits), second);
  }
});
