/**
 * Operands in memory of more than 64 bytes: the areas in which instructions save state. They go through
 * a buffer, so that a fault in the middle leaves registers and memory as they were. The first byte is
 * touched first and the last one next, so AMD processors do and a page fault tells.
 *
 * @module
 */
import { advance, commit, readAddress, writeAddress } from "./access.ts";
import type { Cpu } from "./cpu.ts";
import { COMMIT_SIZE, EA, HIGH } from "./layout.ts";

const PIECE = 64;

/** Reads the area that begins at the linear address in {@linkcode EA}. */
export function readArea(cpu: Cpu, bytes: Uint8Array): void {
  readPart(cpu, bytes, 0, 1);
  readPart(cpu, bytes, bytes.length - 1, 1);
  for (let done = 0; done < bytes.length; done += PIECE) {
    readPart(cpu, bytes, done, Math.min(PIECE, bytes.length - done));
  }
}

/** Reads at most 64 bytes of an area to the same offset in a buffer. */
export function readPart(
  cpu: Cpu,
  bytes: Uint8Array,
  offset: number,
  size: number,
): void {
  const i = cpu.i32;
  const low = advance(cpu, i[EA]!, i[EA + 1]!, offset);
  const at = readAddress(cpu, low, i[HIGH]!, size);
  bytes.set(cpu.u8.subarray(at, at + size), offset);
}

/**
 * Checks that an area of less than a page can be written as a whole; {@linkcode writeArea} cannot
 * fault after this.
 */
export function probeArea(cpu: Cpu, size: number): void {
  probe(cpu, 0);
  probe(cpu, size - 1);
}

function probe(cpu: Cpu, offset: number): void {
  const i = cpu.i32;
  const low = advance(cpu, i[EA]!, i[EA + 1]!, offset);
  writeAddress(cpu, low, i[HIGH]!, 1);
  i[COMMIT_SIZE] = 0;
}

/** Writes the bytes from `start` to `end` of an area. */
export function writeArea(
  cpu: Cpu,
  bytes: Uint8Array,
  start: number,
  end: number,
): void {
  const i = cpu.i32;
  for (let done = start; done < end; done += PIECE) {
    const size = Math.min(PIECE, end - done);
    const low = advance(cpu, i[EA]!, i[EA + 1]!, done);
    const at = writeAddress(cpu, low, i[HIGH]!, size);
    cpu.u8.set(bytes.subarray(done, done + size), at);
    commit(cpu);
  }
}
