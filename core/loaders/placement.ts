/**
 * Where an image's parts go in guest RAM, checked before the first of them is written.
 *
 * @module
 */
import type { GuestMemory } from "../guest_memory.ts";
import { LowMemory } from "../memory_map.ts";
import type { LoadSegment } from "./elf.ts";
import type { EntryMode } from "./entry_state.ts";

/** First address, and first address after it. */
export type Range = readonly [number, number];

const GDT: Range = [LowMemory.Gdt, LowMemory.Gdt + 32];
/** Where boot information and its texts lie. */
export const BOOT_INFO_RANGE: Range = [
  LowMemory.BootInfo,
  LowMemory.BootTextEnd,
];
/** Where the entry state of each mode lies. */
export const ENTRY_RANGES: Readonly<Record<EntryMode, readonly Range[]>> = {
  real: [],
  protected: [GDT],
  long: [GDT, [LowMemory.PageTables, LowMemory.PageTablesEnd]],
};

/**
 * Checks that the loaders' own addresses are in RAM.
 *
 * @throws {RangeError} If they are not.
 */
export function checkMemory(memory: GuestMemory): void {
  if (memory.size < 2 * LowMemory.Extended) {
    throw new RangeError(
      `Cannot load image: guest memory is below 2 MiB: ${memory.size}`,
    );
  }
}

/**
 * Checks all that can be wrong with the segments and the entry point of an image.
 *
 * @throws {RangeError} If one is outside guest memory, or where the loader puts its own.
 */
export function checkPlacement(
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

/** Writes the segments. */
export function place(
  memory: GuestMemory,
  segments: readonly LoadSegment[],
): void {
  for (const { address, data, size } of segments) {
    memory.write(address, data);
    memory.fill(address + data.length, size - data.length);
  }
}
