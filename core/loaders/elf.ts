/**
 * ELF executables for x86 (System V ABI, chapters 4 and 5).
 *
 * @module
 */

/** A part of RAM to be filled. */
export interface LoadSegment {
  /** Guest-physical address. */
  address: number;
  /** Bytes from the file. */
  data: Uint8Array;
  /** Bytes in memory; what the file has not is zeros. */
  size: number;
}

/** An executable, ready to be placed. */
export interface ElfImage {
  /** ELF32 or ELF64. */
  bits: 32 | 64;
  /** Guest-physical address at which execution begins. */
  entry: number;
  /** What is to be loaded, in the file's order. */
  segments: LoadSegment[];
  /** The contents of its note segments. */
  notes: Uint8Array[];
}

const PT_LOAD = 1;
const PT_NOTE = 4;
const EM_386 = 3;
const EM_X86_64 = 62;
const MAX_HEADERS = 1024;

/** Whether bytes begin as an ELF file does. */
export function isElf(image: Uint8Array): boolean {
  return image.length >= 4 && image[0] === 0x7f && image[1] === 0x45 &&
    image[2] === 0x4c && image[3] === 0x46;
}

function fail(what: string): never {
  throw new SyntaxError(`Cannot load ELF image: ${what}`);
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/**
 * Takes an ELF32 or ELF64 executable apart. Nothing in the file is trusted.
 *
 * @throws {SyntaxError} If it is damaged or not for x86.
 */
export function parseElf(image: Uint8Array): ElfImage {
  if (!isElf(image)) fail("no ELF magic number");
  const view = new DataView(image.buffer, image.byteOffset, image.length);
  const bits = image[4] === 1 ? 32 : image[4] === 2 ? 64 : 0;
  if (bits === 0) fail(`unknown class: ${image[4]}`);
  const wide = bits === 64;
  if (image.length < (wide ? 64 : 52)) {
    fail(`header is cut off: ${image.length} bytes`);
  }
  if (image[5] !== 1) fail(`not little-endian: ${image[5]}`);
  const machine = view.getUint16(18, true);
  if (machine !== (wide ? EM_X86_64 : EM_386)) {
    fail(`not for x86: machine ${machine}`);
  }
  const exact = (at: number): bigint =>
    wide ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
  const word = (at: number): number => Number(exact(at));
  const entry = exact(24);
  const table = word(wide ? 32 : 28);
  const size = view.getUint16(wide ? 54 : 42, true);
  const count = view.getUint16(wide ? 56 : 44, true);
  if (count === 0 || count > MAX_HEADERS) {
    fail(`number of program headers: ${count}`);
  }
  if (size < (wide ? 56 : 32)) fail(`size of a program header: ${size}`);
  if (!(table + size * count <= image.length)) {
    fail(`program headers are outside the file: ${hex(table)}`);
  }
  const segments: LoadSegment[] = [];
  const notes: Uint8Array[] = [];
  let start = Number(entry);
  for (let n = 0; n < count; n++) {
    const at = table + n * size;
    const type = view.getUint32(at, true);
    if (type !== PT_LOAD && type !== PT_NOTE) continue;
    const offset = word(at + (wide ? 8 : 4));
    const address = word(at + (wide ? 24 : 12));
    const fileSize = word(at + (wide ? 32 : 16));
    const memorySize = word(at + (wide ? 40 : 20));
    if (type === PT_LOAD && fileSize > memorySize) {
      fail(
        `segment ${n} is larger in the file than in memory: ${hex(fileSize)}`,
      );
    }
    if (!(offset + fileSize <= image.length)) {
      fail(`segment ${n} is outside the file: ${hex(offset)}`);
    }
    if (type === PT_NOTE) {
      notes.push(image.subarray(offset, offset + fileSize));
      continue;
    }
    if (memorySize === 0) continue;
    // The entry point is a virtual address: it moves with the segment that it lies in.
    const inside = entry - exact(at + (wide ? 16 : 8));
    if (inside >= 0n && inside < BigInt(memorySize)) {
      start = address + Number(inside);
    }
    segments.push({
      address,
      data: image.subarray(offset, offset + fileSize),
      size: memorySize,
    });
  }
  if (segments.length === 0) fail("no segment to load");
  return { bits, entry: start, segments, notes };
}
