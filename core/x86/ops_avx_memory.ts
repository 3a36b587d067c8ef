/**
 * AVX and AVX2 instructions that reach memory lane by lane: masked moves and gathers. A lane whose mask is
 * not set is not touched at all.
 *
 * @module
 */
import { advance, commit, readAddress, writeAddress } from "./access.ts";
import { linear, linearOf, segmentOf } from "./address.ts";
import type { Cpu } from "./cpu.ts";
import { undefinedOpcode } from "./fault.ts";
import {
  COMMIT_SIZE,
  EA,
  HIGH,
  Mem,
  R_DISP,
  R_MEM,
  VEC_B,
  VEX_B,
  ZERO,
} from "./layout.ts";
import type { Handler, OpDef } from "./opcode.ts";
import { copy } from "./simd.ts";
import { put, sourceOf } from "./vex.ts";

/** Address of byte `at` of a YMM register. */
function within(a: number, at: number): number {
  return at < 16 ? a + at : a + 240 + at;
}

/** Whether the mask's lane at this byte is set. */
function chosen(cpu: Cpu, mask: number, at: number, size: number): boolean {
  return cpu.u8[within(mask, at + size - 1)]! > 127;
}

/** Reads a lane at the address in EA. By bytes if it is misaligned: that is never #AC here. */
function readLane(cpu: Cpu, to: number, size: number): void {
  const low = cpu.i32[EA]!, high = cpu.i32[EA + 1]!;
  const step = (low & (size - 1)) === 0 ? size : 1;
  for (let at = 0; at < size; at += step) {
    const part = advance(cpu, low, high, at);
    const from = readAddress(cpu, part, cpu.i32[HIGH]!, step);
    if (step === 1) cpu.u8[to + at] = cpu.u8[from]!;
    else copy(cpu, to, from, size);
  }
}

/** As {@linkcode readLane}: writes a lane, or only looks whether it can be written. */
function writeLane(cpu: Cpu, from: number, size: number, write: boolean): void {
  const i = cpu.i32;
  const low = i[EA]!, high = i[EA + 1]!;
  const step = (low & (size - 1)) === 0 ? size : 1;
  for (let at = 0; at < size; at += step) {
    const part = advance(cpu, low, high, at);
    const to = writeAddress(cpu, part, i[HIGH]!, step);
    if (!write) {
      i[COMMIT_SIZE] = 0;
      continue;
    }
    if (step === 1) cpu.u8[to] = cpu.u8[from + at]!;
    else copy(cpu, to, from, size);
    commit(cpu);
  }
}

/** VMASKMOVPS and the like from memory: lanes not chosen become 0. */
function maskedLoad(size: number, wide: boolean): Handler {
  return (cpu, a, _b, pc) => {
    const { dv } = cpu;
    const mask = sourceOf(cpu, pc);
    const bytes = wide ? 32 : 16;
    for (let at = 0; at < bytes; at += 4) dv.setInt32(VEX_B + at, 0, true);
    for (let at = 0; at < bytes; at += size) {
      if (!chosen(cpu, mask, at, size)) continue;
      linearOf(cpu, pc, size, false, at);
      readLane(cpu, VEX_B + at, size);
    }
    put(cpu, a, wide);
  };
}

/** The same to memory. All lanes are looked up before the first is written. */
function maskedStore(size: number, wide: boolean): Handler {
  return (cpu, _a, b, pc) => {
    const mask = sourceOf(cpu, pc);
    for (const write of [false, true]) {
      for (let at = 0; at < (wide ? 32 : 16); at += size) {
        if (!chosen(cpu, mask, at, size)) continue;
        linearOf(cpu, pc, size, true, at);
        writeLane(cpu, within(b, at), size, write);
      }
    }
  };
}

/** The linear address of a gather's lane, in EA. */
function gatherAddress(
  cpu: Cpu,
  pc: number,
  index: number,
  indexHigh: number,
  size: number,
): void {
  const i = cpu.i32;
  const mem = i[pc + R_MEM]!;
  const base = mem & Mem.BaseMask;
  const scale = 1 << ((mem >>> Mem.ScaleShift) & 3);
  const low = (index >>> 0) * scale;
  const carry = Math.floor(low / 0x1_0000_0000);
  const disp = i[pc + R_DISP]!;
  const sum = (low >>> 0) + (i[base]! >>> 0) + (disp >>> 0);
  const high = Math.imul(indexHigh, scale) + carry + i[base + 1]! +
    (disp >> 31) + Math.floor(sum / 0x1_0000_0000);
  const long = ((mem >>> Mem.SizeShift) & 3) === 2;
  linear(cpu, segmentOf(cpu, pc), sum | 0, long ? high | 0 : 0, size, false);
}

/**
 * VGATHER and VPGATHER: the lanes that the mask in VEX.vvvv chooses, from base + index * scale. Where
 * one faults those before it stay, and their mask is clear.
 */
function gather(size: number, indexSize: number, wide: boolean): Handler {
  return (cpu, a, _b, pc) => {
    const { i32: i, dv } = cpu;
    // Index 4 looks as if there were none.
    const word = (i[pc + R_MEM]! >>> Mem.IndexShift) & Mem.BaseMask;
    const index = VEC_B + 16 * (word === ZERO ? 4 : word >> 1);
    const mask = sourceOf(cpu, pc);
    if (index === a || mask === a || index === mask) undefinedOpcode(cpu);
    const lanes = (wide ? 32 : 16) / Math.max(size, indexSize);
    for (let n = 0; n < lanes; n++) {
      const at = n * size;
      if (chosen(cpu, mask, at, size)) {
        const from = within(index, n * indexSize);
        const low = dv.getInt32(from, true);
        const high = indexSize === 8 ? dv.getInt32(from + 4, true) : low >> 31;
        gatherAddress(cpu, pc, low, high, size);
        readLane(cpu, VEX_B, size);
        copy(cpu, within(a, at), VEX_B, size);
      }
      dv.setInt32(within(mask, at), 0, true);
      if (size === 8) dv.setInt32(within(mask, at) + 4, 0, true);
    }
    // What no lane fills becomes 0 in both.
    for (let at = lanes * size; at < 32; at += 4) {
      dv.setInt32(within(a, at), 0, true);
      dv.setInt32(within(mask, at), 0, true);
    }
  };
}

function maskedMoves(
  load: string,
  store: string,
  w: 0 | 1,
  size: number,
): OpDef[] {
  return [false, true].flatMap((wide): OpDef[] => {
    const prefix = `VEX.66.L${wide ? 1 : 0} 0F38`;
    return [
      {
        code: `${prefix} ${load} W${w} m`,
        operands: "=Vx M Hx",
        run: maskedLoad(size, wide),
      },
      {
        code: `${prefix} ${store} W${w} m`,
        operands: "M Vx Hx",
        run: maskedStore(size, wide),
      },
    ];
  });
}

function gathers(opcode: string, w: 0 | 1, indexSize: number): OpDef[] {
  return [false, true].map((wide): OpDef => ({
    code: `VEX.66.L${wide ? 1 : 0} 0F38 ${opcode} W${w}`,
    operands: "+Vx M Hx",
    run: gather(w === 1 ? 8 : 4, indexSize, wide),
    flags: "vsib",
  }));
}

/** The family's lines of the opcode tables. */
export function avxMemoryOps(): OpDef[] {
  return [
    ...maskedMoves("2C", "2E", 0, 4),
    ...maskedMoves("2D", "2F", 0, 8),
    ...maskedMoves("8C", "8E", 0, 4),
    ...maskedMoves("8C", "8E", 1, 8),
    ...["90", "92"].flatMap((opcode) =>
      ([0, 1] as const).flatMap((w) => gathers(opcode, w, 4))
    ),
    ...["91", "93"].flatMap((opcode) =>
      ([0, 1] as const).flatMap((w) => gathers(opcode, w, 8))
    ),
  ];
}
