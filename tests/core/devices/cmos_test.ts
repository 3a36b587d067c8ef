import { assertEquals } from "@std/assert";
import { Cmos } from "../../../core/devices/cmos.ts";

// A Saturday.
const DATE = new Date("2026-10-31T23:59:58Z");

function setup(memory: number, date = DATE): {
  read: (index: number) => number;
  write: (index: number, value: number) => void;
} {
  const cmos = new Cmos(memory, { date: () => date });
  const select = (index: number): void => cmos.writePort(0x70, 1, index);
  return {
    read: (index) => {
      select(index);
      return cmos.readPort(0x71);
    },
    write: (index, value) => {
      select(index);
      cmos.writePort(0x71, 1, value);
    },
  };
}

Deno.test("Cmos tells time as BCD in 24 hours", () => {
  const { read } = setup(0x400_0000);
  assertEquals(
    [0, 2, 4, 6, 7, 8, 9, 0x32].map(read),
    [0x58, 0x59, 0x23, 0x07, 0x31, 0x10, 0x26, 0x20],
  );
});

Deno.test("Cmos tells time in binary if register B says so", () => {
  const { read, write } = setup(0x400_0000);
  write(0x0b, 6);
  assertEquals([0, 2, 4, 7, 8, 9].map(read), [58, 59, 23, 31, 10, 26]);
});

Deno.test("Cmos tells time in 12 hours if register B says so", () => {
  for (
    const [hour, code] of [[0, 0x12], [1, 1], [11, 0x11], [12, 0x92], [
      23,
      0x91,
    ]]
  ) {
    const date = new Date(Date.UTC(2026, 0, 1, hour!));
    const { read, write } = setup(0x400_0000, date);
    write(0x0b, 0);
    assertEquals(read(4), code);
  }
});

Deno.test("Cmos keeps time when the guest writes it", () => {
  const { read, write } = setup(0x400_0000);
  write(0, 0);
  write(9, 0);
  assertEquals([read(0), read(9)], [0x58, 0x26]);
});

Deno.test("Cmos says its clock is valid and not updating", () => {
  const { read } = setup(0x400_0000);
  assertEquals([0x0a, 0x0b, 0x0c, 0x0d].map(read), [0x26, 2, 0, 0x80]);
});

Deno.test("Cmos gives memory sizes as firmware does", () => {
  const word = (memory: number, at: number): number => {
    const { read } = setup(memory);
    return read(at) | (read(at + 1) << 8);
  };
  for (
    const [memory, below16, above16] of [
      [0x20_0000, 1024, 0],
      [0x100_0000, 15 * 1024, 0],
      [0x400_0000, 15 * 1024, 48 * 16],
      [0xc000_0000, 15 * 1024, (3072 - 16) * 16],
    ]
  ) {
    assertEquals(word(memory!, 0x15), 640);
    assertEquals(word(memory!, 0x17), below16);
    assertEquals(word(memory!, 0x30), below16);
    assertEquals(word(memory!, 0x34), above16);
  }
});

Deno.test("Cmos is memory elsewhere, the shutdown byte among it", () => {
  const { read, write } = setup(0x400_0000);
  for (const at of [0x0f, 0x40, 0x7f]) {
    write(at, 0xa5);
    assertEquals(read(at), 0xa5);
  }
});

Deno.test("Cmos ignores the NMI bit of its index and does not show the index", () => {
  const cmos = new Cmos(0x400_0000, { date: () => DATE });
  cmos.writePort(0x70, 1, 0x8d);
  assertEquals(cmos.readPort(0x71), 0x80);
  assertEquals(cmos.readPort(0x70), 0xff);
});
