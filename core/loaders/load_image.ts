import type { Vcpu } from "../backend.ts";
import type { GuestMemory } from "../guest_memory.ts";
import { LowMemory } from "../memory_map.ts";
import { isElf, type LoadSegment, parseElf } from "./elf.ts";
import { enter, type EntryMode } from "./entry_state.ts";
import {
  findMultiboot,
  MULTIBOOT_MAGIC,
  type MultibootModule,
  planBootInfo,
} from "./multiboot.ts";
import {
  BOOT_INFO_RANGE,
  checkMemory,
  checkPlacement,
  ENTRY_RANGES,
  place,
} from "./placement.ts";

/** How an image is to be loaded. What is not given follows from the image. */
export interface LoadOptions {
  /** Of flat images: where they go. Default 0x7C00 in real mode, else 1 MiB. */
  address?: number;
  /** Where execution begins. Default the image's entry point, or its first byte. */
  entry?: number;
  /** Of flat images: the mode. Default `real`. */
  mode?: EntryMode;
  /** Multiboot command line. */
  commandLine?: string;
  /** Multiboot modules. */
  modules?: readonly MultibootModule[];
}

/** What was loaded. */
export interface LoadedImage {
  /** What the image was taken for. */
  kind: "multiboot" | "elf32" | "elf64" | "flat";
  /** Guest-physical address at which execution begins. */
  entry: number;
  /** Mode in which it begins. */
  mode: EntryMode;
}

const MAX_MODULES = 64;

/**
 * Loads a kernel and puts a vCPU at its entry point: multiboot 1, ELF32 (protected mode), ELF64
 * (long mode, first 4 GiB mapped to themselves), or a flat binary.
 *
 * @throws {SyntaxError} If the image is damaged.
 * @throws {RangeError} If it does not fit; then nothing was written.
 */
export function loadImage(
  memory: GuestMemory,
  vcpu: Vcpu,
  image: Uint8Array,
  options: LoadOptions = {},
): LoadedImage {
  if (image.length === 0) throw new SyntaxError("Cannot load image: no bytes");
  checkMemory(memory);
  if ((options.modules?.length ?? 0) > MAX_MODULES) {
    throw new RangeError(
      `Cannot load image: too many modules: ${options.modules!.length}`,
    );
  }
  const multiboot = findMultiboot(image);
  if (multiboot !== undefined) {
    const placed = multiboot.placed ?? elf32(image);
    const entry = options.entry ?? placed.entry;
    checkPlacement(memory, placed.segments, entry, [
      ...ENTRY_RANGES.protected,
      BOOT_INFO_RANGE,
    ]);
    const end = Math.max(
      ...placed.segments.map((segment) => segment.address + segment.size),
    );
    const writeBootInfo = planBootInfo(
      memory,
      end,
      options.commandLine ?? "",
      options.modules ?? [],
    );
    place(memory, placed.segments);
    enter(memory, vcpu, entry, "protected", {
      rax: BigInt(MULTIBOOT_MAGIC),
      rbx: BigInt(writeBootInfo()),
    });
    return { kind: "multiboot", entry, mode: "protected" };
  }
  if (isElf(image)) {
    const elf = parseElf(image);
    const mode = elf.bits === 64 ? "long" : "protected";
    const entry = options.entry ?? elf.entry;
    checkPlacement(memory, elf.segments, entry, ENTRY_RANGES[mode]);
    place(memory, elf.segments);
    enter(memory, vcpu, entry, mode);
    return { kind: elf.bits === 64 ? "elf64" : "elf32", entry, mode };
  }
  const mode = options.mode ?? "real";
  const address = options.address ??
    (mode === "real" ? 0x7c00 : LowMemory.Extended);
  const entry = options.entry ?? address;
  const segments = [{ address, data: image, size: image.length }];
  checkPlacement(memory, segments, entry, ENTRY_RANGES[mode]);
  if (mode === "real" && entry >= LowMemory.Extended) {
    throw new RangeError(
      `Cannot load image: entry point 0x${
        entry.toString(16)
      } is out of real mode's reach`,
    );
  }
  place(memory, segments);
  enter(memory, vcpu, entry, mode);
  return { kind: "flat", entry, mode };
}

function elf32(image: Uint8Array): { entry: number; segments: LoadSegment[] } {
  const elf = parseElf(image);
  if (elf.bits !== 32) {
    throw new SyntaxError(
      "Cannot load multiboot image: a 64-bit ELF file without addresses in its header",
    );
  }
  return elf;
}
