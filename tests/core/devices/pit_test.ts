import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { Pit, PIT_FREQUENCY } from "../../../core/devices/pit.ts";

class Bench {
  /** Input clocks since power-on. */
  ticks = 0;
  edges = 0;
  level = false;
  readonly pit: Pit = new Pit(
    () => Math.ceil(this.ticks * 1e9 / PIT_FREQUENCY),
    (level) => {
      if (level && !this.level) this.edges++;
      this.level = level;
    },
  );

  constructor() {
    this.pit.reset();
  }

  out(port: number, ...values: number[]): void {
    for (const value of values) this.pit.writePort(port, 1, value);
  }

  in(port: number): number {
    return this.pit.readPort(port);
  }

  word(port: number): number {
    return this.in(port) | (this.in(port) << 8);
  }

  /** Lets time pass and the timer look. */
  pass(ticks: number): void {
    this.ticks += ticks;
    this.pit.update();
  }

  /** OUT of a channel by read-back. */
  output(channel: number): number {
    this.out(0x43, 0xe0 | (2 << channel));
    return this.in(0x40 + channel) >> 7;
  }
}

const NS_PER_TICK = 1e9 / PIT_FREQUENCY;

Deno.test("Pit counts nothing before it is programmed", () => {
  const bench = new Bench();
  bench.pass(10_000_000);
  assertEquals(bench.edges, 0);
  assertEquals(bench.pit.untilNext(), Infinity);
  assertEquals([bench.in(0x40), bench.in(0x41), bench.in(0x42)], [0, 0, 0]);
  assertEquals(bench.in(0x43), 0);
});

Deno.test("Pit mode 2 interrupts once a period", () => {
  const bench = new Bench();
  bench.out(0x43, 0x34);
  bench.out(0x40, 0xe8, 0x03);
  assertAlmostEquals(bench.pit.untilNext(), 1000 * NS_PER_TICK, 1000);
  bench.pass(999);
  assertEquals(bench.edges, 0);
  bench.pass(1);
  assertEquals(bench.edges, 1);
  bench.pass(400);
  assertAlmostEquals(bench.pit.untilNext(), 600 * NS_PER_TICK, 1000);
  bench.pass(600);
  assertEquals(bench.edges, 2);
  // What was missed is one.
  bench.pass(50_000);
  assertEquals(bench.edges, 3);
});

Deno.test("Pit mode 2 counts down by one, mode 3 by two", () => {
  for (
    const [mode, counts] of [
      [0x34, [1000, 999, 700, 1, 1000]],
      [0x36, [1000, 998, 400, 2, 1000]],
    ] as const
  ) {
    const bench = new Bench();
    bench.out(0x43, mode);
    bench.out(0x40, 0xe8, 0x03);
    const seen: number[] = [];
    for (const at of [0, 1, 300, mode === 0x34 ? 999 : 499, 1000]) {
      bench.ticks = at;
      seen.push(bench.word(0x40));
    }
    assertEquals(seen, [...counts]);
  }
});

Deno.test("Pit's count of 0 is 65536", () => {
  const bench = new Bench();
  bench.out(0x43, 0x34);
  bench.out(0x40, 0, 0);
  bench.pass(65_535);
  assertEquals(bench.edges, 0);
  bench.pass(1);
  assertEquals(bench.edges, 1);
});

Deno.test("Pit mode 0 interrupts once and counts on through 0", () => {
  const bench = new Bench();
  bench.out(0x43, 0x30);
  assertEquals(bench.output(0), 0);
  bench.out(0x40, 0x64, 0x00);
  assertEquals(bench.output(0), 0);
  bench.pass(100);
  assertEquals([bench.edges, bench.output(0)], [1, 1]);
  assertEquals(bench.pit.untilNext(), Infinity);
  bench.pass(1);
  assertEquals(bench.word(0x40), 0xffff);
  bench.pass(200_000);
  assertEquals(bench.edges, 1);
  // A new count starts it again.
  bench.out(0x40, 0x64, 0x00);
  assertEquals([bench.level, bench.output(0)], [false, 0]);
  bench.pass(100);
  assertEquals(bench.edges, 2);
});

Deno.test("Pit's outputs are high where a mode begins high", () => {
  for (const mode of [1, 2, 3, 4, 5]) {
    const bench = new Bench();
    bench.out(0x43, 0x30 | (mode << 1));
    assertEquals(bench.output(0), 1, `mode ${mode} before its count`);
    bench.out(0x40, 0x64, 0x00);
    assertEquals(bench.output(0), 1, `mode ${mode} with its count`);
  }
});

Deno.test("Pit mode 4 strobes low for one clock, then is high", () => {
  const bench = new Bench();
  bench.out(0x43, 0x38);
  bench.out(0x40, 0x64, 0x00);
  const levels: number[] = [];
  for (const at of [0, 99, 100, 101, 5000]) {
    bench.ticks = at;
    levels.push(bench.output(0));
  }
  assertEquals(levels, [1, 1, 0, 1, 1]);
});

Deno.test("Pit mode 3 is high for one half of its period", () => {
  const bench = new Bench();
  bench.out(0x43, 0xb6);
  bench.out(0x42, 0x64, 0x00);
  bench.out(0x61, 1);
  const levels: number[] = [];
  for (const at of [0, 49, 50, 99, 100, 149, 150]) {
    bench.ticks = at;
    levels.push((bench.in(0x61) >> 5) & 1);
  }
  assertEquals(levels, [1, 1, 0, 0, 1, 1, 0]);
});

Deno.test("Pit loads and reads low byte, high byte or both", () => {
  const bench = new Bench();
  bench.out(0x43, 0x14);
  bench.out(0x40, 0x80);
  assertEquals([bench.in(0x40), bench.in(0x40)], [0x80, 0x80]);
  bench.out(0x43, 0x24);
  bench.out(0x40, 0x12);
  assertEquals([bench.in(0x40), bench.in(0x40)], [0x12, 0x12]);
  bench.out(0x43, 0x34);
  bench.out(0x40, 0x34, 0x12);
  assertEquals([bench.in(0x40), bench.in(0x40)], [0x34, 0x12]);
  assertEquals(bench.word(0x40), 0x1234);
});

Deno.test("Pit holds a latched count until it is read", () => {
  const bench = new Bench();
  bench.out(0x43, 0x34);
  bench.out(0x40, 0x00, 0x10);
  bench.ticks = 16;
  bench.out(0x43, 0x00);
  bench.ticks = 32;
  // The second latch before the first was read means nothing.
  bench.out(0x43, 0x00);
  bench.ticks = 48;
  assertEquals(bench.word(0x40), 0x1000 - 16);
  assertEquals(bench.word(0x40), 0x1000 - 48);
});

Deno.test("Pit's read-back latches status and count of the named channels", () => {
  const bench = new Bench();
  bench.out(0x43, 0x34, 0x76, 0xb0);
  bench.out(0x40, 0x00, 0x10);
  bench.out(0x41, 0x00, 0x20);
  bench.ticks = 16;
  bench.out(0x43, 0xc6);
  bench.ticks = 100;
  assertEquals(bench.in(0x40), 0x80 | 0x34);
  assertEquals(bench.word(0x40), 0x1000 - 16);
  assertEquals(bench.in(0x41), 0x80 | 0x36);
  assertEquals(bench.word(0x41), 0x2000 - 32);
  assertEquals(bench.word(0x40), 0x1000 - 100);
});

Deno.test("Pit's status says when a count has not been loaded", () => {
  const bench = new Bench();
  bench.out(0x43, 0x34);
  bench.out(0x43, 0xe2);
  assertEquals(bench.in(0x40) & 0x40, 0x40);
  bench.out(0x40, 0x00, 0x10);
  bench.out(0x43, 0xe2);
  assertEquals(bench.in(0x40) & 0x40, 0);
});

Deno.test("Pit channel 2 measures time through port 0x61", () => {
  const bench = new Bench();
  bench.out(0x61, 1);
  assertEquals(bench.in(0x61) & 3, 1);
  bench.out(0x43, 0xb0);
  bench.out(0x42, 0xff, 0x0f);
  assertEquals(bench.in(0x61) & 0x20, 0);
  bench.ticks = 0xffe;
  assertEquals(bench.in(0x61) & 0x20, 0);
  bench.ticks = 0xfff;
  assertEquals(bench.in(0x61) & 0x20, 0x20);
  assertEquals(bench.edges, 0);
});

Deno.test("Pit channel 2 stands still while its gate is low", () => {
  const bench = new Bench();
  bench.out(0x43, 0xb0);
  bench.out(0x42, 0x00, 0x10);
  bench.ticks = 100;
  assertEquals(bench.word(0x42), 0x1000);
  bench.out(0x61, 1);
  bench.ticks = 150;
  assertEquals(bench.word(0x42), 0x1000 - 50);
  bench.out(0x61, 0);
  bench.ticks = 1000;
  assertEquals(bench.word(0x42), 0x1000 - 50);
  bench.out(0x61, 3);
  bench.ticks = 1010;
  assertEquals(bench.word(0x42), 0x1000 - 60);
});

Deno.test("Pit channel 2 starts over at its gate in modes 1, 2 and 5", () => {
  for (const mode of [1, 2, 5]) {
    const bench = new Bench();
    bench.out(0x61, 1);
    bench.out(0x43, 0xb0 | (mode << 1));
    bench.out(0x42, 0x00, 0x10);
    bench.ticks = 500;
    bench.out(0x61, 0);
    bench.ticks = 600;
    bench.out(0x61, 1);
    bench.ticks = 700;
    assertEquals(bench.word(0x42), 0x1000 - 100, `mode ${mode}`);
  }
});

Deno.test("Pit mode 1 is low from its gate's edge to the end of its count", () => {
  const bench = new Bench();
  bench.out(0x43, 0xb2);
  bench.out(0x42, 0x64, 0x00);
  const levels: number[] = [];
  const look = (at: number): void => {
    bench.ticks = at;
    levels.push((bench.in(0x61) >> 5) & 1);
  };
  look(10);
  bench.out(0x61, 1);
  look(10);
  look(109);
  look(110);
  look(1000);
  assertEquals(levels, [1, 0, 0, 1, 1]);
});

Deno.test("Pit's refresh bit in port 0x61 toggles", () => {
  const bench = new Bench();
  const seen = new Set<number>();
  for (let n = 0; n < 10; n++) {
    seen.add(bench.in(0x61) & 0x10);
    bench.ticks += 18;
  }
  assertEquals(seen.size, 2);
});

Deno.test("Pit survives every command and count", () => {
  const bench = new Bench();
  let seed = 1;
  const random = (): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return seed >>> 16;
  };
  const ports = [0x40, 0x41, 0x42, 0x43, 0x61];
  for (let n = 0; n < 20_000; n++) {
    const port = ports[random() % 5]!;
    if ((random() & 1) === 0) bench.out(port, random() & 255);
    else {
      const value = bench.in(port);
      assertEquals(value, value & 255);
    }
    bench.pass(random() % 1000);
    const next = bench.pit.untilNext();
    assertEquals(next >= 0, true);
  }
});

Deno.test("Pit's reset stops it", () => {
  const bench = new Bench();
  bench.out(0x43, 0x34);
  bench.out(0x40, 1, 0);
  bench.pass(1);
  bench.pit.reset();
  assertEquals(bench.level, false);
  const edges = bench.edges;
  bench.pass(100_000);
  assertEquals(bench.edges, edges);
  assertEquals(bench.in(0x61) & 3, 0);
});

Deno.test("Pit goes on at another time as it was saved, and refuses what is no state", () => {
  const bench = new Bench();
  bench.out(0x43, 0x34, 0xb0);
  bench.out(0x40, 0xe8, 0x03);
  bench.out(0x42, 0x10, 0x27);
  bench.out(0x61, 1);
  bench.pass(400);
  bench.out(0x43, 0x80);
  const state = structuredClone(bench.pit.save());
  const other = new Bench();
  other.ticks = 1_000_000;
  other.pit.restore(state);
  assertAlmostEquals(other.pit.untilNext(), 600 * NS_PER_TICK, 1);
  assertEquals(other.word(0x40), 600);
  assertEquals(other.word(0x42), bench.word(0x42));
  other.pass(600);
  assertEquals(other.edges, 1);
  const [first, ...rest] = state["channels"] as Record<string, unknown>[];
  for (
    const channels of [undefined, [], [{ ...first, mode: 6 }, ...rest], [
      { ...first, passed: Infinity },
      ...rest,
    ]]
  ) {
    assertThrows(
      () => other.pit.restore({ ...state, channels }),
      TypeError,
      "Cannot restore timer: invalid",
    );
  }
  // What no timer would save does no harm.
  other.pit.restore({
    ...state,
    channels: [{ ...first, reload: 0, access: 0 }, ...rest],
  });
  assertEquals(other.pit.untilNext() > 0, true);
});
