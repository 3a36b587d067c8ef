/**
 * Guest memory by linear address. Everything that is not one run of plain RAM
 * (a split page, MMIO, a page with decoded code) goes through a scratch operand
 * and is finished by {@linkcode commit}, so that instruction handlers only ever see
 * a host address, and a fault on either page leaves both untouched.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { dropCode, pageHasCode } from "./code_map.ts";
import { faultCode, Vector } from "./fault.ts";
import {
  COMMIT_FIRST,
  COMMIT_GPA,
  COMMIT_SIZE,
  Event,
  EVENTS,
  HIGH,
  MODE,
  Mode,
  SCRATCH_B,
  TLB,
  TLB_ENTRIES,
  TLB_GEN,
  TLB_R,
  TLB_SET_WORDS,
  TLB_W,
  TlbSet,
} from "./layout.ts";
import { Access, IMPLICIT, translate } from "./paging.ts";
import { watchAccess } from "./watch.ts";

/** Whether alignment is checked now: CPL 3, EFLAGS.AC and CR0.AM. */
function checksAlignment(cpu: Cpu): boolean {
  return cpu.i32[TLB_R] === TLB + TlbSet.None * TLB_SET_WORDS;
}

function checkAlignment(cpu: Cpu, low: number, size: number): void {
  // Vectors want 16 bytes at most. Operands of 10 and more than 32 bytes have rules of their own.
  const wanted = size === 32 ? 16 : size;
  if ((wanted <= 8 || wanted === 16) && (low & (wanted - 1)) !== 0) {
    faultCode(cpu, Vector.AC, 0);
  }
}

/** #AC if alignment is checked now and an operand with a rule of its own breaks it. */
export function requireAlignment(cpu: Cpu, low: number, bytes: number): void {
  if ((low & (bytes - 1)) !== 0 && checksAlignment(cpu)) {
    faultCode(cpu, Vector.AC, 0);
  }
}

/** The linear address `offset` bytes after (low, high): low and, in HIGH, high. */
export function advance(
  cpu: Cpu,
  low: number,
  high: number,
  offset: number,
): number {
  const sum = (low + offset) | 0;
  const carried = (sum >>> 0) < (low >>> 0) ? 1 : 0;
  // Outside 64-bit mode addresses wrap at 4 GiB, and high is 0 for all of them.
  cpu.i32[HIGH] = high === 0 && carried === 1 && !cpu64(cpu)
    ? 0
    : (high + carried) | 0;
  return sum;
}

function cpu64(cpu: Cpu): boolean {
  return (cpu.i32[MODE]! & Mode.Long) !== 0;
}

/** What a call of the host takes, in instructions. */
const MMIO_COST = 16;
/** What the host reads and writes, by its length: no access makes one. */
const MMIO_DATA = Array.from({ length: 9 }, (_, n) => new Uint8Array(n));

/** Copies RAM or MMIO of one page into linear memory at `to`. */
function readPhysical(cpu: Cpu, gpa: number, to: number, size: number): void {
  if (gpa + size <= cpu.ramSize) {
    cpu.u8.copyWithin(to, cpu.ramBase + gpa, cpu.ramBase + gpa + size);
    return;
  }
  cpu.spent += MMIO_COST;
  for (let done = 0; done < size;) {
    const data = MMIO_DATA[Math.min(8, size - done)]!;
    data.fill(0xff);
    cpu.host.readMmio(cpu.vcpu, gpa + done, data);
    cpu.u8.set(data, to + done);
    done += data.length;
  }
}

/** Copies from linear memory at `from` to RAM or MMIO of one page. True: code was hit. */
function writePhysical(
  cpu: Cpu,
  gpa: number,
  from: number,
  size: number,
): boolean {
  if (gpa + size <= cpu.ramSize) {
    cpu.u8.copyWithin(cpu.ramBase + gpa, from, from + size);
    return pageHasCode(cpu, gpa) && dropCode(cpu, gpa, size);
  }
  cpu.spent += MMIO_COST;
  for (let done = 0; done < size;) {
    const data = MMIO_DATA[Math.min(8, size - done)]!;
    for (let n = 0; n < data.length; n++) data[n] = cpu.u8[from + done + n]!;
    cpu.host.writeMmio(cpu.vcpu, gpa + done, data);
    done += data.length;
  }
  return true;
}

/**
 * Host address from which `size` bytes (1 to 64) at a linear address can be
 * read: of the bytes themselves or of a copy.
 *
 * @param implicit {@linkcode IMPLICIT} for the CPU's own accesses, else 0.
 */
export function readAddress(
  cpu: Cpu,
  low: number,
  high: number,
  size: number,
  implicit = 0,
): number {
  const i = cpu.i32;
  const at = i[TLB_R]! + (((low >>> 12) & (TLB_ENTRIES - 1)) << 2);
  const first = 4096 - (low & 4095);
  if (
    implicit === 0 && first >= size &&
    i[at] === ((low & -4096) | i[TLB_GEN]!) && i[at + 1] === high
  ) return (low + i[at + 2]!) | 0;
  if (implicit === 0 && checksAlignment(cpu)) checkAlignment(cpu, low, size);
  if (first >= size) {
    const gpa = translate(cpu, low, high, Access.Read | implicit);
    watchAccess(cpu, low, high, size, false);
    if (gpa + size <= cpu.ramSize) return cpu.ramBase + gpa;
    readPhysical(cpu, gpa, SCRATCH_B, size);
    return SCRATCH_B;
  }
  const low2 = advance(cpu, low, high, first);
  const high2 = i[HIGH]!;
  const gpa1 = translate(cpu, low, high, Access.Read | implicit);
  const gpa2 = translate(cpu, low2, high2, Access.Read | implicit);
  watchAccess(cpu, low, high, first, false);
  watchAccess(cpu, low2, high2, size - first, false);
  readPhysical(cpu, gpa1, SCRATCH_B, first);
  readPhysical(cpu, gpa2, SCRATCH_B + first, size - first);
  return SCRATCH_B;
}

/**
 * Host address to which `size` bytes (1 to 64) for a linear address can be
 * written, all or nothing. If {@linkcode COMMIT_SIZE} is not 0 afterwards the caller must
 * call {@linkcode commit} once the bytes are there.
 *
 * @param modify The old value is wanted too.
 */
export function writeAddress(
  cpu: Cpu,
  low: number,
  high: number,
  size: number,
  modify = false,
  implicit = 0,
): number {
  const i = cpu.i32;
  const at = i[TLB_W]! + (((low >>> 12) & (TLB_ENTRIES - 1)) << 2);
  const first = 4096 - (low & 4095);
  if (
    implicit === 0 && first >= size &&
    i[at] === ((low & -4096) | i[TLB_GEN]!) && i[at + 1] === high
  ) return (low + i[at + 2]!) | 0;
  if (implicit === 0 && checksAlignment(cpu)) checkAlignment(cpu, low, size);
  const access = Access.Write | implicit;
  if (first >= size) {
    const gpa = translate(cpu, low, high, access);
    watchAccess(cpu, low, high, size, true);
    if (gpa + size <= cpu.ramSize && !pageHasCode(cpu, gpa)) {
      return cpu.ramBase + gpa;
    }
    setCommit(i, size, size, gpa, 0);
    if (modify) readPhysical(cpu, gpa, SCRATCH_B, size);
    return SCRATCH_B;
  }
  const low2 = advance(cpu, low, high, first);
  const high2 = i[HIGH]!;
  const gpa1 = translate(cpu, low, high, access);
  const gpa2 = translate(cpu, low2, high2, access);
  watchAccess(cpu, low, high, first, true);
  watchAccess(cpu, low2, high2, size - first, true);
  setCommit(i, size, first, gpa1, gpa2);
  if (modify) {
    readPhysical(cpu, gpa1, SCRATCH_B, first);
    readPhysical(cpu, gpa2, SCRATCH_B + first, size - first);
  }
  return SCRATCH_B;
}

function setCommit(
  i: Int32Array,
  size: number,
  first: number,
  gpa1: number,
  gpa2: number,
): void {
  i[COMMIT_SIZE] = size;
  i[COMMIT_FIRST] = first;
  i[COMMIT_GPA] = gpa1 | 0;
  i[COMMIT_GPA + 1] = Math.floor(gpa1 / 0x1_0000_0000);
  i[COMMIT_GPA + 2] = gpa2 | 0;
  i[COMMIT_GPA + 3] = Math.floor(gpa2 / 0x1_0000_0000);
}

/**
 * Finishes a store that went to the scratch operand.
 *
 * @returns Whether decoded code was hit or a device reached: the block must be left.
 */
export function commit(cpu: Cpu): boolean {
  const i = cpu.i32;
  const size = i[COMMIT_SIZE]!;
  if (size === 0) return false;
  i[COMMIT_SIZE] = 0;
  const first = i[COMMIT_FIRST]!;
  const gpa1 = (i[COMMIT_GPA + 1]! >>> 0) * 0x1_0000_0000 +
    (i[COMMIT_GPA]! >>> 0);
  const gpa2 = (i[COMMIT_GPA + 3]! >>> 0) * 0x1_0000_0000 +
    (i[COMMIT_GPA + 2]! >>> 0);
  let leave = writePhysical(cpu, gpa1, SCRATCH_B, first);
  if (size > first) {
    leave = writePhysical(cpu, gpa2, SCRATCH_B + first, size - first) || leave;
  }
  // A handler that stored by itself does not look at the result.
  if (leave) i[EVENTS] = i[EVENTS]! | Event.LeaveBlock;
  return leave;
}

/** Loads a byte, zero-extended. */
export function load8(cpu: Cpu, low: number, high: number): number {
  return cpu.u8[readAddress(cpu, low, high, 1)]!;
}

/** Loads 16 bits, zero-extended. */
export function load16(cpu: Cpu, low: number, high: number): number {
  return cpu.dv.getUint16(readAddress(cpu, low, high, 2), true);
}

/** Loads 32 bits as a signed number. */
export function load32(cpu: Cpu, low: number, high: number): number {
  return cpu.dv.getInt32(readAddress(cpu, low, high, 4), true);
}

/** Loads 64 bits: the low word, and the high word in {@linkcode HIGH}. */
export function load64(cpu: Cpu, low: number, high: number): number {
  const at = readAddress(cpu, low, high, 8);
  cpu.i32[HIGH] = cpu.dv.getInt32(at + 4, true);
  return cpu.dv.getInt32(at, true);
}

/** Stores a byte. */
export function store8(
  cpu: Cpu,
  low: number,
  high: number,
  value: number,
): void {
  cpu.u8[writeAddress(cpu, low, high, 1)] = value;
  if (cpu.i32[COMMIT_SIZE] !== 0) commit(cpu);
}

/** Stores 16 bits. */
export function store16(
  cpu: Cpu,
  low: number,
  high: number,
  value: number,
): void {
  cpu.dv.setInt16(writeAddress(cpu, low, high, 2), value, true);
  if (cpu.i32[COMMIT_SIZE] !== 0) commit(cpu);
}

/** Stores 32 bits. */
export function store32(
  cpu: Cpu,
  low: number,
  high: number,
  value: number,
): void {
  cpu.dv.setInt32(writeAddress(cpu, low, high, 4), value, true);
  if (cpu.i32[COMMIT_SIZE] !== 0) commit(cpu);
}

/** Stores 64 bits, given as two words. */
export function store64(
  cpu: Cpu,
  low: number,
  high: number,
  valueLow: number,
  valueHigh: number,
): void {
  const at = writeAddress(cpu, low, high, 8);
  cpu.dv.setInt32(at, valueLow, true);
  cpu.dv.setInt32(at + 4, valueHigh, true);
  if (cpu.i32[COMMIT_SIZE] !== 0) commit(cpu);
}

/** Host address for reading `size` bytes with the CPU's own rights (descriptor tables, TSS). */
export function readSystem(
  cpu: Cpu,
  low: number,
  high: number,
  size: number,
): number {
  return readAddress(cpu, low, high, size, IMPLICIT);
}

/** As {@linkcode writeAddress} for reading and writing with the CPU's own rights. */
export function writeSystem(
  cpu: Cpu,
  low: number,
  high: number,
  size: number,
): number {
  return writeAddress(cpu, low, high, size, true, IMPLICIT);
}
