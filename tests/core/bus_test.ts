import { assertEquals, assertThrows } from "@std/assert";
import { PortBus, type PortDevice } from "../../core/bus.ts";

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
