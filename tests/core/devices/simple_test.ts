import { assertEquals, assertThrows } from "@std/assert";
import {
  debugExit,
  debugText,
  keyboardController,
  resetControl,
  sink,
  systemControl,
} from "../../../core/devices/simple.ts";

Deno.test("debugExit gives (value << 1) | 1 as eight bits", () => {
  const codes: number[] = [];
  const device = debugExit((code) => codes.push(code));
  for (const value of [0, 1, 0x10, 0x7f, 0x80, 0xffff_ffff]) {
    device.writePort(0xf4, 4, value);
  }
  assertEquals(codes, [1, 3, 0x21, 0xff, 1, 0xff]);
  assertEquals(device.readPort(0xf4, 1), 0);
});

Deno.test("debugText reads as its own number", () => {
  const bytes: number[] = [];
  const device = debugText((byte) => bytes.push(byte));
  device.writePort(0xe9, 1, 0x141);
  assertEquals(bytes, [0x41]);
  assertEquals(device.readPort(0xe9, 1), 0xe9);
});

Deno.test("sink takes everything", () => {
  sink.writePort(0x80, 1, 0x55);
  assertEquals(sink.readPort(0x80, 1), 0xff);
});

Deno.test("systemControl has A20 and resets by bit 0", () => {
  let resets = 0;
  const device = systemControl(() => resets++);
  assertEquals(device.readPort(0x92, 1), 2);
  device.writePort(0x92, 1, 2);
  assertEquals(resets, 0);
  device.writePort(0x92, 1, 3);
  assertEquals(resets, 1);
  assertEquals(device.readPort(0x92, 1), 2);
});

Deno.test("keyboardController resets by each pulse of output 0", () => {
  let resets = 0;
  const device = keyboardController(() => resets++);
  for (const command of [0xfe, 0xf0]) device.writePort(0x64, 1, command);
  assertEquals(resets, 2);
  for (const command of [0xff, 0xf1, 0xad]) device.writePort(0x64, 1, command);
  assertEquals(resets, 2);
  device.writePort(0x64, 1, 0xd1);
  device.writePort(0x60, 1, 0xdf);
  assertEquals(resets, 2);
  device.writePort(0x60, 1, 0);
  assertEquals(resets, 2, "data without a command");
  device.writePort(0x64, 1, 0xd1);
  device.writePort(0x60, 1, 0xde);
  assertEquals(resets, 3);
});

Deno.test("keyboardController passes its tests and answers once", () => {
  const device = keyboardController(() => {});
  const ask = (command: number): number => {
    device.writePort(0x64, 1, command);
    assertEquals(device.readPort(0x64, 1) & 3, 1, `answer to ${command}`);
    const answer = device.readPort(0x60, 1);
    assertEquals(device.readPort(0x64, 1) & 1, 0);
    return answer;
  };
  assertEquals(ask(0xaa), 0x55);
  assertEquals(ask(0xab), 0);
  assertEquals(ask(0xd0) & 3, 3);
  ask(0x20);
  assertEquals(device.readPort(0x60, 1), 0);
});

Deno.test("resetControl resets by bit 2 and keeps the kind of reset", () => {
  let resets = 0;
  const device = resetControl(() => resets++);
  device.writePort(0xcf9, 1, 2);
  assertEquals([device.readPort(0xcf9, 1), resets], [2, 0]);
  device.writePort(0xcf9, 1, 6);
  assertEquals([device.readPort(0xcf9, 1), resets], [2, 1]);
});

Deno.test("devices of a register come back as they were saved, and refuse what is no state", () => {
  const keyboard = keyboardController(() => {});
  const system = systemControl(() => {});
  keyboard.writePort(0x64, 1, 0xaa);
  system.writePort(0x92, 1, 0);
  const saved = [keyboard.save(), system.save()];
  keyboard.reset();
  system.reset();
  assertEquals([keyboard.readPort(0x64, 1) & 1, system.readPort(0x92, 1)], [
    0,
    2,
  ]);
  keyboard.restore(saved[0]!);
  system.restore(saved[1]!);
  assertEquals(
    [keyboard.readPort(0x60, 1), system.readPort(0x92, 1)],
    [0x55, 0],
  );
  assertThrows(
    () => keyboard.restore({ answer: -1, command: 0 }),
    TypeError,
    "Cannot restore keyboard controller: invalid answer",
  );
});
