import { assertEquals } from "@std/assert";
import {
  ACTIVITY,
  Activity,
  EVENTS,
  FCS,
  FCW,
  FSW,
  FTW,
  MXCSR,
  VEC_B,
  X87_B,
} from "../../../../core/x86/layout.ts";
import { At, Machine } from "./_machine.ts";

const OSFXSR = 0x200n, OSXSAVE = 0x4_0000n;
const AREA = At.data, OTHER = At.data + 0x1000;

/** 64-bit mode with CR4 bits and all of XCR0, and patterns in every register. */
function prepared(cr4 = OSFXSR | OSXSAVE): Machine {
  const m = new Machine().long();
  m.vcpu.setSystemRegisters({ cr4: 0x20n | cr4 });
  if ((cr4 & OSXSAVE) !== 0n) {
    m.vcpu.setRegisters({ rax: 7n, rcx: 0n, rdx: 0n });
    run(m, "0F 01 D1"); // xsetbv
  }
  const { words, bytes } = state(m);
  for (let n = 0; n < 512; n++) bytes[VEC_B + n] = n % 251 + 1;
  for (let n = 0; n < 8; n++) {
    bytes.fill(0x10 * n + 1, X87_B + 16 * n, X87_B + 16 * n + 10);
  }
  words[FCW] = 0x27f;
  words[FSW] = 0x1800;
  words[FTW] = 0x3f;
  words[MXCSR] = 0x1fa0;
  m.vcpu.setRegisters({
    rax: 7n,
    rdx: 0n,
    rbx: BigInt(AREA),
    rsi: BigInt(OTHER),
  });
  return m;
}

/** The vCPU's state, which is in front of RAM. */
function state(m: Machine): { words: Int32Array; bytes: Uint8Array } {
  const { buffer } = m.memory.memory;
  return { words: new Int32Array(buffer), bytes: new Uint8Array(buffer) };
}

/** Lets a machine that may have halted before run some code up to an HLT. */
function run(m: Machine, code: string): void {
  const { words } = state(m);
  words[ACTIVITY] = Activity.Running;
  words[EVENTS] = 0;
  assertEquals(m.code(`${code} F4`).run(), "hlt");
}

/** Lets it run into an exception: the vector. 6 means it got as far as the UD2 behind the code. */
function trapOf(m: Machine, code: string): number {
  const { words } = state(m);
  words[ACTIVITY] = Activity.Running;
  words[EVENTS] = 0;
  return m.code(`${code} 0F 0B`).trap();
}

/** Copies of the registers that XSAVE is about. */
function registers(m: Machine): { x87: Uint8Array; vectors: Uint8Array } {
  const { bytes } = state(m);
  return {
    x87: bytes.slice(X87_B, 4 * (FCS + 2)),
    vectors: bytes.slice(VEC_B, VEC_B + 512),
  };
}

/** Clears all that XSAVE is about. */
function clear(m: Machine): void {
  const { words, bytes } = state(m);
  bytes.fill(0, VEC_B, VEC_B + 512);
  bytes.fill(0, X87_B, 4 * (FCS + 2));
  words[MXCSR] = 0x1f80;
}

const FORMS = {
  fxsave: "48 0F AE 03",
  fxrstor: "48 0F AE 0B",
  xsave: "48 0F AE 23",
  xsaveopt: "48 0F AE 33",
  xsavec: "48 0F C7 23",
  xrstor: "48 0F AE 2B",
};

function half(m: Machine, at: number): number {
  return m.memory.view.getUint16(at, true);
}

Deno.test("FXSAVE lays out x87 and SSE state, and FXRSTOR takes it back", () => {
  const m = prepared(OSFXSR);
  m.memory.fill(AREA, 512, 0xee);
  run(m, FORMS.fxsave);
  assertEquals([half(m, AREA), half(m, AREA + 2), half(m, AREA + 4)], [
    0x27f,
    0x1800,
    0x3f,
  ]);
  assertEquals([m.word(AREA + 24), m.word(AREA + 28)], [0x1fa0, 0xffff]);
  // The top is 3: ST(0) is register 3.
  assertEquals(m.memory.read(AREA + 32, 1), new Uint8Array([0x31]));
  assertEquals(m.memory.read(AREA + 42, 6), new Uint8Array(6));
  assertEquals(
    m.memory.read(AREA + 160, 256),
    registers(m).vectors.slice(0, 256),
  );
  assertEquals(m.memory.read(AREA + 416, 96), new Uint8Array(96).fill(0xee));
  const before = registers(m);
  clear(m);
  run(m, FORMS.fxrstor);
  const after = registers(m);
  assertEquals(after.x87, before.x87);
  assertEquals(after.vectors.slice(0, 256), before.vectors.slice(0, 256));
  assertEquals(state(m).words[MXCSR], 0x1fa0);
});

Deno.test("without CR4.OSFXSR FXSAVE and FXRSTOR leave SSE state alone", () => {
  const m = prepared(0n);
  m.memory.fill(AREA, 512, 0xee);
  run(m, FORMS.fxsave);
  assertEquals(m.memory.read(AREA + 24, 8), new Uint8Array(8).fill(0xee));
  assertEquals(m.memory.read(AREA + 160, 16), new Uint8Array(16).fill(0xee));
  const { vectors } = registers(m);
  // A wrong MXCSR is no matter either.
  run(m, FORMS.fxrstor);
  assertEquals(registers(m).vectors, vectors);
});

Deno.test("the 32-bit forms have selectors and eight XMM registers", () => {
  const m = new Machine().protected();
  m.vcpu.setSystemRegisters({ cr4: OSFXSR });
  m.memory.fill(AREA, 512, 0xee);
  m.memory.writeU32(AREA - 4, 0x37b);
  // fninit; fldcw (ZE not masked); fld1; fdiv dword [zero]; fxsave [AREA]
  run(m, "DB E3 D9 2D FCFF0000 D9 E8 D8 35 00000200 0F AE 05 00000100");
  assertEquals(half(m, AREA + 6), 0x035);
  assertEquals([8, 12, 16, 20].map((at) => m.word(AREA + at)), [
    At.code + 10,
    0x08,
    0x2_0000,
    0x10,
  ]);
  assertEquals(
    m.memory.read(AREA + 160 + 128, 4),
    new Uint8Array(4).fill(0xee),
  );
});

Deno.test("XSAVE and XRSTOR carry all components there and back", () => {
  for (const save of [FORMS.xsave, FORMS.xsaveopt, FORMS.xsavec]) {
    const m = prepared();
    m.memory.fill(AREA, 832);
    run(m, save);
    assertEquals(m.word(AREA + 512), 7);
    assertEquals(m.word(AREA + 524) !== 0, save === FORMS.xsavec);
    const before = registers(m);
    clear(m);
    run(m, FORMS.xrstor);
    assertEquals(registers(m), before);
    assertEquals(state(m).words[MXCSR], 0x1fa0);
  }
});

Deno.test("XSAVE writes the components asked for and keeps the others' bits", () => {
  const m = prepared();
  m.memory.fill(AREA, 832, 0xee);
  m.memory.writeU32(AREA + 512, 2);
  m.vcpu.setRegisters({ rax: 0xffff_fffcn });
  run(m, FORMS.xsave);
  assertEquals(m.word(AREA + 512), 6);
  assertEquals(m.word(AREA), 0xeeee_eeee);
  // MXCSR goes with AVX state too.
  assertEquals(m.word(AREA + 24), 0x1fa0);
  assertEquals(m.memory.read(AREA + 576, 256), registers(m).vectors.slice(256));
  assertEquals(m.word(AREA + 160), 0xeeee_eeee);
});

Deno.test("components in their initial state are told so, not written if that is not wanted, and initialized", () => {
  for (const save of [FORMS.xsave, FORMS.xsaveopt, FORMS.xsavec]) {
    const m = prepared();
    clear(m);
    m.memory.fill(AREA, 832, 0xee);
    m.memory.fill(AREA + 512, 64);
    run(m, `DB E3 ${save}`);
    assertEquals(m.word(AREA + 512), 0);
    const untouched = save !== FORMS.xsave;
    for (const at of [0, 160, 576]) {
      assertEquals(
        m.word(AREA + at) === 0xeeee_eeee,
        untouched,
        `${save} ${at}`,
      );
    }
    const used = prepared();
    used.memory.write(AREA, m.memory.read(AREA, 832));
    // The standard form loads MXCSR all the same.
    used.memory.writeU32(AREA + 24, 0x1fa0);
    run(used, FORMS.xrstor);
    const { words } = state(used);
    assertEquals(registers(used).vectors, new Uint8Array(512));
    assertEquals([words[FCW], words[FSW], words[FTW]], [0x37f, 0, 0]);
    assertEquals(words[MXCSR], save === FORMS.xsavec ? 0x1f80 : 0x1fa0);
  }
});

Deno.test("XRSTOR refuses headers that mean nothing", () => {
  const trap = (change: (m: Machine) => void): number => {
    const m = prepared();
    m.memory.fill(AREA, 832);
    m.memory.writeU32(AREA + 24, 0x1f80);
    change(m);
    const before = registers(m);
    const vector = trapOf(m, FORMS.xrstor);
    if (vector !== 6) assertEquals(registers(m), before);
    return vector;
  };
  const write = (at: number, value: number) => (m: Machine): void =>
    m.memory.writeU32(AREA + at, value);
  const both = (...changes: ((m: Machine) => void)[]) => (m: Machine): void =>
    changes.forEach((change) => change(m));
  assertEquals(trap(() => {}), 6);
  assertEquals(trap(write(512, 8)), 13);
  assertEquals(trap(write(516, 1)), 13);
  assertEquals(trap(write(520, 1)), 13);
  assertEquals(trap(write(528, 1)), 13);
  assertEquals(trap(write(536, 1)), 6);
  assertEquals(trap(write(24, 0x1_0000)), 13);
  const compacted = write(524, 0x8000_0000);
  assertEquals(trap(compacted), 6);
  assertEquals(trap(both(compacted, write(512, 1))), 13);
  assertEquals(trap(both(compacted, write(512, 1), write(520, 1))), 6);
  assertEquals(trap(both(compacted, write(520, 8))), 13);
  assertEquals(trap(both(compacted, write(536, 1))), 13);
  // MXCSR belongs to a component that is not there.
  assertEquals(trap(both(compacted, write(24, 0x1_0000))), 6);
});

Deno.test("areas have to be aligned, and all there before anything is written", () => {
  for (const [name, code] of Object.entries(FORMS)) {
    const step = name.startsWith("fx") ? 16 : 64;
    const trap = (at: number, components = 7): number => {
      const m = prepared();
      m.memory.fill(AREA, 0x1000);
      m.vcpu.setRegisters({ rbx: BigInt(at), rax: BigInt(components) });
      m.memory.writeU32(m.pageEntry(AREA + 0x1000), 0);
      const vector = trapOf(m, code);
      if (vector !== 6) {
        assertEquals(m.memory.read(AREA, 0x1000), new Uint8Array(0x1000), name);
      }
      return vector;
    };
    assertEquals(trap(AREA), 6, name);
    assertEquals(trap(AREA + step / 2), 13, name);
    // The size depends on what is asked for, not on what is there.
    for (const components of [7, 3]) {
      const size = name.startsWith("fx") ? 512 : components === 7 ? 832 : 576;
      const last = AREA + 0x1000 - size;
      assertEquals(trap(last, components), 6, name);
      assertEquals(trap(last + step, components), 14, name);
    }
  }
});

Deno.test("CR0 and CR4 decide whether state can be saved", () => {
  const trap = (code: string, cr0: bigint, cr4: bigint): number => {
    const m = prepared(cr4);
    m.memory.fill(AREA, 832);
    m.vcpu.setSystemRegisters({ cr0: 0x8001_0011n | cr0 });
    return trapOf(m, code);
  };
  const EM = 4n, TS = 8n;
  for (const [name, code] of Object.entries(FORMS)) {
    const fx = name.startsWith("fx");
    assertEquals(trap(code, TS, OSXSAVE), 7, name);
    assertEquals(trap(code, EM, OSXSAVE), fx ? 7 : 6, name);
    assertEquals(trap(code, TS, 0n), fx ? 7 : 6, name);
  }
  // With an operand-size prefix they are other instructions or none.
  const m = prepared();
  assertEquals(trapOf(m, "66 0F AE 03"), 6);
});

Deno.test("XGETBV tells XCR0 and what of it is in use; CPUID tells the sizes", () => {
  const m = prepared();
  const ask = (code: string, rax: number, rcx: number): number[] => {
    m.vcpu.setRegisters({ rax: BigInt(rax), rcx: BigInt(rcx) });
    run(m, code);
    return [m.get("rax"), m.get("rbx"), m.get("rcx"), m.get("rdx")];
  };
  assertEquals(ask("0F 01 D0", 0, 0)[0], 7);
  assertEquals(ask("0F 01 D0", 0, 1)[0], 7);
  state(m).bytes.fill(0, VEC_B, VEC_B + 256);
  assertEquals(ask("0F 01 D0", 0, 1)[0], 5);
  assertEquals(ask("0F A2", 0xd, 0), [7, 832, 832, 0]);
  assertEquals(ask("0F A2", 0xd, 1), [7, 832, 0, 0]);
  assertEquals(ask("0F A2", 0xd, 2), [256, 576, 0, 0]);
  // xsetbv: x87 and SSE only
  ask("31 D2 0F 01 D1", 3, 0);
  assertEquals(ask("0F A2", 0xd, 0), [7, 576, 832, 0]);
});

Deno.test("XCR0 takes combinations that exist, at CPL 0", () => {
  const trap = (value: number, index = 0): number => {
    const m = prepared();
    m.vcpu.setRegisters({ rax: BigInt(value), rcx: BigInt(index), rdx: 0n });
    return trapOf(m, "0F 01 D1");
  };
  assertEquals([1, 3, 7].map((value) => trap(value)), [6, 6, 6]);
  assertEquals([0, 2, 4, 5, 6, 9].map((value) => trap(value)), [
    13,
    13,
    13,
    13,
    13,
    13,
  ]);
  assertEquals(trap(1, 1), 13);
  const user = new Machine().longUser();
  user.vcpu.setSystemRegisters({ cr4: 0x20n | OSXSAVE });
  user.vcpu.setRegisters({ rax: 1n, rcx: 0n, rdx: 0n });
  assertEquals(trapOf(user, "0F 01 D1"), 13);
});
