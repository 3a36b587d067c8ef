import { assertEquals, assertThrows } from "@std/assert";
import {
  MmioBus,
  type MmioDevice,
  PortBus,
  type PortDevice,
} from "../../core/bus.ts";

function recorder(log: string[], name: string, value = 0): PortDevice {
  return {
    readPort: (port, size) => {
      log.push(`${name} in ${port} ${size}`);
      return value;
    },
    writePort: (port, size, written) => {
      log.push(`${name} out ${port} ${size} ${written}`);
    },
  };
}

Deno.test("PortBus reads all ones of the access's size where nothing is", () => {
  const bus = new PortBus();
  assertEquals(bus.read(0xcfc, 1), 0xff);
  assertEquals(bus.read(0xcfc, 2), 0xffff);
  assertEquals(bus.read(0xcfc, 4), 0xffff_ffff);
  bus.write(0xcf8, 4, 0x8000_0000);
});

Deno.test("PortBus gives accesses to the device with the absolute port", () => {
  const log: string[] = [];
  const bus = new PortBus();
  bus.add(0x10, 2, recorder(log, "a", 7));
  bus.add(0x12, 1, recorder(log, "b", 8));
  bus.add(0xffff, 1, recorder(log, "c", 9));
  assertEquals(bus.read(0x11, 1), 7);
  assertEquals(bus.read(0x12, 2), 8);
  assertEquals(bus.read(0x13, 1), 0xff);
  assertEquals(bus.read(0xffff, 1), 9);
  bus.write(0x10, 4, 0xffff_ffff);
  assertEquals(log, [
    "a in 17 1",
    "b in 18 2",
    "c in 65535 1",
    "a out 16 4 4294967295",
  ]);
});

Deno.test("PortBus refuses a taken port and then adds nothing", () => {
  const log: string[] = [];
  const bus = new PortBus();
  bus.add(0x20, 1, recorder(log, "a"));
  assertThrows(
    () => bus.add(0x1f, 2, recorder(log, "b")),
    RangeError,
    "Cannot add device: port is taken: 32",
  );
  assertEquals(bus.read(0x1f, 1), 0xff);
});

Deno.test("PortBus refuses ports that do not exist", () => {
  const bus = new PortBus();
  for (const [first, count] of [[0xffff, 2], [-1, 1], [0x1_0000, 1], [5, 0]]) {
    assertThrows(
      () => bus.add(first!, count!, recorder([], "a")),
      RangeError,
      "Cannot add device: no such ports",
    );
  }
});

Deno.test("PortBus takes 255 devices", () => {
  const bus = new PortBus();
  for (let n = 0; n < 255; n++) bus.add(n, 1, recorder([], "a", n));
  assertEquals(bus.read(254, 1), 254);
  assertThrows(
    () => bus.add(255, 1, recorder([], "a")),
    RangeError,
    "too many devices",
  );
});

/** A device that notes what is done to it. */
function memoryDevice(log: string[], fill: number): MmioDevice {
  return {
    readMmio: (offset, data, vcpu) => {
      log.push(`${vcpu} read ${data.length} at ${offset}`);
      data.fill(fill);
    },
    writeMmio: (offset, data, vcpu) => {
      log.push(`${vcpu} write ${data} at ${offset}`);
    },
  };
}

Deno.test("MmioBus finds devices by their ranges, in whatever order they came", () => {
  const bus = new MmioBus();
  const log: string[] = [];
  bus.add(0x3000, 0x1000, memoryDevice(log, 3));
  bus.add(0x1000, 0x200, memoryDevice(log, 1));
  bus.add(0x1200, 0x200, memoryDevice(log, 2));
  const data = new Uint8Array(4);
  const read = (gpa: number): number => {
    bus.read(5, gpa, data.fill(0));
    return data[3]!;
  };
  assertEquals(
    [0xffc, 0x1000, 0x11fc, 0x1200, 0x13fc, 0x1400, 0x2ffc, 0x3000, 0x3ffc]
      .map(read),
    [0xff, 1, 1, 2, 2, 0xff, 0xff, 3, 3],
  );
  bus.write(6, 0x3010, new Uint8Array([7, 8]));
  assertEquals(log[0], "5 read 4 at 0");
  assertEquals(log.at(-1), "6 write 7,8 at 16");
  assertEquals([read(0x4000), read(2 ** 51)], [0xff, 0xff]);
});

Deno.test("MmioBus reaches nobody with an access that is not all in one range", () => {
  const bus = new MmioBus();
  const log: string[] = [];
  bus.add(0x1000, 0x200, memoryDevice(log, 1));
  bus.add(0x1200, 0x200, memoryDevice(log, 2));
  const data = new Uint8Array(4);
  for (const gpa of [0xffe, 0x11fe, 0x13fe]) {
    bus.read(0, gpa, data);
    bus.write(0, gpa, data);
    assertEquals([...data], [255, 255, 255, 255]);
  }
  assertEquals(log, []);
});

Deno.test("MmioBus refuses addresses that are taken or do not exist", () => {
  const bus = new MmioBus();
  const device = memoryDevice([], 0);
  bus.add(0x1000, 0x1000, device);
  for (
    const [first, size] of [
      [0x1fff, 1],
      [0, 0x1001],
      [0, 0x4000],
      [-1, 1],
      [
        0,
        0,
      ],
      [2 ** 52, 1],
      [NaN, 1],
    ]
  ) {
    assertThrows(
      () => bus.add(first!, size!, device),
      RangeError,
      "Cannot add device",
    );
  }
  bus.add(0x2000, 1, device);
});
