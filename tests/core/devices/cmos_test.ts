import { assertEquals, assertThrows } from "@std/assert";
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

const ADDRESS_A = 0x0a, ADDRESS_B = 0x0b, ADDRESS_C = 0x0c;

/** A clock whose time a test moves. */
class Bench {
  /** Milliseconds since 1970, and nanoseconds since the start. */
  date = DATE.getTime();
  now = 0;
  irq = false;
  readonly cmos: Cmos = new Cmos(0x400_0000, {
    date: () => new Date(this.date),
    now: () => this.now,
    irq: (level) => this.irq = level,
  });

  read(index: number): number {
    this.cmos.writePort(0x70, 1, index);
    return this.cmos.readPort(0x71);
  }

  write(index: number, value: number): void {
    this.cmos.writePort(0x70, 1, index);
    this.cmos.writePort(0x71, 1, value);
  }

  pass(milliseconds: number): void {
    this.date += milliseconds;
    this.now += milliseconds * 1e6;
    this.cmos.update();
  }
}

Deno.test("Cmos interrupts when the time has changed, until C is read", () => {
  const bench = new Bench();
  assertEquals(bench.cmos.untilNext(), Infinity);
  bench.write(ADDRESS_B, 0x12);
  bench.pass(400);
  assertEquals([bench.irq, bench.cmos.untilNext()], [false, 600e6]);
  bench.pass(600);
  assertEquals([bench.irq, bench.cmos.untilNext()], [true, Infinity]);
  // Rate 6 has gone by too, which was not asked for.
  assertEquals(bench.read(ADDRESS_C), 0xd0);
  assertEquals([bench.irq, bench.read(ADDRESS_C)], [false, 0]);
});

Deno.test("Cmos interrupts at the time of its alarm", () => {
  const bench = new Bench();
  for (const [at, value] of [[1, 0x00], [3, 0xc0], [5, 0x00]] as const) {
    bench.write(at, value);
  }
  bench.write(ADDRESS_B, 0x22);
  bench.pass(1000);
  assertEquals(bench.irq, false);
  bench.pass(1000);
  assertEquals([bench.read(0), bench.read(2), bench.read(4)], [0, 0, 0]);
  assertEquals([bench.irq, bench.read(ADDRESS_C) & 0xb0], [true, 0xb0]);
});

Deno.test("Cmos interrupts periodically at its rate", () => {
  const bench = new Bench();
  bench.write(ADDRESS_A, 0x2f);
  bench.write(ADDRESS_B, 0x42);
  assertEquals(bench.cmos.untilNext(), 500e6);
  bench.pass(500);
  assertEquals([bench.irq, bench.read(ADDRESS_C) & 0xc0], [true, 0xc0]);
  for (
    const [rate, period] of [
      [6, 976_562.5],
      [3, 122_070.3125],
      [1, 3_906_250],
      [2, 7_812_500],
    ]
  ) {
    bench.now = 0;
    bench.write(ADDRESS_A, 0x20 | rate!);
    bench.read(ADDRESS_C);
    assertEquals(bench.cmos.untilNext(), period);
  }
  bench.write(ADDRESS_A, 0x20);
  assertEquals(bench.cmos.untilNext(), Infinity);
});

Deno.test("Cmos holds its updates while the time is set", () => {
  const bench = new Bench();
  bench.write(ADDRESS_B, 0x92);
  assertEquals(bench.read(ADDRESS_B), 0x82);
  bench.pass(1000);
  assertEquals(bench.read(ADDRESS_C) & 0x10, 0);
});

Deno.test("Cmos says that it is about to change before each second", () => {
  const bench = new Bench();
  assertEquals(bench.read(ADDRESS_A), 0x26);
  bench.pass(998);
  assertEquals(bench.read(ADDRESS_A), 0xa6);
  bench.pass(2);
  assertEquals(bench.read(ADDRESS_A), 0x26);
});

Deno.test("Cmos keeps its memory over a reset, and all of it over saving", () => {
  const bench = new Bench();
  bench.write(0x0f, 0xa5);
  bench.write(ADDRESS_B, 0x12);
  bench.pass(1000);
  const state = structuredClone(bench.cmos.save());
  bench.cmos.reset();
  assertEquals([bench.read(0x0f), bench.read(ADDRESS_B)], [0xa5, 2]);
  assertEquals(bench.irq, false);
  bench.cmos.restore(state);
  assertEquals([bench.irq, bench.read(ADDRESS_B)], [true, 0x12]);
  assertThrows(
    () => bench.cmos.restore({ ...state, bytes: [256] }),
    TypeError,
    "Cannot restore clock: invalid bytes",
  );
});
