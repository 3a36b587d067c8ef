import { assert, assertEquals, assertThrows } from "@std/assert";
import { type AcpiOptions, installAcpi } from "../../../core/acpi/tables.ts";
import { GuestMemory } from "../../../core/guest_memory.ts";

/** Tables by signature, found from the root pointer as a system finds them. */
function tables(
  options?: AcpiOptions,
): { root: number; found: Map<string, Uint8Array>; memory: GuestMemory } {
  const memory = new GuestMemory(0x20_0000, 0);
  const root = installAcpi(memory, options);
  const { view } = memory;
  const found = new Map<string, Uint8Array>();
  const text = (at: number, length: number): string =>
    new TextDecoder().decode(memory.read(at, length));
  assertEquals(text(root, 8), "RSD PTR ");
  assertEquals([sum(memory.read(root, 20)), sum(memory.read(root, 36))], [
    0,
    0,
  ]);
  const read = (at: number): Uint8Array => {
    const table = memory.read(at, view.getUint32(at + 4, true));
    if (text(at, 4) !== "FACS") assertEquals(sum(table), 0, text(at, 4));
    found.set(text(at, 4), table);
    return table;
  };
  const xsdt = word(read(view.getUint32(root + 24, true)));
  for (let at = 36; at < xsdt.byteLength; at += 8) {
    const table = word(read(xsdt.getUint32(at, true)));
    if (table.getUint8(0) === 0x46) {
      read(table.getUint32(36, true));
      read(table.getUint32(40, true));
      assertEquals(table.getUint32(140, true), table.getUint32(40, true));
    }
  }
  return { root, found, memory };
}

function word(table: Uint8Array): DataView {
  return new DataView(table.buffer, table.byteOffset, table.length);
}

function sum(bytes: Uint8Array): number {
  return bytes.reduce((total, byte) => total + byte, 0) & 255;
}

Deno.test("installAcpi leaves tables that a system finds from the root pointer", () => {
  const { root, found, memory } = tables();
  assertEquals(root, 0xe_0000);
  assertEquals([...found.keys()].sort(), [
    "APIC",
    "DSDT",
    "FACP",
    "FACS",
    "XSDT",
  ]);
  // Nothing elsewhere.
  assert(memory.bytes.subarray(0, 0xe_0000).every((byte) => byte === 0));
  assert(memory.bytes.subarray(0xf_0000).every((byte) => byte === 0));
});

Deno.test("installAcpi tells of the interrupt controllers in the MADT", () => {
  const madt = tables({ cpus: 3 }).found.get("APIC")!;
  const view = word(madt);
  assertEquals(view.getUint32(36, true), 0xfee0_0000);
  const entries: number[][] = [];
  for (let at = 44; at < madt.length; at += madt[at + 1]!) {
    entries.push([...madt.subarray(at, at + madt[at + 1]!)]);
  }
  assertEquals(entries, [
    [0, 8, 0, 0, 1, 0, 0, 0],
    [0, 8, 1, 1, 1, 0, 0, 0],
    [0, 8, 2, 2, 1, 0, 0, 0],
    [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
    [2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
    [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
    [4, 6, 0xff, 0, 0, 1],
  ]);
});

Deno.test("installAcpi tells of the fixed hardware in the FADT", () => {
  const view = word(tables().found.get("FACP")!);
  assertEquals(view.byteLength, 276);
  assertEquals(
    [56, 64, 76].map((at) => view.getUint32(at, true)),
    [0x600, 0x604, 0x608],
  );
  assertEquals([88, 89, 91].map((at) => view.getUint8(at)), [4, 2, 4]);
  // Reset: port 0xCF9, value 6.
  assertEquals(
    [116, 117, 119, 128].map((at) => view.getUint8(at)),
    [1, 8, 1, 6],
  );
  assertEquals(view.getUint32(120, true), 0xcf9);
  assertEquals(view.getUint16(46, true), 9);
});

Deno.test("installAcpi describes virtio devices with their resources", () => {
  const dsdt = tables({
    virtio: [{ base: 0xd000_0000, size: 0x200, line: 17 }],
  }).found.get("DSDT")!;
  const hex = [...dsdt].map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
  assert(hex.includes("4c4e524f3030303500"), "LNRO0005");
  assert(hex.includes("86090001000000d000020000"), "Memory32Fixed");
  assert(hex.includes("8906000101110000007900"), "Interrupt, end");
});

Deno.test("installAcpi gives the package of soft off that the machine takes", () => {
  const dsdt = tables().found.get("DSDT")!;
  assertEquals([...dsdt.subarray(36, 50)], [
    ...[0x08, 0x5c, 0x5f, 0x53, 0x35, 0x5f],
    ...[0x12, 0x07, 4, 0x0a, 5, 0, 0, 0],
  ]);
});

Deno.test("installAcpi has room for 255 vCPUs and eight devices, and no more", () => {
  const virtio = Array.from({ length: 8 }, (_, n) => ({
    base: 0xd000_0000 + n * 0x200,
    size: 0x200,
    line: 16 + n,
  }));
  const { found } = tables({ cpus: 255, virtio });
  assert(found.get("DSDT")!.length > 0x1000);
  assertThrows(
    () => installAcpi(new GuestMemory(0x20_0000, 0), { cpus: 256 }),
    RangeError,
    "Cannot install ACPI tables: vCPUs must be 1 to 255: 256",
  );
});
