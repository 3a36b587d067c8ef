/**
 * The x87's state in memory: the environment of FNSTENV and FLDENV in its four layouts and the
 * registers that FNSAVE and FRSTOR have behind it (SDM volume 1, 8.1.10).
 *
 * @module
 */
import { requireAlignment } from "./access.ts";
import { linearOf } from "./address.ts";
import { probeArea, readArea, writeArea } from "./area.ts";
import type { Cpu } from "./cpu.ts";
import {
  EA,
  FCS,
  FCW,
  FDP,
  FDS,
  FIP,
  FOP,
  FSW,
  FTW,
  MODE,
  Mode,
  X87_B,
} from "./layout.ts";
import type { Handler } from "./opcode.ts";
import {
  begin,
  charge,
  checkAvailable,
  EXCEPTIONS,
  initialize,
  physical,
  summarize,
  X87_COST,
} from "./x87.ts";

/** Bits of {@linkcode FCW} that can be set. */
export const CONTROL_BITS = 0x1f3f;
const OPCODE_BITS = 0x7ff;

const AREA = new Uint8Array(28 + 80);
const VIEW = new DataView(AREA.buffer);

/** Tags of physical registers: 0 a number, 1 zero, 2 anything else, 3 empty. */
function tagWord(cpu: Cpu): number {
  let tags = 0;
  for (let n = 0; n < 8; n++) {
    const at = X87_B + 16 * n;
    let tag = 3;
    if ((cpu.i32[FTW]! & (1 << n)) !== 0) {
      const exponent = cpu.dv.getUint16(at + 8, true) & 0x7fff;
      const high = cpu.dv.getInt32(at + 4, true);
      const zero = high === 0 && cpu.dv.getInt32(at, true) === 0;
      if (exponent === 0) tag = zero ? 1 : 2;
      else tag = exponent === 0x7fff || high >= 0 ? 2 : 0;
    }
    tags |= tag << (2 * n);
  }
  return tags;
}

/** Of loaded tags only empty or not counts; the rest follows from the registers. */
function setTags(cpu: Cpu, tags: number): void {
  let full = 0;
  for (let n = 0; n < 8; n++) {
    if (((tags >>> (2 * n)) & 3) !== 3) full |= 1 << n;
  }
  cpu.i32[FTW] = full;
}

/** Whether pointers are selector and offset; in real and virtual-8086 mode they are linear. */
function hasSelectors(cpu: Cpu): boolean {
  return (cpu.i32[MODE]! & (Mode.Protected | Mode.V86)) === Mode.Protected;
}

/** Fills {@linkcode AREA} from its start; `size` is that of a field. */
function putEnvironment(cpu: Cpu, size: number): void {
  const i = cpu.i32;
  const put = (n: number, value: number): void => {
    if (size === 2) VIEW.setUint16(2 * n, value, true);
    else VIEW.setUint32(4 * n, value, true);
  };
  // Unused upper halves are ones.
  const ones = 0xffff_0000;
  put(0, i[FCW]! | ones);
  put(1, i[FSW]! | ones);
  put(2, tagWord(cpu) | ones);
  if (hasSelectors(cpu)) {
    put(3, i[FIP]!);
    put(4, i[FCS]! | (i[FOP]! << 16));
    put(5, i[FDP]!);
    put(6, i[FDS]! | ones);
  } else {
    const code = (i[FCS]! << 4) + i[FIP]!, data = (i[FDS]! << 4) + i[FDP]!;
    const mask = size === 2 ? 0xf000 : 0x0fff_f000;
    put(3, code | ones);
    put(4, ((code >>> 4) & mask) | i[FOP]!);
    put(5, data | ones);
    put(6, (data >>> 4) & mask);
  }
}

/** Takes the environment from the start of {@linkcode AREA}. */
function getEnvironment(cpu: Cpu, size: number): void {
  const i = cpu.i32;
  const get = (n: number): number =>
    size === 2 ? VIEW.getUint16(2 * n, true) : VIEW.getInt32(4 * n, true);
  i[FCW] = (get(0) & CONTROL_BITS) | 0x40;
  i[FSW] = get(1) & 0xffff;
  setTags(cpu, get(2));
  i[FIP + 1] = 0;
  i[FDP + 1] = 0;
  const code = get(4), data = get(6);
  if (hasSelectors(cpu)) {
    i[FIP] = get(3);
    i[FCS] = code & 0xffff;
    // The 16-bit layout has no room for it.
    i[FOP] = size === 4 ? (code >>> 16) & OPCODE_BITS : 0;
    i[FDP] = get(5);
    i[FDS] = data & 0xffff;
  } else {
    const mask = size === 2 ? 0xf_0000 : 0xffff_0000;
    i[FIP] = (get(3) & 0xffff) | ((code << 4) & mask);
    i[FCS] = 0;
    i[FOP] = code & OPCODE_BITS;
    i[FDP] = (get(5) & 0xffff) | ((data << 4) & mask);
    i[FDS] = 0;
  }
  summarize(cpu);
}

/** Copies ST(0) to ST(7) to ten bytes each. */
function putRegisters(cpu: Cpu, at: number): void {
  for (let n = 0; n < 8; n++) {
    const from = X87_B + 16 * physical(cpu, n);
    AREA.set(cpu.u8.subarray(from, from + 10), at + 10 * n);
  }
}

function getRegisters(cpu: Cpu, at: number): void {
  for (let n = 0; n < 8; n++) {
    const from = at + 10 * n;
    cpu.u8.set(AREA.subarray(from, from + 10), X87_B + 16 * physical(cpu, n));
  }
}

/** Finds the area: `size` bytes a field. Alignment is that of a field. */
function locate(
  cpu: Cpu,
  pc: number,
  size: number,
  bytes: number,
  write: boolean,
): void {
  charge(cpu, X87_COST);
  linearOf(cpu, pc, bytes, write);
  requireAlignment(cpu, cpu.i32[EA]!, size);
}

/** FNSTENV: afterwards all exceptions are masked. */
export function fnstenv(size: number): Handler {
  return (cpu, _a, _b, pc) => {
    checkAvailable(cpu);
    locate(cpu, pc, size, 7 * size, true);
    probeArea(cpu, 7 * size);
    putEnvironment(cpu, size);
    writeArea(cpu, AREA, 0, 7 * size);
    cpu.i32[FCW] = cpu.i32[FCW]! | EXCEPTIONS;
    summarize(cpu);
  };
}

/** FLDENV. */
export function fldenv(size: number): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    locate(cpu, pc, size, 7 * size, false);
    readArea(cpu, AREA.subarray(0, 7 * size));
    getEnvironment(cpu, size);
  };
}

/** FNSAVE: the environment and the registers, then as FNINIT. */
export function fnsave(size: number): Handler {
  return (cpu, _a, _b, pc) => {
    checkAvailable(cpu);
    const bytes = 7 * size + 80;
    locate(cpu, pc, size, bytes, true);
    probeArea(cpu, bytes);
    putEnvironment(cpu, size);
    putRegisters(cpu, 7 * size);
    writeArea(cpu, AREA, 0, bytes);
    initialize(cpu);
  };
}

/** FRSTOR. */
export function frstor(size: number): Handler {
  return (cpu, _a, _b, pc) => {
    begin(cpu);
    const bytes = 7 * size + 80;
    locate(cpu, pc, size, bytes, false);
    readArea(cpu, AREA.subarray(0, bytes));
    getEnvironment(cpu, size);
    getRegisters(cpu, 7 * size);
  };
}
