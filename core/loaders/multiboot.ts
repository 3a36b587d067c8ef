/**
 * Multiboot 1 (Multiboot Specification 0.6.96): the header, and the information that the kernel
 * is given.
 *
 * @module
 */
import type { GuestMemory } from "../guest_memory.ts";
import { LowMemory, memoryRegions } from "../memory_map.ts";
import type { LoadSegment } from "./elf.ts";

const MAGIC = 0x1bad_b002;
/** EAX at entry. */
export const MULTIBOOT_MAGIC = 0x2bad_b002;
const SEARCH = 8192;
const FLAG_ADDRESSES = 0x1_0000;
/** Flags below 16 that this loader satisfies: aligned modules, memory information. */
const KNOWN = 3;

/** Memory sizes, command line, modules, memory map, loader name are there. */
const INFO_FLAGS = 0b10_0100_1101;

/** A header found in an image. */
export interface MultibootHeader {
  /** Where it is in the file. */
  offset: number;
  flags: number;
  /** The a.out kludge: addresses in the header instead of an ELF file. */
  placed: { entry: number; segments: LoadSegment[] } | undefined;
}

/** A file that the kernel is given. */
export interface MultibootModule {
  /** Its bytes. */
  data: Uint8Array;
  /** Its command line. */
  text: string;
}

function fail(what: string): never {
  throw new SyntaxError(`Cannot load multiboot image: ${what}`);
}

/**
 * Looks for a header in the first 8 KiB.
 *
 * @throws {SyntaxError} If there is one that cannot be satisfied.
 */
export function findMultiboot(image: Uint8Array): MultibootHeader | undefined {
  const view = new DataView(image.buffer, image.byteOffset, image.length);
  const end = Math.min(SEARCH, image.length) - 12;
  for (let at = 0; at <= end; at += 4) {
    if (view.getUint32(at, true) !== MAGIC) continue;
    const flags = view.getUint32(at + 4, true);
    if (((MAGIC + flags + view.getUint32(at + 8, true)) >>> 0) !== 0) continue;
    if ((flags & 0xffff & ~KNOWN & ~4) !== 0) {
      fail(`unknown required flags: 0x${flags.toString(16)}`);
    }
    const placed = (flags & FLAG_ADDRESSES) !== 0
      ? placedImage(image, view, at)
      : undefined;
    return { offset: at, flags, placed };
  }
  return undefined;
}

function placedImage(
  image: Uint8Array,
  view: DataView,
  at: number,
): { entry: number; segments: LoadSegment[] } {
  if (at + 32 > image.length) fail("header is cut off");
  const header = view.getUint32(at + 12, true);
  const load = view.getUint32(at + 16, true);
  const loadEnd = view.getUint32(at + 20, true);
  const bssEnd = view.getUint32(at + 24, true);
  const entry = view.getUint32(at + 28, true);
  if (load > header) fail(`load address is above the header's: ${load}`);
  const start = at - (header - load);
  if (start < 0) fail(`load address is before the file: ${load}`);
  const length = loadEnd === 0 ? image.length - start : loadEnd - load;
  if (length < 0 || start + length > image.length) {
    fail(`load end address is outside the file: ${loadEnd}`);
  }
  const size = bssEnd === 0 ? length : bssEnd - load;
  if (size < length) fail(`bss ends before the data: ${bssEnd}`);
  return {
    entry,
    segments: [{
      address: load,
      data: image.subarray(start, start + length),
      size,
    }],
  };
}

/**
 * Lays the boot information out: memory, command line, modules, memory map, loader name. Nothing
 * is written yet.
 *
 * @param end First byte after the kernel: modules are put behind it, on pages.
 * @returns A function that writes it and returns its guest-physical address, for EBX.
 * @throws {RangeError} If something does not fit.
 */
export function planBootInfo(
  memory: GuestMemory,
  end: number,
  commandLine: string,
  modules: readonly MultibootModule[],
): () => number {
  const writes: { at: number; data: Uint8Array }[] = [];
  let text: number = LowMemory.BootText;
  const string = (value: string): number => {
    const data = new TextEncoder().encode(value + "\0");
    if (text + data.length > LowMemory.BootTextEnd) {
      throw new RangeError(
        `Cannot load image: command lines are too long: ${data.length} bytes`,
      );
    }
    const at = text;
    writes.push({ at, data });
    text += data.length;
    return at;
  };
  const line = string(commandLine);
  const name = string("syndbg");
  let place = Math.max(end, LowMemory.Extended);
  const placed = modules.map(({ data, text }) => {
    const start = Math.ceil(place / 4096) * 4096;
    if (!memory.contains(start, data.length)) {
      throw new RangeError(
        `Cannot load image: module does not fit guest memory: ${text}`,
      );
    }
    writes.push({ at: start, data });
    place = start + data.length;
    return { start, end: place, text: string(text) };
  });
  return () => {
    const info = LowMemory.BootInfo;
    memory.fill(info, LowMemory.BootTextEnd - info);
    for (const { at, data } of writes) memory.write(at, data);
    writeTables(memory, line, name, placed);
    return info;
  };
}

function writeTables(
  memory: GuestMemory,
  line: number,
  name: number,
  modules: readonly { start: number; end: number; text: number }[],
): void {
  const info = LowMemory.BootInfo;
  const u32 = (offset: number, value: number): void =>
    memory.writeU32(info + offset, value);
  const upper = memory.size - LowMemory.Extended;
  u32(0, INFO_FLAGS);
  u32(4, LowMemory.ConventionalEnd >> 10);
  u32(8, upper / 1024);
  u32(16, line);
  u32(64, name);
  const list = info + 0x100;
  modules.forEach(({ start, end, text }, n) => {
    const at = list + n * 16;
    memory.writeU32(at, start);
    memory.writeU32(at + 4, end);
    memory.writeU32(at + 8, text);
  });
  u32(20, modules.length);
  u32(24, list);
  const map = info + 0x80;
  const regions = memoryRegions(memory.size);
  regions.forEach(({ start, length, type }, n) => {
    const at = map + n * 24;
    memory.writeU32(at, 20);
    memory.writeU64(at + 4, BigInt(start));
    memory.writeU64(at + 12, BigInt(length));
    memory.writeU32(at + 20, type);
  });
  u32(44, regions.length * 24);
  u32(48, map);
}
