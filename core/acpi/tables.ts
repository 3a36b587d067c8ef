/**
 * The ACPI tables of the machine (ACPI 6.5, chapter 5).
 *
 * @module
 */
import { APIC_ADDRESS } from "../devices/lapic.ts";
import { PmBlock, SLEEP_OFF } from "../devices/acpi_pm.ts";
import type { GuestMemory } from "../guest_memory.ts";
import { Interrupt, LowMemory, Mmio, Port } from "../memory_map.ts";
import {
  type Aml,
  device,
  eisaId,
  fixedMemory,
  integer,
  isaInterrupt,
  levelInterrupt,
  name,
  pack,
  ports,
  resources,
  scope,
  text,
} from "./aml.ts";

/** A virtio-mmio device of the machine. */
export interface VirtioWindow {
  /** Guest-physical address of its registers. */
  base: number;
  /** Bytes of registers. */
  size: number;
  /** Interrupt line, 16 to 23. */
  line: number;
}

/** What the tables tell of. */
export interface AcpiOptions {
  /** vCPUs, 1 to 255. Default 1. */
  cpus?: number;
  /** Virtio devices that are found by their tables. */
  virtio?: readonly VirtioWindow[];
}

const HEADER = 36;
const OEM = "SYNDBG";
const OEM_TABLE = "MACHINE ";

/** Bytes of a table under construction, little-endian. */
class Bytes {
  readonly view: DataView<ArrayBuffer>;

  constructor(size: number) {
    this.view = new DataView(new ArrayBuffer(size));
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.view.buffer);
  }

  ascii(at: number, value: string): void {
    this.bytes.set(new TextEncoder().encode(value), at);
  }

  /** Makes the sum of the first `length` bytes 0 with the one at `at`. */
  checksum(at: number, length: number): void {
    let sum = 0;
    for (const byte of this.bytes.subarray(0, length)) sum += byte;
    this.view.setUint8(at, -sum);
  }
}

/** A table with its header (5.2.6). */
function table(
  signature: string,
  revision: number,
  size: number,
  fill: (table: Bytes) => void,
): Uint8Array<ArrayBuffer> {
  const made = new Bytes(size);
  const { view } = made;
  made.ascii(0, signature);
  view.setUint32(4, size, true);
  view.setUint8(8, revision);
  made.ascii(10, OEM);
  made.ascii(16, OEM_TABLE);
  view.setUint32(24, 1, true);
  made.ascii(28, OEM.slice(0, 4));
  view.setUint32(32, 1, true);
  fill(made);
  made.checksum(9, size);
  return made.bytes;
}

function hexName(prefix: string, n: number): string {
  return prefix + n.toString(16).toUpperCase().padStart(2, "0");
}

/** The differentiated system description: power-off, processors and the devices that no bus would find. */
function dsdt(cpus: number, virtio: readonly VirtioWindow[]): Uint8Array {
  const processors = Array.from({ length: cpus }, (_, n) =>
    device(
      hexName("CP", n),
      name("_HID", text("ACPI0007")),
      name("_UID", integer(n)),
    ));
  const code: Aml = [
    ...name(
      "\\_S5",
      pack(integer(SLEEP_OFF), integer(0), integer(0), integer(0)),
    ),
    ...scope(
      "\\_SB",
      ...processors,
      device(
        "COM1",
        name("_HID", eisaId("PNP0501")),
        name("_UID", integer(1)),
        name(
          "_CRS",
          resources(ports(Port.Com1, 8), isaInterrupt(Interrupt.Com1)),
        ),
      ),
      device(
        "RTC",
        name("_HID", eisaId("PNP0B00")),
        name(
          "_CRS",
          resources(ports(Port.Cmos, 2), isaInterrupt(Interrupt.Clock)),
        ),
      ),
      ...virtio.map(({ base, size, line }, n) =>
        device(
          hexName("VR", n),
          name("_HID", text("LNRO0005")),
          name("_UID", integer(n)),
          name("_CCA", integer(1)),
          name(
            "_CRS",
            resources(fixedMemory(base, size), levelInterrupt(line)),
          ),
        )
      ),
    ),
  ];
  return table("DSDT", 2, HEADER + code.length, ({ bytes }) => {
    bytes.set(code, HEADER);
  });
}

// Flags of the FADT (table 5.10).
const WBINVD = 1;
const PROC_C1 = 1 << 2;
const POWER_BUTTON_IS_NO_REGISTER = 1 << 4;
const SLEEP_BUTTON_IS_NO_REGISTER = 1 << 5;
const CLOCK_WAKES_NOT = 1 << 6;
const TIMER_32_BITS = 1 << 8;
const RESET_REGISTER = 1 << 10;
// Boot architecture flags (table 5.11).
const LEGACY_DEVICES = 1;
const NO_VGA = 1 << 2;
const NO_MSI = 1 << 3;

/** Writes a generic address structure of a port (5.2.3.2); `access` is 1 to 3 for 1, 2, 4 bytes. */
function portAddress(
  view: DataView,
  at: number,
  port: number,
  size: number,
  access: number,
): void {
  view.setUint8(at, 1);
  view.setUint8(at + 1, 8 * size);
  view.setUint8(at + 3, access);
  view.setUint32(at + 4, port, true);
}

/** The fixed description (5.2.9). The machine is in ACPI mode from the start. */
function fadt(dsdtAddress: number, facsAddress: number): Uint8Array {
  const event = Port.AcpiPm + PmBlock.Event;
  const control = Port.AcpiPm + PmBlock.Control;
  const timer = Port.AcpiPm + PmBlock.Timer;
  return table("FACP", 6, 276, ({ view }) => {
    view.setUint32(36, facsAddress, true);
    view.setUint32(40, dsdtAddress, true);
    view.setUint16(46, Interrupt.Acpi, true);
    view.setUint32(56, event, true);
    view.setUint32(64, control, true);
    view.setUint32(76, timer, true);
    view.setUint8(88, 4);
    view.setUint8(89, 2);
    view.setUint8(91, 4);
    // No C2 and C3.
    view.setUint16(96, 0xffff, true);
    view.setUint16(98, 0xffff, true);
    view.setUint8(108, 0x32);
    view.setUint16(109, LEGACY_DEVICES | NO_VGA | NO_MSI, true);
    view.setUint32(
      112,
      WBINVD | PROC_C1 | POWER_BUTTON_IS_NO_REGISTER |
        SLEEP_BUTTON_IS_NO_REGISTER | CLOCK_WAKES_NOT | TIMER_32_BITS |
        RESET_REGISTER,
      true,
    );
    portAddress(view, 116, Port.ResetControl, 1, 1);
    view.setUint8(128, 6);
    view.setUint32(140, dsdtAddress, true);
    portAddress(view, 148, event, 4, 2);
    portAddress(view, 172, control, 2, 2);
    portAddress(view, 208, timer, 4, 3);
  });
}

/** The firmware's control structure, with which nothing is shared: it has no header, and is aligned (5.2.10). */
function facs(): Uint8Array {
  const made = new Bytes(64);
  made.ascii(0, "FACS");
  made.view.setUint32(4, 64, true);
  made.view.setUint8(32, 2);
  return made.bytes;
}

/** Flags of an override: active high, level-triggered (5.2.12.5). */
const ACTIVE_HIGH_LEVEL = 0x000d;
const ALL_PROCESSORS = 0xff;

/** The interrupt controllers (5.2.12). */
function madt(cpus: number): Uint8Array {
  const size = HEADER + 8 + 8 * cpus + 12 + 2 * 10 + 6;
  return table("APIC", 5, size, ({ view }) => {
    view.setUint32(36, APIC_ADDRESS, true);
    // There is a PIC pair too.
    view.setUint32(40, 1, true);
    let at = 44;
    for (let n = 0; n < cpus; n++, at += 8) {
      view.setUint8(at + 1, 8);
      view.setUint8(at + 2, n);
      view.setUint8(at + 3, n);
      view.setUint32(at + 4, 1, true);
    }
    view.setUint8(at, 1);
    view.setUint8(at + 1, 12);
    view.setUint32(at + 4, Mmio.IoApic, true);
    at += 12;
    const override = (line: number, pin: number, flags: number): void => {
      view.setUint8(at, 2);
      view.setUint8(at + 1, 10);
      view.setUint8(at + 3, line);
      view.setUint32(at + 4, pin, true);
      view.setUint16(at + 8, flags, true);
      at += 10;
    };
    override(Interrupt.Timer, 2, 0);
    override(Interrupt.Acpi, Interrupt.Acpi, ACTIVE_HIGH_LEVEL);
    // NMI on LINT1.
    view.setUint8(at, 4);
    view.setUint8(at + 1, 6);
    view.setUint8(at + 2, ALL_PROCESSORS);
    view.setUint8(at + 5, 1);
  });
}

function xsdt(addresses: readonly number[]): Uint8Array {
  const size = HEADER + 8 * addresses.length;
  return table("XSDT", 1, size, ({ view }) => {
    addresses.forEach((address, n) =>
      view.setUint32(HEADER + 8 * n, address, true)
    );
  });
}

/** The root pointer (5.2.5.3). */
function rsdp(xsdtAddress: number): Uint8Array {
  const made = new Bytes(36);
  made.ascii(0, "RSD PTR ");
  made.ascii(9, OEM);
  made.view.setUint8(15, 2);
  made.view.setUint32(20, 36, true);
  made.view.setUint32(24, xsdtAddress, true);
  made.checksum(8, 20);
  made.checksum(32, 36);
  return made.bytes;
}

/**
 * Puts the ACPI tables of a machine into its RAM, in the 64 KiB from 0xE0000 on: for loaders of operating
 * systems, as firmware would do it.
 *
 * @returns Guest-physical address of the root pointer.
 * @throws {RangeError} If there is no RAM there, or the number of vCPUs is out of range.
 */
export function installAcpi(
  memory: GuestMemory,
  options: AcpiOptions = {},
): number {
  const { cpus = 1, virtio = [] } = options;
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > 255) {
    throw new RangeError(
      `Cannot install ACPI tables: vCPUs must be 1 to 255: ${cpus}`,
    );
  }
  let next: number = LowMemory.Acpi + 64;
  const put = (bytes: Uint8Array): number => {
    const at = next;
    next = (at + bytes.length + 15) & -16;
    memory.write(at, bytes);
    return at;
  };
  const facsAddress = put(facs());
  const tables = [fadt(put(dsdt(cpus, virtio)), facsAddress), madt(cpus)]
    .map(put);
  memory.write(LowMemory.Acpi, rsdp(put(xsdt(tables))));
  return LowMemory.Acpi;
}
