import { assert, assertEquals, assertThrows } from "@std/assert";
import { MmioBus } from "../../../core/bus.ts";
import { attachVirtio } from "../../../core/devices/virtio/attach.ts";
import {
  type BlockStorage,
  VirtioBlock,
} from "../../../core/devices/virtio/block.ts";
import type { VirtioDevice } from "../../../core/devices/virtio/device.ts";
import { VirtioEntropy } from "../../../core/devices/virtio/entropy.ts";
import { VirtioMmio } from "../../../core/devices/virtio/mmio.ts";
import { GuestMemory } from "../../../core/guest_memory.ts";

const DESC = 0x1000, AVAIL = 0x2000, USED = 0x3000, DATA = 0x4000;
const RAM = 0x4_0000;

interface Descriptor {
  address: number | bigint;
  length: number;
  write?: boolean;
  next?: number;
  flags?: number;
}

/** A driver of one queue. */
class Driver {
  readonly memory = new GuestMemory(RAM, 0);
  readonly device: VirtioMmio;
  line = false;
  #index = 0;

  constructor(device: VirtioDevice, size = 8, start = true) {
    this.device = new VirtioMmio(this.memory, device, (level) => {
      this.line = level;
    });
    if (!start) return;
    this.set(0x70, 3);
    this.set(0x24, 1);
    this.set(0x20, 1);
    this.set(0x70, 11);
    assertEquals(this.get(0x70), 11);
    this.set(0x38, size);
    this.set(0x80, DESC);
    this.set(0x90, AVAIL);
    this.set(0xa0, USED);
    this.set(0x44, 1);
    this.set(0x70, 15);
  }

  get(register: number): number {
    const data = new Uint8Array(4);
    this.device.readMmio(register, data);
    return new DataView(data.buffer).getUint32(0, true);
  }

  set(register: number, value: number): void {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, value, true);
    this.device.writeMmio(register, data);
  }

  describe(n: number, descriptor: Descriptor): void {
    const { view } = this.memory;
    const at = DESC + 16 * n;
    view.setBigUint64(at, BigInt(descriptor.address), true);
    view.setUint32(at + 8, descriptor.length, true);
    view.setUint16(
      at + 12,
      descriptor.flags ??
        (descriptor.write ? 2 : 0) | (descriptor.next === undefined ? 0 : 1),
      true,
    );
    view.setUint16(at + 14, descriptor.next ?? 0, true);
  }

  /** Offers the chain that begins with a descriptor; the bytes written, or undefined. */
  offer(head: number, count = 1): number | undefined {
    const { view } = this.memory;
    const before = view.getUint16(USED + 2, true);
    view.setUint16(AVAIL + 4 + 2 * (this.#index % 8), head, true);
    this.#index += count;
    view.setUint16(AVAIL + 2, this.#index, true);
    this.set(0x50, 0);
    if (view.getUint16(USED + 2, true) === before) return undefined;
    return view.getUint32(USED + 4 + 8 * (before % 8) + 4, true);
  }

  /** A disk request with data that is read or written; its status. */
  request(
    type: number,
    sector: number,
    data: { length: number; write?: boolean },
  ): number {
    const { memory } = this;
    memory.writeU32(DATA, type);
    memory.writeU64(DATA + 8, BigInt(sector));
    memory.writeU8(DATA + 0x8000, 0xee);
    this.describe(0, { address: DATA, length: 16, next: 1 });
    this.describe(1, { address: DATA + 0x1000, ...data, next: 2 });
    this.describe(2, { address: DATA + 0x8000, length: 1, write: true });
    this.offer(0);
    return memory.bytes[DATA + 0x8000]!;
  }
}

class MemoryDisk implements BlockStorage {
  readonly bytes = Uint8Array.from({ length: 4096 }, (_, n) => n >> 9);
  readonly size = this.bytes.length + 100;
  flushes = 0;
  constructor(readonly readOnly = false) {}
  read(offset: number, data: Uint8Array): void {
    data.set(this.bytes.subarray(offset, offset + data.length));
  }
  write(offset: number, data: Uint8Array): void {
    if (data[0] === 0xbd) throw new Error("bad sector");
    this.bytes.set(data, offset);
  }
  flush(): void {
    this.flushes++;
  }
}

Deno.test("A virtio transport says what it is, and takes only what it offers", () => {
  const driver = new Driver(new VirtioEntropy(), 8, false);
  assertEquals([0, 4, 8].map((at) => driver.get(at)), [0x7472_6976, 2, 4]);
  driver.set(0x14, 1);
  assertEquals(driver.get(0x10), 1);
  driver.set(0x14, 2);
  assertEquals(driver.get(0x10), 0);
  // Without VERSION_1, and with a feature that is not offered.
  driver.set(0x70, 11);
  assertEquals(driver.get(0x70), 3);
  driver.set(0x24, 1);
  driver.set(0x20, 1);
  driver.set(0x24, 0);
  driver.set(0x20, 4);
  driver.set(0x70, 11);
  assertEquals(driver.get(0x70), 3);
  driver.set(0x30, 1);
  assertEquals(driver.get(0x34), 0);
  // Registers are words.
  const byte = new Uint8Array([1]);
  driver.device.readMmio(0, byte);
  assertEquals(byte[0], 0);
});

Deno.test("A virtio source of entropy fills what it is given and interrupts", () => {
  const driver = new Driver(new VirtioEntropy());
  driver.describe(0, { address: DATA, length: 64, write: true, next: 3 });
  driver.describe(3, { address: DATA + 100, length: 32, write: true });
  assertEquals(driver.offer(0), 96);
  assert(driver.memory.read(DATA, 64).some((byte) => byte !== 0));
  assert(driver.memory.read(DATA + 100, 32).some((byte) => byte !== 0));
  assertEquals([driver.line, driver.get(0x60)], [true, 1]);
  driver.set(0x64, 1);
  assertEquals([driver.line, driver.get(0x60)], [false, 0]);
  // A driver that polls is not interrupted.
  driver.memory.view.setUint16(AVAIL, 1, true);
  assertEquals(driver.offer(0), 96);
  assertEquals(driver.line, false);
});

Deno.test("A virtio disk reads, writes, flushes and tells its name", () => {
  const disk = new MemoryDisk();
  const driver = new Driver(new VirtioBlock(disk, "disk0"));
  const config = new Uint8Array(8);
  driver.device.readMmio(0x100, config);
  assertEquals([...config], [8, 0, 0, 0, 0, 0, 0, 0]);
  const data = DATA + 0x1000;
  assertEquals(driver.request(0, 3, { length: 1024, write: true }), 0);
  assertEquals([511, 512].map((n) => driver.memory.bytes[data + n]), [3, 4]);
  driver.memory.fill(data, 512, 0x77);
  assertEquals(driver.request(1, 7, { length: 512 }), 0);
  assertEquals([disk.bytes[3583], disk.bytes[3584]], [6, 0x77]);
  assertEquals(driver.request(4, 0, { length: 0 }), 0);
  assertEquals(disk.flushes, 1);
  assertEquals(driver.request(8, 0, { length: 20, write: true }), 0);
  assertEquals(
    new TextDecoder().decode(driver.memory.read(data, 6)),
    "disk0\0",
  );
});

Deno.test("A virtio disk answers what cannot be done with an error", () => {
  const driver = new Driver(new VirtioBlock(new MemoryDisk(), ""));
  for (
    const [type, sector, length, write] of [
      [0, 8, 512, true],
      [0, 7, 1024, true],
      [0, 0, 511, true],
      [1, 8, 512, false],
      [1, 0, 3, false],
      [0, 2 ** 52, 512, true],
    ] as const
  ) assertEquals(driver.request(type, sector, { length, write }), 1);
  driver.memory.fill(DATA + 0x1000, 512, 0xbd);
  assertEquals(driver.request(1, 0, { length: 512 }), 1);
  assertEquals(driver.request(99, 0, { length: 512 }), 2);
  const readOnly = new Driver(new VirtioBlock(new MemoryDisk(true), ""));
  assertEquals(readOnly.request(1, 0, { length: 512 }), 1);
  // No header, and no room for a status.
  driver.describe(0, { address: DATA, length: 1, write: true });
  assertEquals(driver.offer(0), 1);
  assertEquals(driver.memory.bytes[DATA], 1);
  driver.describe(0, { address: DATA, length: 16 });
  assertEquals(driver.offer(0), 0);
});

Deno.test("A driver that breaks the rules stops its device until a reset", () => {
  const breaks: ((driver: Driver) => void)[] = [
    // A loop, also of one descriptor.
    (d) => d.describe(0, { address: DATA, length: 1, next: 0 }),
    (d) => d.describe(0, { address: DATA, length: 1, next: 8 }),
    (d) => d.describe(0, { address: RAM - 1, length: 2, write: true }),
    (d) => d.describe(0, { address: 2n ** 64n - 1n, length: 2, write: true }),
    (d) => d.describe(0, { address: 0, length: 0xffff_ffff, write: true }),
    (d) => d.describe(0, { address: DATA, length: 16, flags: 4 }),
    (d) => {
      d.describe(0, { address: DATA, length: 1, write: true, next: 1 });
      d.describe(1, { address: DATA, length: 1 });
    },
    (d) => {
      d.set(0x44, 0);
      d.set(0xa4, 1);
      d.set(0x44, 1);
    },
  ];
  for (const [n, spoil] of breaks.entries()) {
    const driver = new Driver(new VirtioEntropy());
    spoil(driver);
    assertEquals(driver.offer(0), undefined, `case ${n}`);
    assertEquals(driver.get(0x70), 15 | 64, `case ${n}`);
    assertEquals([driver.line, driver.get(0x60)], [true, 2]);
    driver.describe(0, { address: DATA, length: 1, write: true });
    assertEquals(driver.offer(0), undefined);
    driver.set(0x70, 0);
    assertEquals([driver.get(0x70), driver.line], [0, false]);
  }
  const driver = new Driver(new VirtioEntropy());
  assertEquals(driver.offer(8), undefined);
  assertEquals(driver.get(0x70), 15 | 64);
  // More chains than the queue has entries.
  const many = new Driver(new VirtioEntropy());
  assertEquals(many.offer(0, 9), undefined);
  assertEquals(many.get(0x70), 15 | 64);
});

Deno.test("30,000 random accesses and rings leave the host alone", () => {
  const driver = new Driver(new VirtioBlock(new MemoryDisk(), "x"));
  const { bytes } = driver.memory;
  let seed = 7;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor(seed / 2 ** 32 * below);
  };
  const addresses = [0, DESC, AVAIL, USED, RAM - 1, 0xffff_ffff];
  for (let n = 0; n < 30_000; n++) {
    for (let k = 0; k < 4; k++) {
      bytes[[DESC, AVAIL, USED][random(3)]! + random(64)] = random(256);
    }
    const value = random(2) === 0 ? random(64) : addresses[random(6)]!;
    driver.set(random(3) === 0 ? 0x50 : random(0x30) * 4, value);
    driver.get(random(0x80) * 4);
  }
});

Deno.test("attachVirtio gives each device its own place and line", () => {
  const memory = new GuestMemory(RAM, 0);
  const mmio = new MmioBus();
  const lines: [number, boolean][] = [];
  const machine = {
    mmio,
    setLine: (line: number, high: boolean): void => {
      lines.push([line, high]);
    },
  };
  const devices = [new VirtioEntropy(), new VirtioEntropy()];
  const windows = attachVirtio(machine, memory, devices);
  assertEquals(windows, [
    { base: 0xfeb0_0000, size: 0x200, line: 16 },
    { base: 0xfeb0_0200, size: 0x200, line: 17 },
  ]);
  const data = new Uint8Array(4);
  mmio.read(0, 0xfeb0_0208, data);
  assertEquals([...data], [4, 0, 0, 0]);
  assertThrows(
    () => attachVirtio(machine, memory, Array(9).fill(devices[0])),
    RangeError,
    "more than 8: 9",
  );
});
