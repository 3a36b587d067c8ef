/**
 * Linux kernels by their own boot protocols: bzImage entered in long or in protected mode (Linux
 * Documentation/arch/x86/boot.rst), and ELF files by PVH.
 *
 * @module
 */
import type { Vcpu } from "../backend.ts";
import type { GuestMemory } from "../guest_memory.ts";
import { LowMemory, memoryRegions } from "../memory_map.ts";
import { isElf } from "./elf.ts";
import { enter } from "./entry_state.ts";
import {
  BOOT_INFO_RANGE,
  checkMemory,
  checkPlacement,
  ENTRY_RANGES,
} from "./placement.ts";
import { loadPvh } from "./pvh.ts";

/** How a kernel is entered. */
export type LinuxProtocol =
  /** In long mode, paging on. */
  | "64-bit"
  /** In protected mode, paging off. */
  | "32-bit"
  /** As a Xen guest with no firmware, in protected mode. */
  | "pvh";

/** What a kernel is given. */
export interface LinuxOptions {
  /** Command line. */
  commandLine?: string;
  /** Initial RAM disk. */
  initrd?: Uint8Array;
  /** Of a bzImage: how it is entered. Default long mode if it can. */
  protocol?: "64-bit" | "32-bit";
}

/** What was loaded. */
export interface LoadedLinux {
  /** How the kernel is entered. */
  protocol: LinuxProtocol;
  /** Guest-physical address at which execution begins. */
  entry: number;
}

/** Fields of the setup header, as offsets in the file and in the zero page. */
const Setup = {
  Sectors: 0x1f1,
  BootFlag: 0x1fe,
  HeaderLength: 0x201,
  Magic: 0x202,
  Version: 0x206,
  LoaderType: 0x210,
  LoadFlags: 0x211,
  CodeStart: 0x214,
  RamdiskImage: 0x218,
  RamdiskSize: 0x21c,
  CommandLine: 0x228,
  InitrdMax: 0x22c,
  Relocatable: 0x234,
  ExtraLoadFlags: 0x236,
  CommandLineSize: 0x238,
  PreferredAddress: 0x258,
  InitSize: 0x260,
  /** What lies here in the zero page is the loader's. */
  End: 0x290,
} as const;

/** Further fields of the zero page (Linux Documentation/arch/x86/zero-page.rst). */
const ZeroPage = { Size: 0x1000, E820Count: 0x1e8, E820: 0x2d0 } as const;

/** "HdrS". */
const MAGIC = 0x5372_6448;
const LOADED_HIGH = 1;
/** The heap and the stack of the 16-bit part are not set up. */
const CAN_USE_HEAP = 0x80;
const KERNEL_64 = 1;
const ENTRY_64 = 0x200;
/** A loader without a number of its own. */
const UNKNOWN_LOADER = 0xff;
/** Selectors that the boot protocol names. */
const SELECTORS = { code: 0x10, data: 0x18 };

function fail(what: string): never {
  throw new SyntaxError(`Cannot load Linux image: ${what}`);
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/** A bzImage taken apart. */
interface BzImage {
  /** The setup header, for the zero page at {@linkcode Setup.Sectors}. */
  header: Uint8Array;
  /** The part that runs in protected or long mode, and where it goes. */
  code: Uint8Array;
  load: number;
  /** First address after all that the kernel uses before it knows the memory map. */
  end: number;
  can64: boolean;
  commandLineSize: number;
  /** Highest address of the RAM disk's last byte. */
  initrdMax: number;
}

/** Nothing in the file is trusted. */
function parseBzImage(image: Uint8Array): BzImage {
  if (image.length < Setup.End) fail(`cut off: ${image.length} bytes`);
  const view = new DataView(image.buffer, image.byteOffset, image.length);
  if (
    view.getUint16(Setup.BootFlag, true) !== 0xaa55 ||
    view.getUint32(Setup.Magic, true) !== MAGIC
  ) fail("neither a bzImage nor an ELF file");
  const version = view.getUint16(Setup.Version, true);
  // 2.03 is the first whose RAM disk has a limit.
  if (version < 0x203) fail(`boot protocol is too old: ${hex(version)}`);
  if ((image[Setup.LoadFlags]! & LOADED_HIGH) === 0) {
    fail("a zImage, which loads low");
  }
  const headerEnd = Setup.Magic + image[Setup.HeaderLength]!;
  if (headerEnd > Setup.End) fail(`header is too long: ${hex(headerEnd)}`);
  const start = ((image[Setup.Sectors]! || 4) + 1) * 512;
  const code = image.subarray(start);
  if (code.length <= ENTRY_64) fail("no code after the setup sectors");

  let load: number = LowMemory.Extended;
  let end = load + code.length;
  if (version >= 0x20a) {
    const preferred = Number(view.getBigUint64(Setup.PreferredAddress, true));
    if (!(preferred >= LowMemory.Extended && preferred <= 0xffff_ffff)) {
      fail(`preferred address is out of range: ${hex(preferred)}`);
    }
    if (image[Setup.Relocatable] !== 0) load = preferred;
    end = Math.max(
      load + code.length,
      preferred + view.getUint32(Setup.InitSize, true),
    );
  }
  return {
    header: image.subarray(Setup.Sectors, headerEnd),
    code,
    load,
    end,
    can64: version >= 0x20c &&
      (view.getUint16(Setup.ExtraLoadFlags, true) & KERNEL_64) !== 0,
    commandLineSize: version >= 0x206
      ? view.getUint32(Setup.CommandLineSize, true)
      : 255,
    initrdMax: view.getUint32(Setup.InitrdMax, true),
  };
}

/** The command line with its end. */
function commandLineBytes(text: string, most: number): Uint8Array {
  const bytes = new TextEncoder().encode(text + "\0");
  const room = LowMemory.BootTextEnd - LowMemory.BootText;
  if (bytes.length > Math.min(most + 1, room)) {
    throw new RangeError(
      `Cannot load Linux image: command line is too long: ${
        bytes.length - 1
      } bytes`,
    );
  }
  return bytes;
}

/** The highest page at which the RAM disk fits between `end` and `limit`. */
function placeInitrd(initrd: Uint8Array, end: number, limit: number): number {
  const at = Math.floor((limit - initrd.length) / 4096) * 4096;
  if (at < end) {
    throw new RangeError(
      `Cannot load Linux image: RAM disk does not fit guest memory: ${initrd.length} bytes`,
    );
  }
  return at;
}

/**
 * Loads a kernel and puts a vCPU at its entry point: a bzImage, or an ELF file with a PVH entry
 * point. The RAM disk goes to the end of RAM.
 *
 * @throws {SyntaxError} If the image is damaged.
 * @throws {RangeError} If something does not fit; then nothing was written.
 */
export function loadLinux(
  memory: GuestMemory,
  vcpu: Vcpu,
  image: Uint8Array,
  options: LinuxOptions = {},
): LoadedLinux {
  const { initrd = new Uint8Array(), commandLine = "" } = options;
  checkMemory(memory);
  if (isElf(image)) {
    const text = commandLineBytes(commandLine, Infinity);
    const entry = loadPvh(memory, vcpu, image, {
      text,
      initrd,
      placeInitrd: (end) => placeInitrd(initrd, end, memory.size),
    });
    return { protocol: "pvh", entry };
  }
  const kernel = parseBzImage(image);
  const protocol = options.protocol ?? (kernel.can64 ? "64-bit" : "32-bit");
  if (protocol === "64-bit" && !kernel.can64) fail("no 64-bit entry point");
  const { load, code } = kernel;
  const entry = protocol === "64-bit" ? load + ENTRY_64 : load;
  const mode = protocol === "64-bit" ? "long" : "protected";
  checkPlacement(
    memory,
    [{ address: load, data: code, size: code.length }],
    entry,
    [...ENTRY_RANGES[mode], BOOT_INFO_RANGE],
  );
  if (kernel.end > memory.size) {
    throw new RangeError(
      `Cannot load Linux image: guest memory is too small: ${memory.size} of ${kernel.end} bytes`,
    );
  }
  const text = commandLineBytes(commandLine, kernel.commandLineSize);
  const initrdAt = initrd.length === 0 ? 0 : placeInitrd(
    initrd,
    kernel.end,
    Math.min(memory.size, kernel.initrdMax + 1),
  );

  memory.write(load, code);
  if (initrd.length > 0) memory.write(initrdAt, initrd);
  memory.write(LowMemory.BootText, text);
  writeZeroPage(memory, kernel, initrdAt, initrd.length);
  enter(memory, vcpu, entry, mode, {
    rsi: BigInt(LowMemory.BootInfo),
  }, SELECTORS);
  return { protocol, entry };
}

function writeZeroPage(
  memory: GuestMemory,
  kernel: BzImage,
  initrdAt: number,
  initrdSize: number,
): void {
  const page = new Uint8Array(ZeroPage.Size);
  const view = new DataView(page.buffer);
  page.set(kernel.header, Setup.Sectors);
  page[Setup.LoaderType] = UNKNOWN_LOADER;
  page[Setup.LoadFlags]! &= ~CAN_USE_HEAP;
  view.setUint32(Setup.CodeStart, kernel.load, true);
  view.setUint32(Setup.RamdiskImage, initrdAt, true);
  view.setUint32(Setup.RamdiskSize, initrdSize, true);
  view.setUint32(Setup.CommandLine, LowMemory.BootText, true);
  const regions = memoryRegions(memory.size);
  page[ZeroPage.E820Count] = regions.length;
  regions.forEach(({ start, length, type }, n) => {
    const at = ZeroPage.E820 + n * 20;
    view.setBigUint64(at, BigInt(start), true);
    view.setBigUint64(at + 8, BigInt(length), true);
    view.setUint32(at + 16, type, true);
  });
  memory.write(LowMemory.BootInfo, page);
}
