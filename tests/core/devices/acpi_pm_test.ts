import { assertEquals, assertThrows } from "@std/assert";
import { AcpiPm, PM_TIMER_FREQUENCY } from "../../../core/devices/acpi_pm.ts";

const STATUS = 0x600, ENABLE = 0x602, CONTROL = 0x604, TIMER = 0x608;
const HALF = 2 ** 31 * 1e9 / PM_TIMER_FREQUENCY;

class Bench {
  time = 0;
  sci = false;
  off = 0;
  readonly pm: AcpiPm = new AcpiPm(
    () => this.time,
    (level) => this.sci = level,
    () => this.off++,
  );
}

Deno.test("AcpiPm counts time in 32 bits", () => {
  const bench = new Bench();
  assertEquals(bench.pm.readPort(TIMER, 4), 0);
  bench.time = 1e9;
  assertEquals(bench.pm.readPort(TIMER, 4), PM_TIMER_FREQUENCY);
  assertEquals(bench.pm.readPort(TIMER, 1), PM_TIMER_FREQUENCY & 255);
  bench.time = 2 * HALF + 1e9;
  const wrapped = bench.pm.readPort(TIMER, 4) - PM_TIMER_FREQUENCY;
  assertEquals(Math.abs(wrapped) <= 1, true);
  bench.pm.writePort(TIMER, 4, 0);
  assertEquals(bench.pm.readPort(TIMER, 4) > 0, true);
});

Deno.test("AcpiPm interrupts when its timer's highest bit changes", () => {
  const bench = new Bench();
  bench.time = HALF + 1000;
  bench.pm.update();
  assertEquals([bench.pm.readPort(STATUS, 2), bench.sci], [1, false]);
  bench.pm.writePort(ENABLE, 2, 0xffff);
  assertEquals([bench.pm.readPort(ENABLE, 2), bench.sci], [0x0721, true]);
  assertEquals(bench.pm.untilNext(), Infinity);
  bench.pm.writePort(STATUS, 2, 1);
  assertEquals([bench.pm.readPort(STATUS, 2), bench.sci], [0, false]);
  const left = bench.pm.untilNext();
  assertEquals(Math.abs(left - HALF + 1000) < 1000, true);
  bench.time += left + 1000;
  bench.pm.update();
  assertEquals(bench.sci, true);
  assertEquals(bench.pm.readPort(STATUS, 4), 0x0721_0001);
});

Deno.test("AcpiPm is in ACPI mode, and switches off for soft off only", () => {
  const bench = new Bench();
  assertEquals(bench.pm.readPort(CONTROL, 2), 1);
  // Type without enable, enable with another type.
  bench.pm.writePort(CONTROL, 2, 5 << 10);
  assertEquals(bench.pm.readPort(CONTROL, 2), 5 << 10 | 1);
  bench.pm.writePort(CONTROL, 2, 1 << 13 | 1 << 10);
  assertEquals([bench.off, bench.pm.readPort(CONTROL, 2)], [0, 1 << 10 | 1]);
  bench.pm.writePort(CONTROL, 2, 1 << 13 | 5 << 10);
  assertEquals(bench.off, 1);
  bench.pm.writePort(CONTROL + 1, 1, 0x34);
  assertEquals(bench.off, 2);
});

Deno.test("AcpiPm reads zeros between its registers, and survives any access", () => {
  const bench = new Bench();
  assertEquals(bench.pm.readPort(0x606, 2), 0);
  for (let port = 0x600; port < 0x60c; port++) {
    for (const size of [1, 2, 4]) {
      bench.pm.writePort(port, size, 0xffff_ffff);
      const value = bench.pm.readPort(port, size);
      assertEquals(value >= 0 && value < 256 ** size, true);
    }
  }
});

Deno.test("AcpiPm comes back as it was saved, and refuses what is no state", () => {
  const bench = new Bench();
  bench.time = 5e9;
  bench.pm.writePort(ENABLE, 2, 1);
  const ticks = bench.pm.readPort(TIMER, 4);
  const other = new Bench();
  other.time = 1e9;
  other.pm.restore(structuredClone(bench.pm.save()));
  assertEquals(other.pm.readPort(TIMER, 4), ticks);
  assertEquals(other.pm.readPort(ENABLE, 2), 1);
  assertThrows(
    () => other.pm.restore({ ...bench.pm.save(), ticks: 2 ** 32 }),
    TypeError,
    "Cannot restore ACPI: invalid ticks",
  );
});
