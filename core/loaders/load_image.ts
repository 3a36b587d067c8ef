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
  if (memory.size < 2 * LowMemory.Extended) {
    throw new RangeError(
      `Cannot load image: guest memory is below 2 MiB: ${memory.size}`,
    );
  }
  if ((options.modules?.length ?? 0) > MAX_MODULES) {
    throw new RangeError(
      `Cannot load image: too many modules: ${options.modules!.length}`,
    );
  }
  const multiboot = findMultiboot(image);
  if (multiboot !== undefined) {
    const placed = multiboot.placed ?? elf32(image);
    const entry = options.entry ?? placed.entry;
    check(memory, placed.segments, entry, BOOT_INFO);
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
    check(memory, elf.segments, entry, RESERVED[mode]);
    place(memory, elf.segments);
    enter(memory, vcpu, entry, mode);
    return { kind: elf.bits === 64 ? "elf64" : "elf32", entry, mode };
  }
  const mode = options.mode ?? "real";
  const address = options.address ??
    (mode === "real" ? 0x7c00 : LowMemory.Extended);
  const entry = options.entry ?? address;
  const segments = [{ address, data: image, size: image.length }];
  check(memory, segments, entry, RESERVED[mode]);
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

type Range = readonly [number, number];

const GDT: Range = [LowMemory.Gdt, LowMemory.Gdt + 24];
const BOOT_INFO: readonly Range[] = [
  GDT,
  [LowMemory.BootInfo, LowMemory.BootTextEnd],
];
/** Where the entry state of each mode lies. */
const RESERVED: Readonly<Record<EntryMode, readonly Range[]>> = {
  real: [],
  protected: [GDT],
  long: [GDT, [LowMemory.PageTables, LowMemory.PageTablesEnd]],
};

/** Everything that can be wrong, before the first write. */
function check(
  memory: GuestMemory,
  segments: readonly LoadSegment[],
  entry: number,
  reserved: readonly Range[],
): void {
  // Segments may overlap, but a file of a few bytes must not cost minutes of filling.
  const total = segments.reduce((sum, { size }) => sum + size, 0);
  if (total > memory.size) {
    throw new RangeError(
      `Cannot load image: segments are outside guest memory: ${total} bytes in all`,
    );
  }
  for (const segment of segments) {
    if (
      !Number.isSafeInteger(segment.address) ||
      !memory.contains(segment.address, segment.size)
    ) {
      throw new RangeError(
        `Cannot load image: ${segment.size} bytes at 0x${
          segment.address.toString(16)
        } are outside guest memory`,
      );
    }
    for (const [start, end] of reserved) {
      if (segment.address < end && start < segment.address + segment.size) {
        throw new RangeError(
          `Cannot load image: 0x${
            segment.address.toString(16)
          } overlaps what the loader puts at 0x${start.toString(16)}`,
        );
      }
    }
  }
  if (!Number.isSafeInteger(entry) || !memory.contains(entry, 1)) {
    throw new RangeError(
      `Cannot load image: entry point 0x${
        entry.toString(16)
      } is outside guest memory`,
    );
  }
}

function place(memory: GuestMemory, segments: readonly LoadSegment[]): void {
  for (const { address, data, size } of segments) {
    memory.write(address, data);
    memory.fill(address + data.length, size - data.length);
  }
}
