import type { VirtioWindow } from "../../acpi/tables.ts";
import type { GuestMemory } from "../../guest_memory.ts";
import type { Machine } from "../../machine.ts";
import { Interrupt, Mmio } from "../../memory_map.ts";
import type { VirtioDevice } from "./device.ts";
import { VIRTIO_MMIO_SIZE, VirtioMmio } from "./mmio.ts";

/** Interrupt lines that only the IOAPIC has: each device gets its own. */
const LINES = 8;

/**
 * Gives a machine virtio devices, before it runs; where they are, for its ACPI tables.
 *
 * @throws {RangeError} If there are more than 8.
 */
export function attachVirtio(
  machine: Pick<Machine, "mmio" | "setLine">,
  memory: GuestMemory,
  devices: readonly VirtioDevice[],
): VirtioWindow[] {
  if (devices.length > LINES) {
    throw new RangeError(
      `Cannot add virtio devices: more than ${LINES}: ${devices.length}`,
    );
  }
  return devices.map((device, n) => {
    const line = Interrupt.Virtio + n;
    const base = Mmio.Virtio + n * VIRTIO_MMIO_SIZE;
    const transport = new VirtioMmio(
      memory,
      device,
      (level) => machine.setLine(line, level),
    );
    machine.mmio.add(base, VIRTIO_MMIO_SIZE, transport);
    return { base, size: VIRTIO_MMIO_SIZE, line };
  });
}
