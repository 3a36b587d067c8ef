import { assertEquals, assertThrows } from "@std/assert";
import { ApicBus } from "../../../core/devices/apic_bus.ts";
import { IoApic } from "../../../core/devices/ioapic.ts";
import { ApicRegister } from "../../../core/devices/apic_registers.ts";
import { LocalApic } from "../../../core/devices/lapic.ts";

const LEVEL = 0x8000, LOW = 0x2000, MASKED = 0x1_0000, REMOTE_IRR = 0x4000;
const NMI = 4 << 8;

/** An IOAPIC and two local APICs. */
class Bench {
  readonly bus: ApicBus = new ApicBus();
  readonly ioapic: IoApic = new IoApic(this.bus);
  readonly lines: boolean[] = [];
  nmis = 0;

  constructor() {
    for (let id = 0; id < 2; id++) {
      const apic = new LocalApic(
        id,
        this.bus,
        { now: () => 0, readTsc: () => 0n, tscFrequency: 1 },
        {
          interrupt: (asserted) => this.lines[id] = asserted,
          taskPriority: () => {},
          nmi: () => this.nmis++,
          init: () => {},
          startup: () => {},
          endOfInterrupt: (vector, level) => {
            if (level) this.ioapic.endOfInterrupt(vector);
          },
          timerChanged: () => {},
        },
      );
      this.bus.apics.push(apic);
      apic.writeRegister(ApicRegister.Spurious, 0x1ff);
    }
  }

  word(offset: number, value?: number): number {
    const data = new Uint8Array(4);
    const view = new DataView(data.buffer);
    if (value === undefined) this.ioapic.readMmio(offset, data);
    else {
      view.setUint32(0, value, true);
      this.ioapic.writeMmio(offset, data);
    }
    return view.getUint32(0, true);
  }

  read(index: number): number {
    this.word(0, index);
    return this.word(0x10);
  }

  write(index: number, value: number): void {
    this.word(0, index);
    this.word(0x10, value);
  }

  /** Writes a redirection entry. */
  route(pin: number, low: number, destination = 0): void {
    this.write(0x11 + 2 * pin, destination << 24);
    this.write(0x10 + 2 * pin, low);
  }

  entry(pin: number): number {
    return this.read(0x10 + 2 * pin);
  }

  take(id = 0): number | undefined {
    return this.lines[id] ? this.bus.apics[id]!.acknowledge() : undefined;
  }

  end(id = 0): void {
    this.bus.apics[id]!.endOfInterrupt();
  }
}

Deno.test("IoApic has 24 lines, all masked after power-on", () => {
  const bench = new Bench();
  assertEquals(bench.read(1), 0x17_0020);
  for (let pin = 0; pin < 24; pin++) {
    assertEquals(bench.entry(pin), MASKED);
    bench.ioapic.setLine(pin, true);
  }
  assertEquals(bench.lines, [false, false]);
  // There is no 25th.
  bench.write(0x40, 0x40);
  assertEquals(bench.read(0x40), 0);
});

Deno.test("IoApic keeps its ID, and reads back what was selected", () => {
  const bench = new Bench();
  bench.write(0, 0xff00_0001);
  assertEquals([bench.read(0), bench.read(2)], [0x0f00_0000, 0x0f00_0000]);
  bench.write(1, 0);
  assertEquals(bench.read(1), 0x17_0020);
  assertEquals(bench.word(0), 1);
});

Deno.test("IoApic sends an edge once to where its entry says", () => {
  const bench = new Bench();
  bench.route(4, 0x34, 1);
  bench.ioapic.setLine(4, true);
  bench.ioapic.setLine(4, true);
  assertEquals([bench.take(0), bench.take(1)], [undefined, 0x34]);
  bench.end(1);
  assertEquals(bench.take(1), undefined);
  bench.ioapic.setLine(4, false);
  bench.ioapic.setLine(4, true);
  assertEquals(bench.take(1), 0x34);
  assertEquals(bench.entry(4), 0x34);
});

Deno.test("IoApic forgets an edge on a masked line", () => {
  const bench = new Bench();
  bench.route(4, 0x34 | MASKED);
  bench.ioapic.setLine(4, true);
  bench.route(4, 0x34);
  assertEquals(bench.take(), undefined);
});

Deno.test("IoApic sends a level again at the end of its interrupt as long as it is active", () => {
  const bench = new Bench();
  bench.route(9, 0x39 | LEVEL);
  bench.ioapic.setLine(9, true);
  assertEquals(bench.entry(9), 0x39 | LEVEL | REMOTE_IRR);
  assertEquals(bench.take(), 0x39);
  bench.end();
  assertEquals(bench.take(), 0x39);
  bench.ioapic.setLine(9, false);
  bench.ioapic.setLine(9, true);
  bench.ioapic.setLine(9, false);
  bench.end();
  assertEquals(bench.take(), undefined);
  assertEquals(bench.entry(9), 0x39 | LEVEL);
});

Deno.test("IoApic sends a level that is there when its line is unmasked", () => {
  const bench = new Bench();
  bench.route(9, 0x39 | LEVEL | MASKED);
  bench.ioapic.setLine(9, true);
  assertEquals(bench.take(), undefined);
  bench.route(9, 0x39 | LEVEL);
  assertEquals(bench.take(), 0x39);
});

Deno.test("IoApic does not wait for a local APIC that did not take a level", () => {
  const bench = new Bench();
  bench.route(9, 0x39 | LEVEL, 7);
  bench.ioapic.setLine(9, true);
  assertEquals(bench.entry(9), 0x39 | LEVEL);
  bench.route(9, 0x39 | LEVEL, 1);
  assertEquals(bench.take(1), 0x39);
});

Deno.test("IoApic takes lines that are active low", () => {
  const bench = new Bench();
  bench.ioapic.setLine(5, true);
  bench.route(5, 0x35 | LOW);
  assertEquals(bench.take(), undefined);
  bench.ioapic.setLine(5, false);
  assertEquals(bench.take(), 0x35);
  bench.end();
  bench.ioapic.setLine(6, true);
  bench.route(6, 0x36 | LOW | LEVEL);
  assertEquals(bench.take(), undefined);
  bench.ioapic.setLine(6, false);
  assertEquals(bench.take(), 0x36);
});

Deno.test("IoApic ends an interrupt by its own register, and by a switch to edges", () => {
  const bench = new Bench();
  for (
    const end of [() => bench.word(0x40, 0x39), () => bench.route(9, 0x39)]
  ) {
    bench.route(9, 0x39 | LEVEL);
    bench.ioapic.setLine(9, true);
    assertEquals(bench.entry(9) & REMOTE_IRR, REMOTE_IRR);
    bench.ioapic.setLine(9, false);
    end();
    assertEquals(bench.entry(9) & REMOTE_IRR, 0);
  }
});

Deno.test("IoApic sends other messages than interrupts", () => {
  const bench = new Bench();
  bench.route(3, NMI, 0xff);
  bench.ioapic.setLine(3, true);
  assertEquals(bench.nmis, 2);
});

Deno.test("IoApic takes words of its window and bytes of its index only", () => {
  const bench = new Bench();
  bench.ioapic.writeMmio(0, new Uint8Array([0x18]));
  bench.ioapic.writeMmio(0x10, new Uint8Array([0x34]));
  assertEquals(bench.word(0x10), MASKED);
  const data = new Uint8Array(8);
  bench.ioapic.readMmio(0x10, data);
  assertEquals([...data], [0, 0, 1, 0, 0, 0, 0, 0]);
  bench.ioapic.readMmio(0x20, data);
  assertEquals([...data], new Array(8).fill(0));
});

Deno.test("IoApic comes back as it was saved, and refuses what is no state", () => {
  const bench = new Bench();
  bench.route(9, 0x39 | LEVEL, 1);
  bench.ioapic.setLine(9, true);
  const state = structuredClone(bench.ioapic.save());
  const other = new Bench();
  other.ioapic.restore(state);
  assertEquals(other.entry(9), 0x39 | LEVEL | REMOTE_IRR);
  other.ioapic.endOfInterrupt(0x39);
  assertEquals(other.take(1), 0x39);
  assertThrows(
    () => other.ioapic.restore({ ...state, low: [] }),
    TypeError,
    "Cannot restore IOAPIC: invalid low",
  );
});
