/**
 * PVH: an ELF file entered in protected mode with no firmware, as Xen's PVH guests are (Xen
 * docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h).
 *
 * @module
 */
import type { Vcpu } from "../backend.ts";
import type { GuestMemory } from "../guest_memory.ts";
import { LowMemory, memoryRegions } from "../memory_map.ts";
import { parseElf } from "./elf.ts";
import { enter } from "./entry_state.ts";
import {
  BOOT_INFO_RANGE,
  checkPlacement,
  ENTRY_RANGES,
  place,
} from "./placement.ts";

/** XEN_ELFNOTE_PHYS32_ENTRY. */
const PHYS32_ENTRY = 18;
const START_INFO_MAGIC = 0x336e_c578;
/** From the start information: its module list and its memory map. */
const MODULES = 0x40;
const MEMORY_MAP = 0x80;

/** What a PVH guest is given. */
export interface PvhBoot {
  /** Command line with its end. */
  text: Uint8Array;
  /** RAM disk, empty for none. */
  initrd: Uint8Array;
  /** Where it goes if the kernel ends at `end`. */
  placeInitrd: (end: number) => number;
}

function fail(what: string): never {
  throw new SyntaxError(`Cannot load PVH image: ${what}`);
}

/** The guest-physical entry point that a note gives, or undefined. */
function findEntry(notes: readonly Uint8Array[]): number | undefined {
  for (const bytes of notes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0; at + 12 <= bytes.length;) {
      const nameSize = view.getUint32(at, true);
      const size = view.getUint32(at + 4, true);
      const type = view.getUint32(at + 8, true);
      const value = at + 12 + Math.ceil(nameSize / 4) * 4;
      const end = value + Math.ceil(size / 4) * 4;
      if (end > bytes.length) fail("a note is cut off");
      const name = new TextDecoder().decode(bytes.subarray(at + 12, at + 16));
      if (type === PHYS32_ENTRY && nameSize === 4 && name === "Xen\0") {
        if (size !== 4 && size !== 8) fail(`size of the entry note: ${size}`);
        return view.getUint32(value, true);
      }
      at = end;
    }
  }
  return undefined;
}

/**
 * Loads an ELF file with a PVH entry point and puts a vCPU there; returns its guest-physical
 * address.
 *
 * @throws {SyntaxError} If the image is damaged or has no such entry point.
 * @throws {RangeError} If something does not fit; then nothing was written.
 */
export function loadPvh(
  memory: GuestMemory,
  vcpu: Vcpu,
  image: Uint8Array,
  boot: PvhBoot,
): number {
  const { segments, notes } = parseElf(image);
  const entry = findEntry(notes) ?? fail("no PVH entry point");
  checkPlacement(memory, segments, entry, [
    ...ENTRY_RANGES.protected,
    BOOT_INFO_RANGE,
  ]);
  const end = Math.max(
    ...segments.map((segment) => segment.address + segment.size),
  );
  const { text, initrd } = boot;
  const initrdAt = initrd.length === 0 ? 0 : boot.placeInitrd(end);

  place(memory, segments);
  if (initrd.length > 0) memory.write(initrdAt, initrd);
  memory.write(LowMemory.BootText, text);
  writeStartInfo(memory, initrdAt, initrd.length);
  enter(memory, vcpu, entry, "protected", {
    rbx: BigInt(LowMemory.BootInfo),
  });
  return entry;
}

function writeStartInfo(
  memory: GuestMemory,
  initrdAt: number,
  initrdSize: number,
): void {
  const info = LowMemory.BootInfo;
  const page = new Uint8Array(LowMemory.BootText - info);
  const view = new DataView(page.buffer);
  const u64 = (at: number, value: number): void =>
    view.setBigUint64(at, BigInt(value), true);
  const regions = memoryRegions(memory.size);
  view.setUint32(0, START_INFO_MAGIC, true);
  view.setUint32(4, 1, true); // version, with a memory map
  if (initrdSize > 0) {
    view.setUint32(12, 1, true);
    u64(16, info + MODULES);
    u64(MODULES, initrdAt);
    u64(MODULES + 8, initrdSize);
  }
  u64(24, LowMemory.BootText);
  u64(40, info + MEMORY_MAP);
  view.setUint32(48, regions.length, true);
  regions.forEach(({ start, length, type }, n) => {
    const at = MEMORY_MAP + n * 24;
    u64(at, start);
    u64(at + 8, length);
    view.setUint32(at + 16, type, true);
  });
  memory.write(info, page);
}
